"""The engines that are entered in this process.

A service enters one in its lifespan, whose context variables never reach its request
handlers; they find the only one here. A forked child inherits neither loop nor threads,
so it forgets them, and they refuse to work there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from engine.host import Engine

ENTERED: Final[list[Engine]] = []

_watches_forks = False


def enlist(engine: Engine) -> None:
    """Note that an engine's block is open."""
    global _watches_forks
    ENTERED.append(engine)
    if not _watches_forks and hasattr(os, "register_at_fork"):
        # At the first engine rather than on import, which has no side effects.
        os.register_at_fork(after_in_child=forget_all)
        _watches_forks = True


def delist(engine: Engine) -> None:
    """Note that an engine's block has ended."""
    if engine in ENTERED:
        ENTERED.remove(engine)


def forget_all() -> None:
    """Tell every inherited engine that this process is a fork."""
    for engine in ENTERED:
        engine.was_forked()
    ENTERED.clear()
