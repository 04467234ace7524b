"""DBOS: a durable workflow gathers one step for each, with a SQLite database."""

from __future__ import annotations

import asyncio
import time

from dbos import DBOS

DISTRIBUTION = "dbos"


@DBOS.step()
async def nothing(number: int) -> int:
    """Return what was given."""
    return number


@DBOS.workflow()
async def fan_out(runs: int) -> float:
    """Return the seconds that so many take."""
    began = time.perf_counter()
    results = await asyncio.gather(*(nothing(i) for i in range(runs)))
    assert results == list(range(runs))
    return time.perf_counter() - began


async def all_rounds(runs: int, rounds: int) -> list[float]:
    """Return the seconds of each round, after one that does not count."""
    return [await fan_out(runs) for _ in range(rounds + 1)][1:]


def measure(runs: int, rounds: int) -> list[float]:
    """Return the seconds of each round."""
    url = "sqlite:///dbos.sqlite"
    DBOS(
        config={"name": "bench", "system_database_url": url, "run_admin_server": False}
    )
    DBOS.launch()
    try:
        return asyncio.run(all_rounds(runs, rounds))
    finally:
        DBOS.destroy()
