"""A drawing of what a run costs, by how many there are at once."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from engine.bench.exceptions import BenchError
from engine.bench.report import environment
from engine.bench.sizes import Point
from engine.exceptions import MissingExtraError

COLOURS: Final = {"asyncio": "tab:blue", "trio": "tab:orange"}


def check_can_plot(path: Path) -> None:
    """Refuse, before anything is measured, what could not be drawn.

    Raises:
        BenchError: The file is not an SVG's, or its folder does not exist.
        MissingExtraError: The extra ``bench`` is not installed.
    """
    if path.suffix != ".svg":
        raise BenchError(f"--plot {path}", "must end in .svg")
    if not path.parent.is_dir():
        raise BenchError(f"--plot {path}", "is in a folder that does not exist")
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise MissingExtraError("--plot", "bench") from error


def draw(points: Sequence[Point], path: Path) -> None:
    """Write the drawing as SVG.

    Raises:
        BenchError: The file cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(
        xscale="log",
        xlabel="runs at once",
        ylabel="microseconds a run",
        title="What a run costs, by how many are fanned out to",
    )
    for loop in sorted({point.loop for point in points}):
        here = [point for point in points if point.loop == loop]
        sizes = [point.size for point in here]
        colour = COLOURS[loop]
        axes.plot(
            sizes, [p.engine for p in here], "o-", color=colour, label=f"engine, {loop}"
        )
        axes.plot(
            sizes, [p.bare for p in here], "s--", color=colour, label=f"bare {loop}"
        )
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    facts = environment()
    figure.supxlabel(f"{facts['machine']}, {facts['python']}", fontsize="small")
    # Text stays text, and the same figures make the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "engine"}):
        try:
            figure.savefig(path, format="svg", metadata={"Date": None})
        except OSError as error:
            raise BenchError(f"--plot {path}", f"failed: {error.strerror}") from None
