"""Who is asked to do the job, and with how many runs."""

from __future__ import annotations

from typing import Final

import attrs


@attrs.frozen(kw_only=True)
class Peer:
    """One that can do the job.

    Attributes:
        name: What it is called on the command line and in the table.
        module: The module here that has it do the job.
        job: What it is asked to do.
        install: How to install it; None for ourselves.
        most_runs: With how many runs it still ends in reasonable time.
    """

    name: str
    module: str
    job: str
    install: str | None = None
    most_runs: int = 10_000


ENGINE: Final = Peer(
    name="engine", module="on_engine", job="a flow maps a task, in memory"
)
OURSELVES: Final = (
    Peer(name="asyncio", module="on_asyncio", job="a task of the loop for each"),
    ENGINE,
    Peer(
        name="engine, journal",
        module="on_engine_journal",
        job="the same, on disk before its caller is told",
    ),
)
PEERS: Final = (
    Peer(
        name="prefect",
        module="on_prefect",
        job="a flow maps an async task; server of its own, SQLite",
        install="pip install prefect",
        most_runs=200,
    ),
    Peer(
        name="dask",
        module="on_dask",
        job="a client maps an async function over worker processes",
        install="pip install 'dask[distributed]'",
        most_runs=2_000,
    ),
    Peer(
        name="ray",
        module="on_ray",
        job="calls of an async actor's method",
        install="pip install ray",
        most_runs=2_000,
    ),
    Peer(
        name="taskiq",
        module="on_taskiq",
        job="kicked through the broker in memory, waited for",
        install="pip install taskiq",
    ),
    Peer(
        name="dbos",
        module="on_dbos",
        job="a durable workflow gathers async steps, SQLite",
        install="pip install dbos",
        most_runs=500,
    ),
)
BY_NAME: Final = {peer.name: peer for peer in PEERS}
