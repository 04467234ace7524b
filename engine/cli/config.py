"""``config``: every setting, its value and where it came from."""

from __future__ import annotations

import argparse
from typing import Any, Final

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

    rows: list[dict[str, Any]] = [
        {"setting": row.name, "value": row.value, "source": row.source}
        for row in describe_settings()
    ]
    if options.json:
        print_json([{**row, "value": plain(row)} for row in rows])
    else:
        print_table(COLUMNS, rows)
    return 0


def plain(row: dict[str, Any]) -> str | bool | None:
    """Return a setting's value as JSON has it; text where it has no such type."""
    from engine.settings import Setting
    from engine.settings.model import PREFIX, SPECS

    name = row["setting"].removeprefix(PREFIX).lower()
    value: object = Setting(SPECS[name]).value()
    return value if value is None or isinstance(value, bool) else row["value"]
