"""``config``: every setting, its value and where it came from."""

from __future__ import annotations

import argparse
from typing import Final

from engine.cli.output import print_json, print_table

HELP: Final = "Print every setting and where it came from, secrets masked."
COLUMNS: Final = ("setting", "value", "source")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of a table"
    )


def execute(options: argparse.Namespace) -> int:
    """Print the settings."""
    from engine.settings import describe_settings

    rows: list[dict[str, str]] = [
        {"setting": row.name, "value": row.value, "source": row.source}
        for row in describe_settings()
    ]
    if options.json:
        print_json(rows)
    else:
        print_table(COLUMNS, rows)
    return 0
