"""A journal in a file, by Python's own sqlite3.

Rows are inserted many at a time by one statement. That matters more than it seems:
sqlite3 lets go of the interpreter's lock for each statement it steps, and a busy event
loop gives it back only after its switch interval, five milliseconds later. A statement
for each row would write two hundred rows a second beside such a loop.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import attrs

from engine.journal import schema
from engine.journal.adoption import adopt
from engine.journal.base import (
    Batch,
    DefinitionRow,
    Journal,
    Opening,
    OwedHook,
    OwedRow,
    Owner,
    RunRow,
    TransitionRow,
)
from engine.journal.exceptions import (
    JournalBroken,
    JournalError,
    JournalFormatError,
    JournalFull,
    JournalLocked,
)
from engine.journal.lock import FileLock
from engine.journal.owner import boot_id, describe
from engine.logging import log

Durability = Literal["full", "normal", "off"]

SYNCHRONOUS: Final[dict[Durability, str]] = {
    "full": "FULL",
    "normal": "NORMAL",
    "off": "OFF",
}
MOST_PARAMETERS: Final = 32_766
"""How many parameters SQLite lets one statement have."""

BUSY_MILLISECONDS: Final = 40
"""How long a statement waits for another process; new runs wait as long to be told."""

LOCK_POLL_SECONDS: Final = 0.01
TIDY_ROWS: Final = 500
"""Runs that one step of compaction drops."""

FINAL_ERRORS: Final = frozenset(
    (
        "SQLITE_IOERR_FSYNC",
        "SQLITE_IOERR_DIR_FSYNC",
        "SQLITE_CORRUPT",
        "SQLITE_NOTADB",
    )
)
FULL_ERRORS: Final = frozenset(("SQLITE_FULL",))

_inherited: list[Any] = []
"""Connections of a parent process, kept for ever: closing one here would have SQLite
clean up after a process that is still writing."""


class SQLiteJournal(Journal):
    """A journal in one SQLite file, written by one engine at a time.

    Any number of processes may read it meanwhile: ``python -m engine runs``, or any
    SQLite tool. Copy it together with its ``-wal`` file, or after it was closed.

    Args:
        path: The file; it is made if it does not exist.
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
        self._db: Any = None
        self._owner = 0

    def __repr__(self) -> str:
        return f"SQLiteJournal({self.path!r}, durability={self.durability!r})"

    # What the writer's thread asks.

    def open(self, owner: Owner) -> Opening | None:
        """Become the only writer and recover what other owners left behind."""
        if self._db is None:
            self._acquire()
            try:
                self._connect_and_check()
            except BaseException:
                self.close(clean=False)
                raise
        with self._errors_named():
            return self._enlist(owner)

    def write(self, batch: Batch) -> None:
        """Commit a batch. It may be given again after an error: nothing is doubled."""
        with self._errors_named(), self._transaction():
            self._insert("definitions", 6, batch.definitions)
            self._insert("runs", 12, batch.runs)
            self._insert("transitions", 9, batch.transitions)
            self._insert(HOOK_COLUMNS, 8, batch.owed)
            self._update(NAMES, 2, batch.names)
            self._update(ENDED, 2, batch.ended)
            self._update(BEGUN, 3, batch.begun)
            self._update(OUTCOMES, 8, batch.outcomes)

    def reopen(self) -> None:
        """Start afresh after an error, still as the owner."""
        self._disconnect()
        with self._errors_named():
            self._db = self._connect()

    def tidy(self) -> bool:
        """Drop some of what is no longer to be kept; whether there is more."""
        if self.keep_runs is None and self.keep_seconds is None:
            return False
        with self._errors_named(), self._transaction():
            numbers = [row[0] for row in self._db.execute(*self._outdated())]
            for table in ("hooks", "transitions", "runs"):
                delete = f"DELETE FROM {table} WHERE run IN ({marks(numbers)})"
                self._db.execute(delete, numbers)
            if numbers:
                self._db.execute(FORGET_OWNERS, (self._owner, numbers[-1]))
        return len(numbers) == TIDY_ROWS

    def close(self, *, clean: bool) -> None:
        """Let another engine have it."""
        try:
            if clean and self._db is not None:
                self._db.execute(
                    "UPDATE owners SET closed_at = ? WHERE owner = ?",
                    (time.time(), self._owner),
                )
        except sqlite3.Error as error:
            log.warning("journal_not_closed", path=self.path, error=str(error))
        finally:
            self._disconnect()
            self._lock.release()

    def was_forked(self) -> None:
        """Forget the journal without touching it: this process is a fork."""
        if self._db is not None:
            _inherited.append(self._db)
            self._db = None

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
            with self._errors_named(), self._transaction():
                changed = self._db.execute(statement, (*fates, *run_ids))
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
            self._db = self._connect()
        except JournalBroken as error:
            raise JournalFormatError(self.path, error.problem) from error
        with self._errors_named():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            kind = self._db.execute("PRAGMA application_id").fetchone()[0]
            is_new = not self._db.execute("SELECT 1 FROM sqlite_schema").fetchone()
        if is_new:
            self._migrate(schema.statements(schema.SCHEMA))
        elif kind != schema.APPLICATION_ID:
            raise JournalFormatError(self.path, "it is a SQLite file of another kind")
        elif version > schema.FORMAT:
            text = f"its format {version} is newer than {schema.FORMAT}"
            raise JournalFormatError(self.path, f"{text}: upgrade actor-engine")
        for older in range(version if not is_new else schema.FORMAT, schema.FORMAT):
            self._migrate(schema.statements(schema.MIGRATIONS[older]), older + 1)

    def _migrate(self, script: Iterable[str], to: int = schema.FORMAT) -> None:
        with self._errors_named(), self._transaction():
            for statement in script:
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {to}")
            self._db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")

    def _connect(self) -> Any:
        try:
            db = sqlite3.connect(
                self.path,
                timeout=BUSY_MILLISECONDS / 1000,
                isolation_level=None,
                check_same_thread=False,  # a restarted writer closes its predecessor's
            )
        except sqlite3.Error as error:
            raise self._named(error) from error
        self._configure(db)
        return db

    def _configure(self, db: Any) -> None:
        try:
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            db.execute(f"PRAGMA synchronous = {SYNCHRONOUS[self.durability]}")
            # The WAL is cut back to this after a reader has kept it from being reset.
            db.execute("PRAGMA journal_size_limit = 4194304")
        except sqlite3.Error as error:
            db.close()
            raise self._named(error) from error
        if mode != "wal":
            db.close()
            text = f"SQLite cannot use a write-ahead log there (mode {mode!r})"
            raise JournalFormatError(self.path, text)

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            try:
                db.close()
            except sqlite3.Error as error:
                log.warning("journal_not_closed", path=self.path, error=str(error))

    def _enlist(self, owner: Owner) -> Opening | None:
        with self._transaction():
            taken = "SELECT 1 FROM owners WHERE prefix = ?"
            if self._db.execute(taken, (owner.prefix,)).fetchone():
                return None
            now = time.time()
            recovered = adopt(
                self._db, now, time.monotonic(), boot_id(), self.quarantine_after
            )
            last = self._db.execute("SELECT max(run) FROM runs").fetchone()[0] or 0
            # The runs of the last owner may all have been dropped since.
            used = self._db.execute("SELECT max(base) FROM owners").fetchone()[0] or 0
            base = max(last, used)
            self._owner = self._db.execute(
                "INSERT INTO owners (prefix, base, pid, started, boot, host, hooks,"
                " opened_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING owner",
                (owner.prefix, base, *attrs.astuple(owner)[1:], now),
            ).fetchone()[0]
        definitions = self._db.execute("SELECT * FROM definitions").fetchall()
        return Opening(
            owner=self._owner,
            base=base,
            definitions=[DefinitionRow(*row) for row in definitions],
            recovered=recovered,
            owed=[owed_hook(row) for row in self._db.execute(OWED)],
        )

    # Writing.

    @contextmanager
    def _transaction(self) -> Generator[None]:
        if self._db is None:
            raise JournalError(self.path, "it is not open")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # SQLite may have rolled back by itself, and then says so with an error.
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error as error:
                log.debug("journal_rolled_back_before", error=str(error))
            raise

    def _insert(self, table: str, width: int, fields: list[Any]) -> None:
        # A batch that failed halfway into its commit is written again.
        statement = f"INSERT INTO {table} VALUES {{rows}} ON CONFLICT DO NOTHING"
        self._execute_for_rows(statement, width, fields)

    def _update(self, statement: str, width: int, fields: list[Any]) -> None:
        self._execute_for_rows(statement, width, fields)

    def _execute_for_rows(self, statement: str, width: int, fields: list[Any]) -> None:
        most = MOST_PARAMETERS // width
        for start in range(0, len(fields), most * width):
            piece = fields[start : start + most * width]
            rows = len(piece) // width
            # Of few sizes, so that statements are reused. A row that is given twice
            # does nothing the second time.
            size = min(most, 1 << (rows - 1).bit_length())
            piece += piece[-width:] * (size - rows)
            self._db.execute(with_rows(statement, size, width), piece)

    def _outdated(self) -> tuple[str, tuple[Any, ...]]:
        conditions, values = [], []
        if self.keep_seconds is not None:
            conditions.append("ended_at < ?")
            values.append(time.time() - self.keep_seconds)
        if self.keep_runs is not None:
            conditions.append("run <= (SELECT max(run) FROM runs) - ?")
            values.append(self.keep_runs)
        return OUTDATED.format(" OR ".join(conditions)), (*values, TIDY_ROWS)

    # Errors.

    @contextmanager
    def _errors_named(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._named(error) from error

    def _named(self, error: sqlite3.Error) -> JournalError:
        name = getattr(error, "sqlite_errorname", None) or type(error).__name__
        text = f"{error} ({name})"
        if name in FULL_ERRORS:
            return JournalFull(self.path, text)
        if name in FINAL_ERRORS or name.startswith("SQLITE_CORRUPT"):
            return JournalBroken(self.path, text)
        return JournalError(self.path, text)


def marks(values: Sequence[Any]) -> str:
    """Return a placeholder for each value."""
    return ",".join("?" * len(values))


@functools.cache
def with_rows(statement: str, rows: int, width: int) -> str:
    """Return a statement that takes so many rows of so many fields."""
    row = f"({','.join('?' * width)})"
    return statement.format(rows=",".join([row] * rows))


def owed_hook(row: Sequence[Any]) -> OwedHook:
    """Make an owed hook of a row of `OWED`."""
    fields = iter(row)

    def take(kind: Any) -> Any:
        return kind(*(next(fields) for _ in kind._fields))

    run, definition = take(RunRow), take(DefinitionRow)
    transition, hook = take(TransitionRow), take(OwedRow)
    return OwedHook(run, definition, transition, hook, next(fields))


def columns(table: str, kind: Any) -> str:
    """Return a select list for a row type, whose first field is the table's key."""
    key = {"runs": "run", "definitions": "definition"}.get(table)
    first = () if key is None else (key,)
    fields = kind._fields[len(first) :]
    return ", ".join(f"{table}.{name}" for name in (*first, *fields))


HOOK_COLUMNS: Final = f"hooks ({', '.join(OwedRow._fields)})"
NAMES: Final = (
    "UPDATE runs SET name = given.column1 FROM (VALUES {rows}) AS given"
    " WHERE runs.run = given.column2"
)
ENDED: Final = (
    "UPDATE runs SET ended_at = given.column1 FROM (VALUES {rows}) AS given"
    " WHERE runs.run = given.column2"
)
THIS_HOOK: Final = (
    "hooks.run = given.column1 AND hooks.sequence = given.column2"
    " AND hooks.position = given.column3"
)
BEGUN: Final = (
    "UPDATE hooks SET recoveries = recoveries + 1"
    f" FROM (VALUES {{rows}}) AS given WHERE {THIS_HOOK}"
)
OUTCOMES: Final = (
    "UPDATE hooks SET fate = given.column4, attempts = attempts + given.column5,"
    " seconds = given.column6, error = given.column7, ended_at = given.column8"
    f" FROM (VALUES {{rows}}) AS given WHERE {THIS_HOOK}"
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
