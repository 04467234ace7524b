"""The store of blocks in a SQLite file, shared by any number of processes.

Each operation opens the file, does one transaction and closes it: there is nothing to
share between threads, to inherit by a fork, or to close at the end. It costs about half
a millisecond, and blocks are read and written seldom.

The journal is SQLite's default rollback journal. Write-ahead logs would be faster, but
versions before 3.51.3 can corrupt one that two connections reset at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from engine.blocks.exceptions import BlockDataError, BlockStoreError
from engine.blocks.names import Reference
from engine.blocks.store import StoredBlock
from engine.files import create_empty

Execute = Callable[..., list[Any]]

FILE: Final = "blocks.sqlite3"
APPLICATION_ID: Final = 0x456E6742
"""Marks the file as a store of blocks: "EngB"."""
SCHEMA_VERSION: Final = 1
SCHEMA: Final = """
CREATE TABLE blocks (
    id TEXT NOT NULL PRIMARY KEY,
    type_slug TEXT NOT NULL,
    name TEXT NOT NULL,
    data TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    UNIQUE (type_slug, name)
)
"""
LOCK_TIMEOUT: Final = 10.0
"""Seconds to wait for another process that is writing."""


class SqliteStore:
    """Blocks in a file that is created when the first one is saved.

    Args:
        path: The file. Its folder is made with it; both are for their owner only.

    Raises:
        BlockStoreError: By every method: the file cannot be used, is not a store of
            blocks, was written by a newer version, or is locked for too long.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def put(self, reference: Reference, data: str, *, overwrite: bool) -> UUID | None:
        """Keep a block; see `BlockStore.put`."""
        now = datetime.now(UTC).isoformat()
        with self._writing(f"saving block {reference}") as execute:
            old = execute(
                "SELECT id FROM blocks WHERE type_slug = ? AND name = ?", *reference
            )
            if not old:
                new = uuid4()
                execute(
                    "INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?)",
                    str(new), *reference, data, now, now,
                )  # fmt: skip
                return new
            if not overwrite:
                return None
            execute(
                "UPDATE blocks SET data = ?, updated_at = ? WHERE id = ?",
                data, now, old[0][0],
            )  # fmt: skip
            return _block_id(reference, old[0][0])

    def get(self, reference: Reference) -> StoredBlock | None:
        """Return a block; see `BlockStore.get`."""
        rows = self._read(
            f"loading block {reference}",
            "SELECT id, data, created_at, updated_at FROM blocks"
            " WHERE type_slug = ? AND name = ?",
            *reference,
        )
        return _stored(reference, rows[0]) if rows else None

    def delete(self, reference: Reference) -> bool:
        """Remove a block; see `BlockStore.delete`."""
        return self._delete(
            f"deleting block {reference}", "type_slug = ? AND name = ?", *reference
        )

    def delete_by_id(self, block_id: UUID) -> bool:
        """Remove a block; see `BlockStore.delete_by_id`."""
        return self._delete(f"deleting block {block_id}", "id = ?", str(block_id))

    def references(self, type_slug: str | None = None) -> list[Reference]:
        """Return full names; see `BlockStore.references`."""
        rows = self._read(
            "listing blocks",
            "SELECT type_slug, name FROM blocks"
            " WHERE type_slug = coalesce(?, type_slug) ORDER BY type_slug, name",
            type_slug,
        )
        return [Reference(*row) for row in rows]

    def change(self, stored: StoredBlock, data: str) -> bool:
        """Replace data; see `BlockStore.change`."""
        with self._writing(f"changing block {stored.reference}") as execute:
            execute(
                "UPDATE blocks SET data = ?, updated_at = ? WHERE id = ? AND data = ?",
                data, datetime.now(UTC).isoformat(), str(stored.id), stored.data,
            )  # fmt: skip
            return bool(execute("SELECT changes()")[0][0])

    def _delete(self, operation: str, condition: str, *values: str) -> bool:
        if self._is_missing(operation):
            return False
        with self._writing(operation) as execute:
            execute(f"DELETE FROM blocks WHERE {condition}", *values)
            return bool(execute("SELECT changes()")[0][0])

    def _read(self, operation: str, query: str, *values: Any) -> list[Any]:
        if self._is_missing(operation):
            return []
        with self._connected(operation) as connection:
            if self._version(connection, operation) == 0:
                return []  # created by a process that has not written yet
            return connection.execute(query, values).fetchall()

    def _is_missing(self, operation: str) -> bool:
        try:
            self._path.stat()
        except FileNotFoundError:
            return True
        except OSError as error:
            raise BlockStoreError(self._path, operation, str(error)) from error
        return False

    @contextmanager
    def _writing(self, operation: str) -> Generator[Execute, None, None]:
        """Give what executes statements, in a transaction that ends with the block."""
        try:
            create_empty(self._path)
        except OSError as error:
            raise BlockStoreError(self._path, operation, str(error)) from error
        with self._connected(operation) as connection:
            # Takes the lock for writing at once: a transaction that begins by reading
            # fails without waiting if another one writes in between.
            connection.execute("BEGIN IMMEDIATE")
            if self._version(connection, operation) == 0:
                connection.execute(SCHEMA)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

            def execute(query: str, *values: Any) -> list[Any]:
                return connection.execute(query, values).fetchall()

            yield execute
            connection.execute("COMMIT")

    @contextmanager
    def _connected(self, operation: str) -> Generator[sqlite3.Connection, None, None]:
        uri = f"{uri_of(self._path.absolute())}?mode=rw"
        try:
            with closing(
                sqlite3.connect(
                    uri, uri=True, timeout=LOCK_TIMEOUT, isolation_level=None
                )
            ) as connection:
                yield connection
        except sqlite3.Error as error:
            raise BlockStoreError(self._path, operation, str(error)) from error

    def _version(self, connection: sqlite3.Connection, operation: str) -> int:
        """Return the version of the schema; 0 is that of an empty file."""
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION_ID and (application or version or tables):
            problem = "it is another program's database"
        elif version > SCHEMA_VERSION:
            problem = (
                f"it was written by a newer version of engine (schema {version},"
                f" this one knows {SCHEMA_VERSION}): upgrade"
            )
        else:
            return version
        raise BlockStoreError(self._path, operation, problem)


def uri_of(path: Path) -> str:
    """Return an absolute path in the form that SQLite takes.

    It refuses a host: a folder that Windows has from another machine is a path that
    begins with two more slashes.
    """
    uri = path.as_uri()
    return uri if uri.startswith("file:///") else uri.replace("//", "////", 1)


def _stored(reference: Reference, row: tuple[Any, ...]) -> StoredBlock:
    block_id, data, created_at, updated_at = row
    try:
        return StoredBlock(
            id=_block_id(reference, block_id),
            reference=reference,
            data=data,
            created_at=datetime.fromisoformat(created_at),
            updated_at=datetime.fromisoformat(updated_at),
        )
    except (ValueError, TypeError):
        problem = "a date in its row is damaged"
    raise BlockDataError(str(reference), problem)


def _block_id(reference: Reference, text: Any) -> UUID:
    try:
        return UUID(text)
    except (ValueError, TypeError, AttributeError):
        problem = "the id in its row is damaged"
    raise BlockDataError(str(reference), problem)
