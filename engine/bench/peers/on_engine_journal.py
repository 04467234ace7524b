"""This library with a journal: each step is on disk before anybody is told of it.

As durable as the peers that keep their steps in a database.
"""

from __future__ import annotations

import asyncio

from on_engine import in_engine

DISTRIBUTION = None


def measure(runs: int, rounds: int) -> list[float]:
    """Return the seconds of each round."""
    return asyncio.run(in_engine(runs, rounds, "sqlite:///journal.db"))
