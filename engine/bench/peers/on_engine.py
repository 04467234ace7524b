"""This library: a flow maps a task over the numbers, in memory."""

from __future__ import annotations

import asyncio
import time

from engine import Engine, flow, task

DISTRIBUTION = None


@task
async def nothing(number: int) -> int:
    """Return what was given."""
    return number


@flow
async def fan_out(runs: int) -> list[int]:
    """Make so many runs and collect what they return."""
    return await nothing.map(range(runs))


async def in_engine(runs: int, rounds: int, journal: str | None) -> list[float]:
    """Return the seconds of each round, after one that does not count.

    The caller has the flow's result, so with a journal all of it is on disk.
    """
    seconds = []
    async with Engine(journal=journal) as engine:
        for _ in range(rounds + 1):
            began = time.perf_counter()
            assert await engine.run(fan_out, runs) == list(range(runs))
            seconds.append(time.perf_counter() - began)
    return seconds[1:]


def measure(runs: int, rounds: int) -> list[float]:
    """Return the seconds of each round, in memory."""
    return asyncio.run(in_engine(runs, rounds, None))
