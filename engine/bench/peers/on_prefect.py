"""Prefect: a flow maps an async task and collects the results.

With the server that Prefect starts for itself when there is none, and its SQLite file.
"""

from __future__ import annotations

import asyncio
import os
import time

os.environ["PREFECT_HOME"] = os.path.abspath("prefect")
os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"

from prefect import flow, task

DISTRIBUTION = "prefect"


@task
async def nothing(number: int) -> int:
    """Return what was given."""
    return number


@flow
async def fan_out(runs: int) -> float:
    """Return the seconds that so many take."""
    began = time.perf_counter()
    assert nothing.map(range(runs)).result() == list(range(runs))
    return time.perf_counter() - began


def measure(runs: int, rounds: int) -> list[float]:
    """Return the seconds of each round, after one that does not count."""
    asyncio.run(fan_out(1))
    return [asyncio.run(fan_out(runs)) for _ in range(rounds)]
