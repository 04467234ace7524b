"""What a run costs, by how many there are at once."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any, Final

import attrs

from engine.bench import fanout
from engine.bench.clock import clock
from engine.bench.measure import Progress, Setting, collected

SIZES: Final = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
LEAST_RUNS: Final = 1_000
"""How many runs of a small fan-out a round makes altogether."""


@attrs.frozen(kw_only=True)
class Point:
    """What a run of a fan-out of one size costs, in microseconds, the median."""

    loop: str
    size: int
    engine: float
    bare: float


def points(setting: Setting, progress: Progress) -> Iterator[Point]:
    """Measure fan-outs of each size up to the setting's runs, in turn with bare ones.

    An interruption leaves out the size that it finds.
    """
    sizes = [size for size in SIZES if size <= setting.runs] or [setting.runs]
    for loop in setting.loops:
        for size in sizes:
            rounds = setting.rounds * max(1, LEAST_RUNS // size)
            costs: dict[Any, list[float]] = {fanout.bare: [], fanout.submit: []}
            with clock(setting.clock):
                for number in range(rounds + 1):
                    progress(f"{size:,} runs, {loop}: round {number} of {rounds}")
                    for measure, seen in costs.items():
                        seen.append(collected(measure, loop, size).seconds)
            bare, engine = (
                statistics.median(seen[1:]) / size * 1e6 for seen in costs.values()
            )
            yield Point(loop=loop, size=size, engine=engine, bare=bare)
