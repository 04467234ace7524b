"""The SQLite file under a journal: one connection to it, and what its errors mean."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

from engine.journal.exceptions import (
    JournalBroken,
    JournalError,
    JournalFormatError,
    JournalFull,
)
from engine.logging import log

Durability = Literal["full", "normal", "off"]

SYNCHRONOUS: Final[dict[Durability, str]] = {
    "full": "FULL",
    "normal": "NORMAL",
    "off": "OFF",
}
BUSY_MILLISECONDS: Final = 40
"""How long a statement waits for another process; new runs wait as long to be told."""

LARGEST_LOG: Final = 4 << 20
"""Bytes that the write-ahead log is cut back to after a reader has kept it growing."""

FINAL_ERRORS: Final = frozenset(
    (
        "SQLITE_IOERR_FSYNC",
        "SQLITE_IOERR_DIR_FSYNC",
        "SQLITE_CORRUPT",
        "SQLITE_NOTADB",
    )
)
FULL_ERRORS: Final = frozenset(("SQLITE_FULL",))

UNSTORABLE: Final = (
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    UnicodeEncodeError,
    OverflowError,
)
"""What a value is met with that SQLite cannot store."""

_inherited: list[Any] = []
"""Connections of a parent process, kept for ever: closing one here would have SQLite
clean up after a process that is still writing."""


class Database:
    """A connection that can be made anew after an error.

    Args:
        path: The file.
        durability: See `SQLiteJournal`.
    """

    def __init__(self, path: str, durability: Durability) -> None:
        self._path = path
        self._durability: Durability = durability
        self._connection: Any = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    def open(self) -> None:
        """Connect, in the place of an earlier connection if there is one.

        Raises:
            JournalError: That cannot be done, or not now.
        """
        self.close()
        with self.errors_named():
            connection = self._connect()
            try:
                self._configure(connection)
            except BaseException:
                connection.close()
                raise
        self._connection = connection

    def close(self) -> None:
        """Disconnect; what goes wrong with that is only logged."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as error:
                log.warning("journal_not_closed", path=self._path, error=str(error))

    def was_forked(self) -> None:
        """Leave the connection to the process that made it: this one is a fork."""
        if self._connection is not None:
            _inherited.append(self._connection)
            self._connection = None

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Execute a statement; return its cursor.

        Raises:
            JournalError: It failed, or there is no connection.
        """
        if self._connection is None:
            raise JournalError(self._path, "it is not open")
        with self.errors_named():
            try:
                return self._connection.execute(statement, values)
            except UNSTORABLE:
                given = [storable(value) for value in values]
                return self._connection.execute(statement, given)

    def value(self, query: str, values: Sequence[Any] = ()) -> Any:
        """Return the only field of a query's first row; None without rows."""
        row = self.execute(query, values).fetchone()
        return None if row is None else row[0]

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Commit what a block executes, or nothing of it."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            # SQLite may have rolled back by itself, and then says so with an error.
            try:
                self.execute("ROLLBACK")
            except JournalError as error:
                log.debug("journal_rolled_back_before", error=error.problem)
            raise

    @contextmanager
    def errors_named(self) -> Generator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise named(self._path, error) from error

    def _connect(self) -> Any:
        return sqlite3.connect(
            self._path,
            timeout=BUSY_MILLISECONDS / 1000,
            isolation_level=None,
            check_same_thread=False,  # a restarted writer closes its predecessor's
        )

    def _configure(self, connection: Any) -> None:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            text = f"SQLite cannot use a write-ahead log there (mode {mode!r})"
            raise JournalFormatError(self._path, text)
        connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[self._durability]}")
        connection.execute(f"PRAGMA journal_size_limit = {LARGEST_LOG}")


def named(path: str, error: sqlite3.Error) -> JournalError:
    """Return what one of SQLite's errors means for a journal."""
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    text = f"{error} ({name})"
    if name in FULL_ERRORS:
        return JournalFull(path, text)
    if name in FINAL_ERRORS or name.startswith("SQLITE_CORRUPT"):
        return JournalBroken(path, text)
    return JournalError(path, text)


def storable(value: Any) -> Any:
    """Return something that SQLite takes in the place of what it does not.

    Users may give a state any name and message, half a surrogate pair or no text at
    all, and one such value must not hold up all others.
    """
    if value is None or isinstance(value, int | float):
        return value if abs(value or 0) < 1 << 63 else str(value)
    try:
        text = str(value)
    except BaseException:
        return f"<{type(value).__name__}: its __str__ failed>"
    return text.encode("utf-8", "replace").decode("utf-8")
