"""One call of the command: what is measured, and what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from engine.bench.cases import Case
from engine.bench.measure import Progress, Setting
from engine.bench.peers.catalogue import Peer
from engine.bench.peers.compare import Comparison, compare, comparison_table
from engine.bench.plot import draw
from engine.bench.report import aligned, environment, heading, number, table
from engine.bench.results import Result
from engine.bench.sizes import Point, points


@attrs.define(eq=False, kw_only=True)
class Session:
    """Measures what it is told to, and keeps what an interruption leaves.

    Attributes:
        setting: How to measure.
        cases: Which cases.
        peers: Whom to compare with.
        python: Where they are installed.
        plot: The file to draw in; None draws nothing.
        was_interrupted: Whether there could be more.
    """

    setting: Setting
    cases: Sequence[Case]
    peers: Sequence[Peer]
    python: str
    plot: Path | None
    was_interrupted: bool = False
    results: list[Result] = attrs.field(factory=list, init=False)
    comparisons: list[Comparison] = attrs.field(factory=list, init=False)
    points: list[Point] = attrs.field(factory=list, init=False)

    def measure(self, progress: Progress) -> None:
        """Measure all; what is found is kept one by one."""
        for case in self.cases:
            for result in case.results(self.setting, progress):
                self.results.append(result)
        if self.peers:
            for one in compare(self.peers, self.python, self.setting, progress):
                self.comparisons.append(one)
        if self.plot is not None:
            try:
                for point in points(self.setting, progress):
                    self.points.append(point)
            finally:
                if self.points:
                    draw(self.points, self.plot)

    def as_json(self) -> dict[str, Any]:
        """Return all of it for programs."""
        return {
            **environment(),
            "runs": self.setting.runs,
            "rounds": self.setting.rounds,
            "clock": self.setting.clock,
            "was_interrupted": self.was_interrupted,
            "results": [result.as_json() for result in self.results],
            "peers": [attrs.asdict(one) for one in self.comparisons],
            "points": [attrs.asdict(point) for point in self.points],
        }

    def as_text(self) -> str:
        """Return all of it for people."""
        return "\n\n".join([heading(self.setting), *self._tables()])

    def _tables(self) -> Iterator[str]:
        if self.results:
            yield table(self.results)
        if self.comparisons:
            yield comparison_table(self.comparisons)
        if self.points:
            rows = [
                [p.loop, f"{p.size:,}", number(p.engine, 2), number(p.bare, 2)]
                for p in self.points
            ]
            yield aligned(("loop", "runs", "µs/run", "bare µs"), rows, {"loop"})
