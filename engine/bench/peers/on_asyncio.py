"""Nothing but asyncio: create a task for each and await them all."""

from __future__ import annotations

import asyncio
import time

DISTRIBUTION = None


async def nothing(number: int) -> int:
    """Return what was given."""
    return number


async def fan_out(runs: int) -> float:
    """Return the seconds that so many take."""
    began = time.perf_counter()
    tasks = [asyncio.create_task(nothing(i)) for i in range(runs)]
    assert [await task for task in tasks] == list(range(runs))
    return time.perf_counter() - began


def measure(runs: int, rounds: int) -> list[float]:
    """Return the seconds of each round, after one that does not count."""
    return [asyncio.run(fan_out(runs)) for _ in range(rounds + 1)][1:]
