"""A disk that loses power: what was not synced is dropped, or torn, at random.

SQLite runs on a VFS that writes down every write and sync. Cutting the power after the
n-th of them leaves what was synced before, and of everything else some sectors.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from engine.journal import SQLiteJournal
from engine.journal.base import Owner
from engine.journal.database import Database
from engine.journal.rows import (
    Batch,
    DefinitionRow,
    RunRow,
    TransitionRow,
    add_row,
)

SECTOR = 512
STEPS_OF_A_RUN = 3

Op = tuple[str, str, int, bytes]
"""What happened (``write``, ``truncate``, ``sync``, ``delete``, ``ack``), to which
file, where in it, and what was written."""


class RecordingVFS(apsw.VFS):
    """The default VFS, with a list of what changes the disk."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ops: list[Op] = []
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return RecordingFile(self.ops, name, flags)

    def xDelete(self, path: str, syncdir: bool) -> None:
        super().xDelete(path, syncdir)
        self.ops.append(("delete", Path(path).name, 0, b""))


class RecordingFile(apsw.VFSFile):
    """One file of it."""

    def __init__(self, ops: list[Op], name: Any, flags: list[int]) -> None:
        self._ops = ops
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._name = Path(path).name if path else ""
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self._ops.append(("write", self._name, offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        super().xTruncate(size)
        self._ops.append(("truncate", self._name, size, b""))

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._ops.append(("sync", self._name, 0, b""))


class RecordedDatabase(Database):
    """A file on such a disk, into which its log is moved all the time."""

    vfs: str

    def _connect(self) -> Any:
        connection = apsw.Connection(self._path, vfs=self.vfs)
        connection.execute("PRAGMA wal_autocheckpoint = 10")
        return connection


def record(folder: Path, durability: Any, batches: int, vfs: str) -> list[Op]:
    """Write a journal; return what happened to its disk."""
    recorder = RecordingVFS(vfs)
    journal = SQLiteJournal(folder / "journal.db", durability=durability)
    journal._file = file = RecordedDatabase(journal.path, durability)
    file.vfs = vfs
    owner = Owner(prefix="abc-", pid=1, started=None, boot=None, host="h", hooks="[]")
    assert journal.open(owner) is not None
    chance = random.Random(1)
    number = 0
    for _ in range(batches):
        batch = Batch()
        if not number:
            row: Any = DefinitionRow(1, "flow", "f", None, "m:f", "[]")
            add_row(batch.definitions, row._fields, row)
        for _ in range(chance.randint(1, 8)):
            number += 1
            run = f"abc-{number}"
            row = RunRow(
                number, run, 1, 1, None, None, None, run, "{}", None, 0.0, 1.0
            )  # fmt: skip
            add_row(batch.runs, row._fields, row)
            for step in range(STEPS_OF_A_RUN):
                row = TransitionRow(
                    number, number * 10 + step, "RUNNING", "Running", "x" * 50, None,
                    1, 0.0, 0.0,
                )  # fmt: skip
                add_row(batch.transitions, row._fields, row)
        journal.write(batch)
        recorder.ops.append(("ack", "", number, b""))
    ops = list(recorder.ops)
    journal.close(clean=True)
    recorder.unregister()
    return ops


class Disk:
    """What is on the disk for certain, and what may be."""

    def __init__(self) -> None:
        self.certain: dict[str, bytearray] = {}
        self.pending: dict[str, list[Op]] = {}
        self.acknowledged = 0

    def apply(self, op: Op) -> None:
        """Let one more thing happen."""
        kind, name, where, _ = op
        if kind == "ack":
            self.acknowledged = where
        elif kind == "delete":
            # Only while the file is set up; SQLite syncs the folder as well.
            self.certain.pop(name, None)
            self.pending.pop(name, None)
        elif kind == "sync":
            for waiting in self.pending.pop(name, []):
                change(self.certain.setdefault(name, bytearray()), waiting)
        else:
            self.pending.setdefault(name, []).append(op)

    def after_power_loss(self, chance: random.Random) -> dict[str, bytes]:
        """Return the files as they may be found: each unsynced sector, or not."""
        files = {name: bytearray(content) for name, content in self.certain.items()}
        keep = chance.random()
        for name, ops in self.pending.items():
            for op in ops:
                for sector in sectors(op):
                    if chance.random() < keep:
                        change(files.setdefault(name, bytearray()), sector)
        return {name: bytes(content) for name, content in files.items()}


def sectors(op: Op) -> Iterator[Op]:
    """Cut a write into the pieces that a disk writes as a whole."""
    kind, name, where, data = op
    if kind != "write":
        yield op
        return
    for start in range(0, len(data), SECTOR):
        yield kind, name, where + start, data[start : start + SECTOR]


def change(content: bytearray, op: Op) -> None:
    """Do to a file what an operation does."""
    kind, _, where, data = op
    if kind == "truncate":
        del content[where:]
        return
    if len(content) < where:
        content.extend(bytes(where - len(content)))
    content[where : where + len(data)] = data
