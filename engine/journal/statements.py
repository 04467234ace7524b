"""Statements that take many rows at once.

That matters more than it seems: sqlite3 lets go of the interpreter's lock for each
statement that it steps, and a busy event loop gives it back only after its switch
interval, five milliseconds later. A statement for each row would write two hundred rows
a second beside such a loop.

Parsing a statement takes longer than executing it, so there are few sizes of them, and
what is missing to a size is filled up with the last row, again and again: a row that is
given twice does nothing the second time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from engine.journal.rows import Columns

SIZES: Final = (1, 4, 16, 64, 256, 1024)
"""Rows of one statement. Larger ones take longer to parse than they save, smaller ones
wait more often for the interpreter's lock; measured."""

MOST_PARAMETERS: Final = 32_766
"""How many parameters SQLite lets one statement have, unless built to take more."""


def pieces(fields: list[Any], width: int) -> Iterator[tuple[int, list[Any]]]:
    """Split rows into pieces that fill a statement: how many rows, and their fields.

    Args:
        fields: The fields of all rows, one after another.
        width: How many fields a row has.
    """
    sizes = [size for size in SIZES if size * width <= MOST_PARAMETERS]
    start, end = 0, len(fields)
    while start < end:
        left = (end - start) // width
        size = next((size for size in sizes if left <= size <= left * 2), 0)
        size = size or max(size for size in sizes if size <= left)
        piece = fields[start : start + size * width]
        piece += piece[-width:] * (size - len(piece) // width)
        yield size, piece
        start += size * width


@functools.lru_cache(1024)
def marks(rows: int, width: int) -> str:
    """Return placeholders for rows of so many fields."""
    row = f"({','.join('?' * width)})"
    return ",".join([row] * rows)


@functools.lru_cache(1024)
def insert(table: str, columns: Columns, shared: Columns, rows: int) -> str:
    """Return a statement that inserts rows which may be there already.

    A batch that failed halfway into its commit is written again.

    Args:
        table: Where to.
        columns: Those in which the rows differ.
        shared: Those whose values all rows have; these are given first, and only once.
        rows: How many.
    """
    given = [f"column{i}" for i in range(1, len(columns) + 1)]
    fields = ", ".join([*"?" * len(shared), *given])
    return (
        f"INSERT INTO {table} ({', '.join(shared + columns)})"
        f" SELECT {fields} FROM (VALUES {marks(rows, len(columns))})"
        " WHERE true ON CONFLICT DO NOTHING"  # a SELECT needs a WHERE before an ON
    )


@functools.lru_cache(256)
def set_column(table: str, column: str, rows: int) -> str:
    """Return a statement that takes a table's keys, each with a value for a column."""
    return (
        f"UPDATE {table} SET {column} = given.column2"
        f" FROM (VALUES {marks(rows, 2)}) AS given WHERE {table}.run = given.column1"
    )


HOOK_KEY: Final = (
    "hooks.run = given.column1 AND hooks.sequence = given.column2"
    " AND hooks.position = given.column3"
)
"""What rows begin with that are about a hook."""


@functools.lru_cache(256)
def note_outcomes(columns: Columns, rows: int) -> str:
    """Return a statement that writes down what became of hooks."""
    given = {name: f"given.column{i}" for i, name in enumerate(columns, 1)}
    return (
        f"UPDATE hooks SET fate = {given['fate']}, seconds = {given['seconds']},"
        f" attempts = attempts + {given['attempts']},"
        f" error = {given.get('error', 'NULL')}, ended_at = {given['ended_at']}"
        f" FROM (VALUES {marks(rows, len(columns))}) AS given WHERE {HOOK_KEY}"
    )


@functools.lru_cache(256)
def count_recoveries(rows: int) -> str:
    """Return a statement that counts a recovery of each hook."""
    return (
        "UPDATE hooks SET recoveries = recoveries + 1"
        f" FROM (VALUES {marks(rows, 3)}) AS given WHERE {HOOK_KEY}"
    )
