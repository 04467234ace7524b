"""The tables of a journal's file, and how older files become like newer ones.

A run's number grows with its age, and so do the sequence numbers within it, so that
every table grows at its end. ``WITHOUT ROWID`` keeps the steps of one run beside each
other and saves an index. The partial indexes hold only what a recovery looks for, so
that it takes as long as there is something to recover, however long the history.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FORMAT: Final = 1
"""The version of the tables; kept in the file as ``user_version``."""

APPLICATION_ID: Final = 0x456E676A
"""Tells a journal from other SQLite files: the letters ``Engj``."""

SCHEMA: Final = """
CREATE TABLE owners (
    owner INTEGER PRIMARY KEY,
    prefix TEXT NOT NULL UNIQUE,
    base INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    started TEXT,
    boot TEXT,
    host TEXT NOT NULL,
    hooks TEXT NOT NULL,
    opened_at REAL NOT NULL,
    closed_at REAL
);
CREATE TABLE definitions (
    definition INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT,
    target TEXT NOT NULL,
    crash_hooks TEXT NOT NULL
);
CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    owner INTEGER NOT NULL,
    definition INTEGER NOT NULL,
    name TEXT,
    parent_run_id TEXT,
    flow_run_id TEXT,
    root_run_id TEXT NOT NULL,
    parameters TEXT,
    tags TEXT,
    created_at REAL NOT NULL,
    ended_at REAL
);
CREATE INDEX live_runs ON runs (run) WHERE ended_at IS NULL;
CREATE TABLE transitions (
    run INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    message TEXT,
    cause TEXT,
    attempt INTEGER NOT NULL,
    entered_at REAL NOT NULL,
    clock REAL,
    PRIMARY KEY (run, sequence)
) WITHOUT ROWID;
CREATE TABLE hooks (
    run INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    position INTEGER NOT NULL,
    kind TEXT NOT NULL,
    hook TEXT NOT NULL,
    target TEXT NOT NULL,
    timeout REAL,
    retries INTEGER NOT NULL,
    fate TEXT NOT NULL DEFAULT 'owed',
    attempts INTEGER NOT NULL DEFAULT 0,
    recoveries INTEGER NOT NULL DEFAULT 0,
    seconds REAL,
    error TEXT,
    ended_at REAL,
    PRIMARY KEY (run, sequence, position)
) WITHOUT ROWID;
CREATE INDEX owed_hooks ON hooks (run, sequence, position) WHERE fate = 'owed';
"""

MIGRATIONS: Final[Mapping[int, str]] = {}
"""For each older format the statements that make it the next one."""


def statements(script: str) -> list[str]:
    """Split a script; it must hold no semicolon inside of a statement."""
    return [text.strip() for text in script.split(";") if text.strip()]
