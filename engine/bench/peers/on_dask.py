"""Dask: a client maps an async function over a local cluster and gathers.

The cluster is Dask's default one, with worker processes; its workers run async
functions on their event loops. ``pure=False``, as the results are not to be shared.
"""

from __future__ import annotations

import time

from distributed import Client

DISTRIBUTION = "distributed"


async def nothing(number: int) -> int:
    """Return what was given."""
    return number


def fan_out(client: Client, runs: int) -> float:
    """Return the seconds that so many take."""
    began = time.perf_counter()
    futures = client.map(nothing, range(runs), pure=False)
    assert client.gather(futures) == list(range(runs))
    return time.perf_counter() - began


def measure(runs: int, rounds: int) -> list[float]:
    """Return the seconds of each round, after one that does not count."""
    with Client(dashboard_address=None) as client:
        return [fan_out(client, runs) for _ in range(rounds + 1)][1:]
