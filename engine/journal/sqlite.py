"""A journal in a file, by Python's own sqlite3."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs

from engine.files import create_empty
from engine.journal import schema
from engine.journal.adoption import adopt
from engine.journal.base import Journal, Opening, Owner
from engine.journal.database import SYNCHRONOUS, Database, Durability
from engine.journal.exceptions import (
    JournalBroken,
    JournalError,
    JournalFormatError,
    JournalLocked,
)
from engine.journal.lock import FileLock
from engine.journal.owner import boot_id, describe
from engine.journal.rows import (
    Batch,
    DefinitionRow,
    OwedHook,
    OwedRow,
    Rows,
    RunRow,
    TransitionRow,
)
from engine.journal.statements import (
    count_recoveries,
    insert,
    note_outcomes,
    pieces,
    set_column,
)
from engine.logging import log

LOCK_POLL_SECONDS: Final = 0.01
TIDY_ROWS: Final = 500
"""Runs that one step of compaction drops."""


class SQLiteJournal(Journal):
    """A journal in one SQLite file, written by one engine at a time.

    Any number of processes may read it meanwhile: ``python -m engine runs``, or any
    SQLite tool. Copy it together with its ``-wal`` file, or after it was closed.

    Args:
        path: The file; it is made if it does not exist, for its owner only.
        durability: What a committed row survives. ``"full"``: the loss of power, since
            each batch is synced to the disk. ``"normal"``: the death of the process;
            the loss of power may take the last batches. ``"off"``: the death of the
            process; the loss of power may leave a broken file.
        wait: Seconds to wait for another engine to let go of it; 0 fails at once.
        keep_runs: How many ended runs are kept, roughly; None keeps all.
        keep_seconds: How long ended runs are kept; None keeps them for ever.
        quarantine_after: How many recoveries may fail on one hook before it is left
            alone until somebody redelivers it.

    Runs that owe a hook are kept in any case.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "full",
        wait: float = 0.0,
        keep_runs: int | None = None,
        keep_seconds: float | None = None,
        quarantine_after: int = 5,
    ) -> None:
        self.path = os.fspath(path)
        if self.path in ("", ":memory:"):
            text = "path must be a file, because a journal outlives its process"
            raise ValueError(f"{text}, got {self.path!r}")
        if durability not in SYNCHRONOUS:
            choices = "'full', 'normal' or 'off'"
            raise ValueError(f"durability must be {choices}, got {durability!r}")
        for name, number in (("wait", wait), ("keep_seconds", keep_seconds)):
            if number is not None and not number >= 0:
                raise ValueError(f"{name} must be >= 0 seconds, got {number!r}")
        for name, count in (("keep_runs", keep_runs), ("quarantine", quarantine_after)):
            if count is not None and count < 0:
                raise ValueError(f"{name} must be >= 0, got {count!r}")
        self.durability: Durability = durability
        self.wait = wait
        self.keep_runs = keep_runs
        self.keep_seconds = keep_seconds
        self.quarantine_after = quarantine_after
        self._lock = FileLock(f"{self.path}.lock")
        self._file = Database(self.path, durability)
        self._owner = 0

    def __repr__(self) -> str:
        return f"SQLiteJournal({self.path!r}, durability={self.durability!r})"

    # What the writer's thread asks.

    def open(self, owner: Owner) -> Opening | None:
        """Become the only writer and recover what other owners left behind."""
        if not self._file.is_open:
            self._acquire()
            try:
                self._connect_and_check()
            except BaseException:
                self.close(clean=False)
                raise
        return self._enlist(owner)

    def write(self, batch: Batch) -> None:
        """Commit a batch. It may be given again after an error: nothing is doubled."""
        with self._file.transaction():
            self._insert("definitions", batch.definitions)
            self._insert("runs", batch.runs)
            self._insert("transitions", batch.transitions)
            self._insert("hooks", batch.owed)
            self._write(partial(set_column, "runs", "name"), 2, batch.names)
            self._write(partial(set_column, "runs", "ended_at"), 2, batch.ended)
            self._write(count_recoveries, 3, batch.begun)
            for (columns, _), fields in batch.outcomes.items():
                self._write(partial(note_outcomes, columns), len(columns), fields)

    def reopen(self) -> None:
        """Start afresh after an error, still as the owner."""
        self._file.open()

    def tidy(self) -> bool:
        """Drop some of what is no longer to be kept; whether there is more."""
        if self.keep_runs is None and self.keep_seconds is None:
            return False
        with self._file.transaction():
            numbers = [row[0] for row in self._file.execute(*self._outdated())]
            for table in ("hooks", "transitions", "runs"):
                delete = f"DELETE FROM {table} WHERE run IN ({marks(numbers)})"
                self._file.execute(delete, numbers)
            if numbers:
                self._file.execute(FORGET_OWNERS, (self._owner, numbers[-1]))
        return len(numbers) == TIDY_ROWS

    def close(self, *, clean: bool) -> None:
        """Let another engine have it."""
        try:
            if clean and self._file.is_open:
                closed = "UPDATE owners SET closed_at = ? WHERE owner = ?"
                self._file.execute(closed, (time.time(), self._owner))
        except JournalError as error:
            log.warning("journal_not_closed", path=self.path, error=error.problem)
        finally:
            self._file.close()
            self._lock.release()

    def was_forked(self) -> None:
        """Forget the journal without touching it: this process is a fork."""
        self._file.was_forked()

    def owe_again(self, fates: Sequence[str], run_ids: Sequence[str] = ()) -> int:
        """Owe hooks again that were given up; return how many.

        While no engine has the journal: the next one that enters delivers them.

        Args:
            fates: Which ones: those with one of these fates.
            run_ids: Only those of these runs; none is all.

        Raises:
            JournalLocked: An engine has it.
        """
        self._acquire()
        try:
            self._connect_and_check()
            statement = (
                "UPDATE hooks SET fate = 'owed', recoveries = 0"
                f" WHERE fate IN ({marks(fates)})"
            )
            if run_ids:
                ids = f"SELECT run FROM runs WHERE run_id IN ({marks(run_ids)})"
                statement += f" AND run IN ({ids})"
            with self._file.transaction():
                changed = self._file.execute(statement, (*fates, *run_ids))
                return int(changed.rowcount)
        finally:
            self.close(clean=False)

    # Opening.

    def _acquire(self) -> None:
        deadline = time.monotonic() + self.wait
        try:
            while not self._lock.try_acquire():
                if time.monotonic() >= deadline:
                    holder = self._lock.holder()
                    who = "another process" if holder is None else describe(holder)
                    raise JournalLocked(self.path, who)
                time.sleep(LOCK_POLL_SECONDS)
        except OSError as error:
            raise JournalError(self.path, str(error)) from error

    def _connect_and_check(self) -> None:
        try:
            # The arguments of runs are in it; SQLite would let everybody read them.
            create_empty(Path(self.path))
            self._file.open()
        except OSError as error:
            raise JournalError(self.path, str(error)) from error
        except JournalBroken as error:
            raise JournalFormatError(self.path, error.problem) from error
        version = self._file.value("PRAGMA user_version")
        if self._file.value("SELECT 1 FROM sqlite_schema") is None:
            self._migrate(schema.statements(schema.SCHEMA), schema.FORMAT)
            return
        if self._file.value("PRAGMA application_id") != schema.APPLICATION_ID:
            raise JournalFormatError(self.path, "it is a SQLite file of another kind")
        if version > schema.FORMAT:
            text = f"its format {version} is newer than {schema.FORMAT}"
            raise JournalFormatError(self.path, f"{text}: upgrade actor-engine")
        for older in range(version, schema.FORMAT):
            self._migrate(schema.statements(schema.MIGRATIONS[older]), older + 1)

    def _migrate(self, script: Iterable[str], to: int) -> None:
        with self._file.transaction():
            for statement in script:
                self._file.execute(statement)
            self._file.execute(f"PRAGMA user_version = {to}")
            self._file.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")

    def _enlist(self, owner: Owner) -> Opening | None:
        file = self._file
        with file.transaction():
            taken = "SELECT 1 FROM owners WHERE prefix = ?"
            if file.value(taken, (owner.prefix,)):
                return None
            now, clock = time.time(), time.monotonic()
            recovered = adopt(file, now, clock, boot_id(), self.quarantine_after)
            last = file.value("SELECT max(run) FROM runs") or 0
            # The runs of the last owner may all have been dropped since.
            base = max(last, file.value("SELECT max(base) FROM owners") or 0)
            self._owner = file.value(
                ENLIST, (owner.prefix, base, *attrs.astuple(owner)[1:], now)
            )
        definitions = file.execute("SELECT * FROM definitions").fetchall()
        return Opening(
            owner=self._owner,
            base=base,
            definitions=[DefinitionRow(*row) for row in definitions],
            recovered=recovered,
            owed=[owed_hook(row) for row in file.execute(OWED).fetchall()],
        )

    # Writing.

    def _insert(self, table: str, rows: Rows) -> None:
        for (columns, shared), fields in rows.items():
            names = tuple(name for name, _ in shared)
            values = [value for _, value in shared]
            statement = partial(insert, table, columns, names)
            self._write(statement, len(columns), fields, values)

    def _write(
        self,
        statement: Callable[[int], str],
        width: int,
        fields: list[Any],
        shared: Sequence[Any] = (),
    ) -> None:
        for rows, piece in pieces(fields, width):
            self._file.execute(statement(rows), [*shared, *piece])

    def _outdated(self) -> tuple[str, tuple[Any, ...]]:
        conditions, values = [], []
        if self.keep_seconds is not None:
            conditions.append("ended_at < ?")
            values.append(time.time() - self.keep_seconds)
        if self.keep_runs is not None:
            conditions.append("run <= (SELECT max(run) FROM runs) - ?")
            values.append(self.keep_runs)
        return OUTDATED.format(" OR ".join(conditions)), (*values, TIDY_ROWS)


def marks(values: Sequence[Any]) -> str:
    """Return a placeholder for each value."""
    return ",".join("?" * len(values))


def columns(table: str, kind: Any) -> str:
    """Return a select list for a row type."""
    return ", ".join(f"{table}.{name}" for name in kind._fields)


def owed_hook(row: Sequence[Any]) -> OwedHook:
    """Make an owed hook of a row of `OWED`."""
    fields = iter(row)

    def take(kind: Any) -> Any:
        return kind(*(next(fields) for _ in kind._fields))

    run, definition = take(RunRow), take(DefinitionRow)
    transition, hook = take(TransitionRow), take(OwedRow)
    return OwedHook(run, definition, transition, hook, next(fields))


ENLIST: Final = (
    "INSERT INTO owners (prefix, base, pid, started, boot, host, hooks, opened_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING owner"
)
OWED: Final = (
    f"SELECT {columns('runs', RunRow)}, {columns('definitions', DefinitionRow)},"
    f" {columns('transitions', TransitionRow)}, {columns('hooks', OwedRow)},"
    " hooks.recoveries FROM hooks JOIN transitions USING (run, sequence)"
    " JOIN runs USING (run) JOIN definitions USING (definition)"
    " WHERE hooks.fate = 'owed'"
    " ORDER BY hooks.run, hooks.sequence, hooks.position"
)
OUTDATED: Final = (
    "SELECT run FROM runs WHERE ended_at IS NOT NULL AND ({})"
    " AND NOT EXISTS (SELECT 1 FROM hooks WHERE hooks.run = runs.run"
    " AND hooks.fate IN ('owed', 'unresolvable', 'quarantined'))"
    " ORDER BY run LIMIT ?"
)
FORGET_OWNERS: Final = (
    "DELETE FROM owners WHERE owner < ? AND base < ?"
    " AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.owner = owners.owner)"
)
