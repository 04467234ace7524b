"""``runs``: what has been run, and how it went."""

from __future__ import annotations

import argparse
from typing import Final

from engine.cli.arguments import add_journal, positive
from engine.cli.output import print_json, print_table

HELP: Final = "List a journal's runs, the latest first."
COLUMNS: Final = (
    "id",
    "kind",
    "definition",
    "name",
    "state",
    "cause",
    "attempt",
    "parent",
    "created",
    "seconds",
    "owed",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_journal(parser)
    parser.add_argument(
        "--limit", type=positive, default=50, metavar="N", help="how many (default 50)"
    )
    parser.add_argument("--of", metavar="NAME", help="only of this flow or task")
    parser.add_argument(
        "--state", metavar="STATE", help="only in this state, such as Failed"
    )
    parser.add_argument("--live", action="store_true", help="only without an end")


def execute(options: argparse.Namespace) -> int:
    """Print the runs."""
    from engine.journal.reader import reading

    with reading(options.journal) as reader:
        rows = reader.runs(
            limit=options.limit,
            definition=options.of,
            state=options.state,
            live=options.live,
        )
    if options.json:
        print_json(rows)
    elif rows:
        print_table(COLUMNS, rows)
    else:
        print("no runs")
    return 0
