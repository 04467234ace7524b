"""Where this code runs: on which kind of loop, if on any."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from engine.dispatch.asyncio import AsyncioWaiter
    from engine.dispatch.trio import TrioWaiter

Backend = Literal["asyncio", "trio"]


def running_backend() -> Backend | None:
    """Return the kind of event loop that runs in this thread, or None."""
    # Not `trio` itself, which may be half imported, by another thread.
    lowlevel = getattr(sys.modules.get("trio"), "lowlevel", None)
    if lowlevel is not None and lowlevel.in_trio_run():
        return "trio"
    if asyncio._get_running_loop() is not None:
        return "asyncio"
    return None


def loop_waiter() -> AsyncioWaiter | TrioWaiter:
    """Return what waits on the loop of this thread.

    Raises:
        RuntimeError: No event loop runs here.
    """
    if running_backend() == "trio":
        from engine.dispatch.trio import TrioWaiter

        return TrioWaiter()
    from engine.dispatch.asyncio import AsyncioWaiter

    return AsyncioWaiter()
