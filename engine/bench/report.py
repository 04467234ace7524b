"""What was measured, as a table for people and as JSON for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from engine.bench.measure import Setting
from engine.bench.results import Limit, Result, Unit

UNITS: Final[dict[Unit, str]] = {
    "x": "x",
    "us": " µs",
    "MB": " MB",
    "wake-ups": " wake-ups/s",
}
COLUMNS: Final = (
    "case",
    "loop",
    "runs",
    "µs/run",
    "bare µs",
    "x bare",
    "transitions/s",
    "bytes/live run",
    "limit",
    "is",
    "met",
)
LEFT: Final = {"case", "loop", "limit", "met"}


def environment() -> dict[str, Any]:
    """Return what the figures depend on: the machine and the versions."""
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {
            name: version_of(name)
            for name in ("actor-engine", "anyio", "attrs", "structlog", "trio")
        },
    }


def version_of(name: str) -> str | None:
    """Return the version of what is installed; None for a bare checkout."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def heading(setting: Setting) -> str:
    """Say in a line what the table is of."""
    facts = environment()
    return (
        f"{facts['machine']}, {facts['python']}; {setting.runs:,} runs,"
        f" medians of {setting.rounds} rounds in turn, {setting.clock} time"
    )


def table(results: Sequence[Result]) -> str:
    """Lay the results out in columns."""
    return aligned(COLUMNS, [cells(result) for result in results], LEFT)


def cells(result: Result) -> list[str]:
    """Return one line of the table."""
    met = {True: "yes", False: "NO", None: "-"}[result.is_met]
    limit = result.limit
    return [
        result.title,
        result.loop or "-",
        number(result.runs, 0),
        number(result.us_a_run, 2),
        number(result.loop_us, 2),
        number(result.ratio, 2),
        number(result.transitions_a_second, 0),
        number(result.bytes_a_live_run, 0),
        limit_text(limit) if limit else "-",
        figure_text(result),
        met,
    ]


def limit_text(limit: Limit) -> str:
    """Say what is allowed."""
    return f"≤ {limit.most:g}{UNITS[limit.unit]} {limit.of}".rstrip()


def figure_text(result: Result) -> str:
    """Say what is held against the limit, or compared with where there is none."""
    if result.limit is not None:
        return f"{result.figure:.2f}{UNITS[result.limit.unit]}"
    return f"{result.figure:.2f}x {result.base}"


def number(value: float | None, digits: int) -> str:
    """Write a number, or what stands for none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def aligned(
    columns: Sequence[str], rows: Sequence[Sequence[str]], left: set[str]
) -> str:
    """Align texts under their heads: those of *left* at the left."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if name in left else text.rjust(width)
            for name, text, width in zip(columns, row, widths, strict=True)
        ).rstrip()
        for row in (columns, *rows)
    )
