"""Journals that fail when a test says so."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from engine.journal import SQLiteJournal
from engine.journal.database import named
from engine.journal.rows import Batch


class FaultyJournal(SQLiteJournal):
    """A real journal whose writes can be held up, or fail with any error.

    Attributes:
        error: What the next writes raise instead of writing; None writes.
        writing: Set when a write begins.
        may_write: Writes wait until it is set.
        batches: What was committed.
    """

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path, **options)
        self.error: BaseException | None = None
        self.writing = threading.Event()
        self.may_write = threading.Event()
        self.may_write.set()
        self.batches: list[Batch] = []
        self.attempts = 0

    def write(self, batch: Batch) -> None:
        self.attempts += 1
        self.writing.set()
        assert self.may_write.wait(10)
        if self.error is not None:
            if isinstance(self.error, sqlite3.Error):
                raise named(self.path, self.error) from self.error
            raise self.error
        super().write(batch)
        self.batches.append(batch)


async def until(condition: Callable[[], Any]) -> None:
    """Wait until another thread has made something true."""
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await anyio.sleep(0.002)


def sqlite_error(name: str, text: str = "injected") -> sqlite3.OperationalError:
    """Return an error as sqlite3 raises it."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorname = name
    return error


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """Return what a journal's file holds, by a connection of its own."""
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()
