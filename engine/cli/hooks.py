"""``hooks``: what is owed, and what became of it."""

from __future__ import annotations

import argparse
from typing import Final, get_args

from engine.cli.arguments import add_journal, positive
from engine.cli.output import print_json, print_table
from engine.journal.rows import HookFate

HELP: Final = "List the hooks that were not delivered; --all lists all."
FATES: Final = get_args(HookFate)
COLUMNS: Final = (
    "run",
    "sequence",
    "hook",
    "fate",
    "attempts",
    "recoveries",
    "seconds",
    "target",
    "error",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_journal(parser)
    parser.add_argument("--all", action="store_true", help="delivered ones as well")
    parser.add_argument("--fate", choices=FATES, help="only those with this fate")
    parser.add_argument(
        "--limit",
        type=positive,
        default=1000,
        metavar="N",
        help="how many (default 1000)",
    )


def execute(options: argparse.Namespace) -> int:
    """Print the hooks."""
    from engine.journal.reader import reading

    fates = [fate for fate in FATES if options.all or fate != "delivered"]
    if options.fate:
        fates = [options.fate]
    with reading(options.journal) as reader:
        rows = reader.hooks(fates, options.limit)
    if options.json:
        print_json(rows)
    elif rows:
        print_table(COLUMNS, rows)
    else:
        print("no such hooks")
    return 0
