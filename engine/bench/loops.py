"""Loops to measure on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import anyio

T = TypeVar("T")

OPTIONS: Final[dict[str, dict[str, Any]]] = {
    # On asyncio SIGINT cancels the main task. On trio it would strike in the middle of
    # whatever is executed, the engine's own code among it.
    "trio": {"restrict_keyboard_interrupt_to_checkpoints": True},
}


def run_on(loop: str, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run an async function on a loop of its own."""
    return anyio.run(fn, *args, backend=loop, backend_options=OPTIONS.get(loop))
