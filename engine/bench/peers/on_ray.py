"""Ray: one async actor's method is called for each, and all results are got.

Ray's remote functions cannot be async; its way to run async code is an async actor.
"""

from __future__ import annotations

import time
from typing import Any

import ray

DISTRIBUTION = "ray"


class Worker:
    """The actor's class."""

    async def nothing(self, number: int) -> int:
        """Return what was given."""
        return number


def fan_out(worker: Any, runs: int) -> float:
    """Return the seconds that so many take."""
    began = time.perf_counter()
    results = ray.get([worker.nothing.remote(i) for i in range(runs)])
    assert results == list(range(runs))
    return time.perf_counter() - began


def measure(runs: int, rounds: int) -> list[float]:
    """Return the seconds of each round, after one that does not count."""
    ray.init(include_dashboard=False, log_to_driver=False)
    worker = ray.remote(Worker).remote()
    try:
        return [fan_out(worker, runs) for _ in range(rounds + 1)][1:]
    finally:
        ray.shutdown()
