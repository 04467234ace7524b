"""``show``: one run, step by step."""

from __future__ import annotations

import argparse
from typing import Any, Final

from engine.cli.arguments import add_journal
from engine.cli.output import cell, print_json, print_table

HELP: Final = "Show one run: its steps, its hooks and its children."
FACTS: Final = (
    "id",
    "kind",
    "definition",
    "name",
    "state",
    "message",
    "cause",
    "parent",
    "parameters",
    "tags",
    "created",
    "ended",
    "seconds",
)
STEPS: Final = ("sequence", "state", "attempt", "at", "seconds", "cause", "message")
HOOKS: Final = (
    "sequence",
    "hook",
    "fate",
    "attempts",
    "recoveries",
    "seconds",
    "target",
    "error",
)
CHILDREN: Final = ("id", "name", "state", "cause", "seconds", "owed")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", metavar="RUN", help="its id, how that begins, or a name")
    add_journal(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the run."""
    from engine.cli.lookup import NoSuchRunError, run_id_of
    from engine.journal.reader import reading

    with reading(options.journal) as reader:
        run = reader.run(run_id_of(reader, options.run))
    if run is None:  # pragma: no cover - it was dropped at this very moment
        raise NoSuchRunError(options.journal, options.run, [])
    if options.json:
        print_json(run)
    else:
        print_run(run)
    return 0


def print_run(run: dict[str, Any]) -> None:
    """Print a run's facts and its three tables."""
    for fact in FACTS:
        if run[fact] not in (None, []):
            print(f"{fact:10}  {cell(fact, run[fact])}")
    for title, columns in (("steps", STEPS), ("hooks", HOOKS), ("children", CHILDREN)):
        if run[title]:
            print(f"\n{title}:")
            print_table(columns, run[title])
