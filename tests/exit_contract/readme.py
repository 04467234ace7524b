"""The README's copy of the table, in the words of what was observed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .cases import cases
from .observation import Observation
from .performance import observe
from .table import TABLE, ExitPath

README: Final = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- exit-paths:begin -->", "<!-- exit-paths:end -->"
HEAD: Final = ("how it ends", "states after Running", "hooks", "the caller sees")


class MarkersMissing(Exception):
    """The README has no place for the table."""


def markdown() -> str:
    """Run every listed row and render what was seen."""
    lines = [row_of(HEAD), row_of("---" for _ in HEAD)]
    listed = [path for path in TABLE if path.listed]
    lines += [row_of((path.how, *cells(path))) for path in listed]
    shown, others = len(cases(listed)), len(cases(TABLE)) - len(cases(listed))
    lines += ["", f"Shown by {shown:,} runs, and special cases by {others:,} more."]
    return "\n".join(lines)


def cells(path: ExitPath) -> tuple[str, str, str]:
    """Return what all cases of a row have shown.

    Raises:
        ValueError: They do not agree.
    """
    shown = {words(observe(case)) for case in cases([path])}
    if len(shown) != 1:
        raise ValueError(f"the cases of {path.key!r} do not agree: {shown}")
    return shown.pop()


def words(observation: Observation) -> tuple[str, str, str]:
    """Return an observation's cells, less the beginning that all runs have."""
    states, hooks = list(observation.states), list(observation.hooks)
    if states[0] == "Running":
        del states[0], hooks[0]
        steps = arrows(states)
    else:
        steps = f"{arrows(states)}, straight from Pending"
    return steps, ", ".join(f"`{hook}`" for hook in hooks), observation.sees


def arrows(states: Iterable[str]) -> str:
    """Join states, with the cause after the last one."""
    parts = [state.partition(", cause ") for state in states]
    cause = parts[-1][2]
    chain = " → ".join(name.replace("(type ", "(") for name, _, _ in parts)
    return f"{chain}, cause `{cause}`" if cause else chain


def row_of(cells: Iterable[str]) -> str:
    """Return one line of a table."""
    return f"| {' | '.join(cells)} |"


def split(text: str) -> tuple[str, str, str]:
    """Split the README into what is before, between and after the markers.

    Raises:
        MarkersMissing: They are not there, or not in order.
    """
    before, begin, rest = text.partition(BEGIN)
    between, end, after = rest.partition(END)
    if not (begin and end):
        raise MarkersMissing(f"{README} needs the lines {BEGIN} and {END}")
    return before + begin, between, end + after


def is_current() -> bool:
    """Whether the README shows what was observed."""
    return split(README.read_text("utf-8"))[1].strip() == markdown()


def write() -> None:
    """Put the table into the README."""
    before, _, after = split(README.read_text("utf-8"))
    README.write_text(f"{before}\n\n{markdown()}\n\n{after}", "utf-8")
