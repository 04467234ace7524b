"""Tables for people and JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

WIDEST: Final = 60
"""Characters of one column; longer texts are cut in tables, never in JSON."""


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2, default=str))


def print_table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as a table with a head; columns without any value are left out."""
    columns = [c for c in columns if any(row.get(c) is not None for row in rows)]
    lines = [[c.upper() for c in columns]]
    lines += [[cell(column, row.get(column)) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    most = shutil.get_terminal_size((200, 24)).columns if sys.stdout.isatty() else None
    for line in lines:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip()[:most])


def cell(column: str, value: Any) -> str:
    """Return a value as it stands in a table: printable, on one line, not too long."""
    if value is None:
        return "-"
    if column in ("created", "ended", "at", "opened", "closed"):
        at = datetime.fromtimestamp(value, UTC)
        return at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
    if isinstance(value, float):
        return f"{value:.3f}"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"
