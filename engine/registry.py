"""The engines that are entered in this process.

A service enters one in its lifespan, whose context variables never reach its request
handlers; they find the only one here. A forked child inherits neither loop nor threads,
so it forgets them, and they refuse to work there.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from engine.host import Engine

ENTERED: Final[list[Engine]] = []
"""Those that calls elsewhere may find."""

OPEN: Final[list[Engine]] = []
"""All of them, also those of one call."""

_watches_forks = False


def enlist(engine: Engine, *, is_shared: bool) -> None:
    """Note that an engine's block is open."""
    global _watches_forks
    OPEN.append(engine)
    if is_shared:
        ENTERED.append(engine)
    if not _watches_forks and hasattr(os, "register_at_fork"):
        # At the first engine rather than on import, which has no side effects.
        os.register_at_fork(after_in_child=forget_all)
        _watches_forks = True


def delist(engine: Engine) -> None:
    """Note that an engine's block has ended."""
    for engines in (OPEN, ENTERED):
        with suppress(ValueError):  # forgotten in a forked child
            engines.remove(engine)


def forget_all() -> None:
    """Tell every inherited engine that this process is a fork."""
    for engine in OPEN:
        engine.was_forked()
    OPEN.clear()
    ENTERED.clear()
