"""What was measured, and what it may be."""

from __future__ import annotations

from typing import Any, Literal

import attrs

Unit = Literal["x", "us", "MB", "wake-ups"]


@attrs.frozen
class Limit:
    """The most that a figure may be.

    Attributes:
        most: How much.
        unit: Of what: times, microseconds, millions of bytes, wake-ups a second.
        of: What it is compared with, as it follows the figure in a table.
    """

    most: float
    unit: Unit
    of: str = ""


@attrs.frozen(kw_only=True)
class Result:
    """What one case cost on one loop. None stands for what it does not have.

    Attributes:
        case: The case's name.
        title: What it is called in tables.
        loop: The loop it ran on.
        runs: How many runs were made each time.
        rounds: How often.
        us_a_run: Microseconds a run, the median.
        loop_us: Microseconds of a bare task of the loop, the median.
        ratio: How many times as long as the bare task, the median of the rounds.
        base: What the limit compares it with.
        base_us: Microseconds of that.
        transitions_a_second: Published in a second of the median.
        bytes_a_live_run: Memory that one more live run takes.
        loop_bytes: Memory that one more live bare task takes.
        figure: What is held against the limit, in the limit's unit.
        limit: What it may be.
    """

    case: str
    title: str
    loop: str | None
    runs: int | None = None
    rounds: int
    us_a_run: float | None = None
    loop_us: float | None = None
    ratio: float | None = None
    base: str | None = None
    base_us: float | None = None
    transitions_a_second: float | None = None
    bytes_a_live_run: float | None = None
    loop_bytes: float | None = None
    figure: float
    limit: Limit | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the limit is kept; None without one."""
        return None if self.limit is None else self.figure <= self.limit.most

    def as_json(self) -> dict[str, Any]:
        """Return all of it for programs."""
        return {**attrs.asdict(self), "is_met": self.is_met}
