"""Recovering a journal: entering an engine on it, and waiting until nothing is owed."""

from __future__ import annotations

import anyio

from engine.dispatch.here import loop_waiter
from engine.host import Engine
from engine.journal.sqlite import SQLiteJournal
from engine.statistics import EngineStatistics


async def recover(journal: SQLiteJournal) -> EngineStatistics:
    """Deliver what is owed; return what became of it."""
    async with Engine(journal=journal) as engine:
        await loop_waiter().wait(engine.hooks.subscribe_idle)
    return engine.statistics()


def recover_now(journal: SQLiteJournal, loop: str = "asyncio") -> EngineStatistics:
    """Do so on a loop of its own."""
    return anyio.run(recover, journal, backend=loop)
