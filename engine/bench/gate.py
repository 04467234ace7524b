"""The gate: the fan-out may not become much dearer than the figures that are kept.

The file that keeps them has, for each version of Python and each loop, ratios to the
bare loop; see `engine.bench.counts`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from engine.bench.exceptions import BenchError
from engine.bench.fresh import apart
from engine.bench.measure import Progress
from engine.bench.report import aligned

MARGIN: Final = 1.25
"""How many times as much as is kept is still let through."""

VERSION: Final = f"{sys.version_info[0]}.{sys.version_info[1]}"
MEANINGS: Final = {
    "seconds": "processor's time",
    "bytecodes": "bytecodes executed",
    "calls": "calls, Python's and C's",
    "blocks": "memory blocks a live run",
    "tracked": "objects of the collector's",
}

Figures = dict[str, dict[str, float]]
"""By loop, and by what counts."""


@attrs.frozen(kw_only=True)
class Verdict:
    """One figure beside the one that is kept; None for one that is not."""

    loop: str
    what: str
    now: float
    kept: float | None

    @property
    def is_let_through(self) -> bool:
        """Whether it has not grown by more than the margin."""
        return self.kept is None or self.now <= self.kept * MARGIN


def figures(loops: Sequence[str], progress: Progress) -> Figures:
    """Measure what the gate looks at."""
    found: Figures = {}
    for loop in loops:
        progress(f"counting on {loop}")
        found[loop] = apart("ratios", loop)
    return found


def read(path: Path) -> dict[str, Figures]:
    """Return what is kept, by Python's version; nothing where there is no file.

    Raises:
        BenchError: The file is not what the gate writes.
    """
    try:
        kept: dict[str, Figures] = json.loads(path.read_text("utf-8"))
        float(sum(sum(f.values()) for v in kept.values() for f in v.values()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BenchError(
            f"the gate's file {path}", f"cannot be used: {error}"
        ) from None
    return kept


def write(path: Path, found: Figures) -> None:
    """Keep figures for this version of Python, in the place of what is kept for it."""
    kept = read(path)
    rounded = {
        loop: {what: round(value, 2) for what, value in ratios.items()}
        for loop, ratios in found.items()
    }
    kept[VERSION] = {**kept.get(VERSION, {}), **rounded}
    text = json.dumps(kept, indent=2, sort_keys=True)
    try:
        path.write_text(text + "\n", "utf-8")
    except OSError as error:
        raise BenchError(
            f"the gate's file {path}", f"cannot be used: {error}"
        ) from None


def verdicts(found: Figures, kept: Figures) -> Iterator[Verdict]:
    """Compare figures with those that are kept."""
    for loop, ratios in found.items():
        for what, now in ratios.items():
            before = kept.get(loop, {}).get(what)
            yield Verdict(loop=loop, what=what, now=now, kept=before)


def judge(path: Path, loops: Sequence[str], progress: Progress) -> list[Verdict]:
    """Measure, and compare with what *path* keeps.

    What seems too dear is measured once more: a burst of other work on the machine does
    not come twice, what the code costs does.
    """
    kept = read(path).get(VERSION, {})
    first = list(verdicts(figures(loops, progress), kept))
    if all(one.is_let_through for one in first):
        return first
    again = list(verdicts(figures(loops, progress), kept))
    return [min(pair, key=lambda v: v.now) for pair in zip(first, again, strict=True)]


def gate_table(judged: Sequence[Verdict]) -> str:
    """Lay the verdicts out in columns."""
    rows = [
        [
            one.loop,
            MEANINGS.get(one.what, one.what),
            f"{one.now:.2f}",
            "-" if one.kept is None else f"{one.kept:.2f}",
            "-" if not one.kept else f"{one.now / one.kept - 1:+.0%}",
            "" if one.is_let_through else "TOO DEAR",
        ]
        for one in judged
    ]
    columns = ("loop", "a run in bare tasks", "now", "kept", "grown", "")
    return aligned(columns, rows, {"loop", "a run in bare tasks", ""})


def sentence(path: Path, judged: Sequence[Verdict]) -> str:
    """Say what the judgement means, and what to do."""
    renew = f"python -m engine bench --gate {path} --write"
    if not all(one.is_let_through for one in judged):
        return (
            f"A run has become dearer by more than {MARGIN - 1:.0%}. If that is worth"
            f" it, say so in the commit and renew the figures: {renew}"
        )
    if any(one.kept is None for one in judged):
        return f"{path} keeps no figures of Python {VERSION}: {renew}"
    if any(one.now * MARGIN < one.kept for one in judged if one.kept):
        return f"A run has become cheaper; hold it there: {renew}"
    return "No dearer than it may be."


def as_json(judged: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Return the verdicts for programs."""
    return [
        {**attrs.asdict(one), "is_let_through": one.is_let_through} for one in judged
    ]
