"""Reading a journal, beside whoever writes it.

Opened read-only, so that looking at a journal can never hurt it. Answers are plain
dictionaries: they become tables or JSON.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from engine.journal import schema
from engine.journal.exceptions import JournalError, JournalFormatError

Row = dict[str, Any]

RUNS: Final = """
SELECT runs.run, runs.run_id AS id, definitions.kind, definitions.name AS definition,
       runs.name, last.name AS state, last.type AS state_type, last.message, last.cause,
       last.attempt, runs.parent_run_id AS parent, runs.parameters, runs.tags,
       runs.created_at AS created, runs.ended_at AS ended,
       last.clock - (SELECT min(clock) FROM transitions AS begun
                     WHERE begun.run = runs.run AND begun.type = 'RUNNING') AS seconds,
       (SELECT count(*) FROM hooks WHERE hooks.run = runs.run
        AND fate IN ('owed', 'unresolvable', 'quarantined')) AS owed
FROM runs
JOIN definitions USING (definition)
JOIN transitions AS last ON last.run = runs.run AND last.sequence =
    (SELECT max(sequence) FROM transitions WHERE transitions.run = runs.run)
"""
IDS: Final = """
SELECT run_id AS id FROM runs JOIN definitions USING (definition)
WHERE substr(run_id, 1, length(?)) = ? OR ? = coalesce(
    runs.name, definitions.name || substr(run_id, instr(run_id, '-')))
ORDER BY run DESC LIMIT ?
"""
STEPS: Final = """
SELECT sequence, name AS state, type AS state_type, message, cause, attempt,
       entered_at AS at, clock - min(clock) OVER () AS seconds
FROM transitions WHERE run = ? ORDER BY sequence
"""
HOOKS: Final = """
SELECT runs.run_id AS run, hooks.sequence, hooks.position, hooks.hook, hooks.target,
       hooks.fate, hooks.attempts, hooks.recoveries, hooks.seconds, hooks.error
FROM hooks JOIN runs USING (run)
"""
OWNERS: Final = """
SELECT owner, prefix, pid, started, boot, host, opened_at AS opened,
       closed_at AS closed FROM owners ORDER BY owner DESC LIMIT ?
"""


class Reader:
    """A journal's contents.

    Args:
        path: The journal's file.

    Raises:
        JournalFormatError: There is no such file, it is a folder, or no journal.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if not Path(path).is_file():
            is_folder = Path(path).is_dir()
            problem = "it is a folder" if is_folder else "there is no such file"
            raise JournalFormatError(path, problem)
        uri = Path(path).absolute().as_uri()
        try:
            self._db = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=5.0)
            kind = self._value("PRAGMA application_id")
            self.format = self._value("PRAGMA user_version")
        except sqlite3.Error as error:
            raise JournalError(path, str(error)) from error
        self._db.row_factory = as_dictionary
        if kind != schema.APPLICATION_ID:
            raise JournalFormatError(path, "it is no journal")
        if self.format != schema.FORMAT:
            text = f"it has format {self.format}, not {schema.FORMAT}"
            raise JournalFormatError(path, f"{text}: enter an engine to migrate it")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def runs(
        self,
        *,
        limit: int = 50,
        definition: str | None = None,
        state: str | None = None,
        live: bool = False,
    ) -> list[Row]:
        """Return runs, the latest first.

        Args:
            limit: How many at most.
            definition: Only those of the flow or task of this name.
            state: Only those in a state of this name or type.
            live: Only those without an end.
        """
        conditions, values = ["1"], []
        if definition is not None:
            conditions.append("definitions.name = ?")
            values.append(definition)
        if state is not None:
            conditions.append("(last.name = ? COLLATE NOCASE OR last.type = upper(?))")
            values += [state, state]
        if live:
            conditions.append("runs.ended_at IS NULL")
        where = " AND ".join(conditions)
        query = f"{RUNS} WHERE {where} ORDER BY runs.run DESC LIMIT ?"
        return [finished(row) for row in self._rows(query, (*values, limit))]

    def run(self, run_id: str) -> Row | None:
        """Return one run with its steps, hooks and children; None if there is none."""
        rows = self._rows(f"{RUNS} WHERE runs.run_id = ?", (run_id,))
        if not rows:
            return None
        run = rows[0]
        run["steps"] = self._rows(STEPS, (run["run"],))
        hooks = f"{HOOKS} WHERE runs.run_id = ? ORDER BY hooks.sequence, hooks.position"
        run["hooks"] = self._rows(hooks, (run_id,))
        children = f"{RUNS} WHERE runs.parent_run_id = ? ORDER BY runs.run"
        run["children"] = [finished(row) for row in self._rows(children, (run_id,))]
        return finished(run)

    def ids(self, called: str, limit: int) -> list[str]:
        """Return the ids of the runs that somebody may mean, the latest first.

        Args:
            called: A run's id, which means no other; else how it begins, or a name.
            limit: How many at most.
        """
        if self._rows("SELECT 1 FROM runs WHERE run_id = ?", (called,)):
            return [called]
        rows = self._rows(IDS, (called, called, called, limit))
        return [row["id"] for row in rows]

    def hooks(self, fates: Sequence[str], limit: int = 1000) -> list[Row]:
        """Return hooks with one of the given fates, in order."""
        marks = ", ".join("?" * len(fates))
        order = "ORDER BY hooks.run, hooks.sequence, hooks.position LIMIT ?"
        query = f"{HOOKS} WHERE hooks.fate IN ({marks}) {order}"
        return self._rows(query, (*fates, limit))

    def fates(self) -> dict[str, int]:
        """Return how many hooks have each fate."""
        rows = self._rows("SELECT fate, count(*) AS hooks FROM hooks GROUP BY fate")
        return {row["fate"]: row["hooks"] for row in rows}

    def owners(self, limit: int = 1) -> list[Row]:
        """Return the engines that wrote it, the latest first."""
        return self._rows(OWNERS, (limit,))

    def needs_recovery(self) -> bool:
        """Whether entering an engine would have something to do."""
        live = "SELECT 1 AS found FROM runs WHERE ended_at IS NULL LIMIT 1"
        owed = "SELECT 1 AS found FROM hooks WHERE fate = 'owed' LIMIT 1"
        return bool(self._rows(live) or self._rows(owed))

    def counts(self) -> Row:
        """Return how much there is of everything."""
        tables = ("runs", "transitions", "hooks", "owners", "definitions")
        counts = ", ".join(f"(SELECT count(*) FROM {t}) AS {t}" for t in tables)
        live = "(SELECT count(*) FROM runs WHERE ended_at IS NULL) AS live_runs"
        return self._rows(f"SELECT {counts}, {live}")[0]

    def integrity(self) -> list[str]:
        """Return what SQLite finds broken; nothing if all is well."""
        rows = self._rows("PRAGMA integrity_check")
        found = [row["integrity_check"] for row in rows]
        return [] if found == ["ok"] else found

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise JournalError(self.path, str(error)) from error

    def _value(self, query: str) -> Any:
        return self._db.execute(query).fetchone()[0]


@contextmanager
def reading(path: str) -> Generator[Reader]:
    """Read a journal for the length of a block."""
    reader = Reader(path)
    try:
        yield reader
    finally:
        reader.close()


def as_dictionary(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> Row:
    """Return a row as a dictionary."""
    names = (column[0] for column in cursor.description)
    return dict(zip(names, row, strict=True))


def finished(row: Row) -> Row:
    """Return a run's row as people want it."""
    number, run_id = row.pop("run"), row["id"]
    assert number is not None
    if row["name"] is None:
        row["name"] = f"{row['definition']}-{run_id.rpartition('-')[2]}"
    row["parameters"] = row["parameters"] and json.loads(row["parameters"])
    row["tags"] = json.loads(row["tags"]) if row["tags"] else []
    return row
