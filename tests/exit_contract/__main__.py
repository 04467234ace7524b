"""Prints the table, writes it into the README, or says what is left out of it."""

from __future__ import annotations

import argparse
import itertools
import logging

import structlog

from .cases import combinations, omission
from .readme import README, markdown, write
from .table import NOT_REACHABLE, TABLE


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.exit_contract")
    parser.add_argument("--write", action="store_true", help=f"write it to {README}")
    parser.add_argument(
        "--omitted", action="store_true", help="list what is left out, and why"
    )
    options = parser.parse_args()
    # What is logged of all these failures would end up in the table.
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=quiet)
    if options.omitted:
        print_omitted()
    elif options.write:
        write()
    else:
        print(markdown())


def print_omitted() -> None:
    for case in itertools.chain.from_iterable(map(combinations, TABLE)):
        reason = omission(case)
        if reason is not None:
            print(f"{case}: {reason.reason}")
    for cause, reason in NOT_REACHABLE.items():
        print(f"{cause}: {reason}")


main()
