"""taskiq: a task is kicked for each through the broker in memory, and waited for.

That broker runs tasks in the process itself; the others need a server and workers.
"""

from __future__ import annotations

import asyncio
import time

from taskiq import InMemoryBroker

DISTRIBUTION = "taskiq"


broker = InMemoryBroker(max_stored_results=1_000_000)


@broker.task
async def nothing(number: int) -> int:
    """Return what was given."""
    return number


async def fan_out(runs: int) -> float:
    """Return the seconds that so many take."""
    began = time.perf_counter()
    kicked = [await nothing.kiq(i) for i in range(runs)]
    results = [await task.wait_result(check_interval=0.001) for task in kicked]
    assert [result.return_value for result in results] == list(range(runs))
    return time.perf_counter() - began


async def all_rounds(runs: int, rounds: int) -> list[float]:
    """Return the seconds of each round, after one that does not count."""
    await broker.startup()
    try:
        return [await fan_out(runs) for _ in range(rounds + 1)][1:]
    finally:
        await broker.shutdown()


def measure(runs: int, rounds: int) -> list[float]:
    """Return the seconds of each round."""
    return asyncio.run(all_rounds(runs, rounds))
