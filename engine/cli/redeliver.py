"""``redeliver``: another try for hooks that were given up."""

from __future__ import annotations

import argparse
from typing import Final

from engine.cli.arguments import add_journal, add_loop, add_wait
from engine.cli.output import print_json

HELP: Final = "Deliver what is owed, and try again what was parked or has failed."
AGAIN: Final = ("unresolvable", "quarantined", "failed", "timed_out")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="only this one, by its id, how that begins, or a name (default: all)",
    )
    add_journal(parser)
    parser.add_argument(
        "--fate",
        action="append",
        choices=AGAIN,
        help="which to try again (default: unresolvable and quarantined)",
    )
    add_loop(parser)
    add_wait(parser)


def execute(options: argparse.Namespace) -> int:
    """Owe the hooks again and deliver them."""
    from engine.cli.lookup import run_id_of
    from engine.cli.recover import recover_now
    from engine.journal.reader import reading
    from engine.journal.sqlite import SQLiteJournal

    # Read first: a mistyped name must not make a new journal.
    with reading(options.journal) as reader:
        run_ids = [run_id_of(reader, called) for called in options.runs]
    journal = SQLiteJournal(options.journal, wait=options.wait)
    again = journal.owe_again(options.fate or AGAIN[:2], run_ids)
    hooks = recover_now(journal, options.loop).hooks
    with reading(options.journal) as reader:
        fates = reader.fates()
    left = {fate: fates[fate] for fate in ("owed", *AGAIN[:2]) if fate in fates}
    report = {"again": again, "delivered": hooks.delivered, "left": left}
    if options.json:
        print_json(report)
    else:
        rest = ", ".join(f"{count} {fate}" for fate, count in left.items()) or "nothing"
        print(f"{again} hooks owed again, {hooks.delivered} delivered; left: {rest}")
    return 1 if left else 0
