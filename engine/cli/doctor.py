"""``doctor``: is the journal well?"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from engine.cli.arguments import add_journal
from engine.cli.output import print_json

HELP: Final = "Check a journal: its file, its lock, its disk, and what is owed."

FIXED: Final = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
"""From which releases on, in their series, SQLite resets a write-ahead log safely."""

SYNCS: Final = 30
SLOW_SYNC_SECONDS: Final = 0.02


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_journal(parser)


def execute(options: argparse.Namespace) -> int:
    """Print what was found; 1 if something is broken or parked."""
    from engine.journal.reader import reading

    with reading(options.journal) as reader:
        findings = [
            format_of(reader),
            integrity_of(reader),
            size_of(options.journal),
            sqlite_version(),
            lock_of(options.journal, reader),
            sync_speed(options.journal),
            what_is_owed(reader),
        ]
    if options.json:
        print_json(findings)
    else:
        for finding in findings:
            print(f"{finding['verdict']:4}  {finding['check']:10}  {finding['found']}")
    return int(any(finding["verdict"] == "bad" for finding in findings))


def finding(verdict: str, check: str, found: str, **facts: Any) -> dict[str, Any]:
    """Return one line of the report; the verdict is ``ok``, ``warn`` or ``bad``."""
    return {"verdict": verdict, "check": check, "found": found, **facts}


def format_of(reader: Any) -> dict[str, Any]:
    """Say which format it has, and how much is in it."""
    counts = reader.counts()
    text = ", ".join(f"{count} {name}" for name, count in counts.items())
    return finding("ok", "format", f"version {reader.format}: {text}", **counts)


def integrity_of(reader: Any) -> dict[str, Any]:
    """Have SQLite check every page and index."""
    broken = reader.integrity()
    if broken:
        return finding("bad", "integrity", "; ".join(broken[:3]))
    return finding("ok", "integrity", "every page and index is sound")


def size_of(path: str) -> dict[str, Any]:
    """Say how large the file and its write-ahead log are."""
    size = os.path.getsize(path)
    wal = Path(f"{path}-wal")
    logged = wal.stat().st_size if wal.exists() else 0
    text = f"{size / 1e6:.1f} MB, write-ahead log {logged / 1e6:.1f} MB"
    return finding("ok", "size", text, bytes=size, wal_bytes=logged)


def sqlite_version() -> dict[str, Any]:
    """Say whether this SQLite has the defect that two connections at once can meet."""
    version = sqlite3.sqlite_version_info
    is_fixed = version >= FIXED[0] or any(
        version[:2] == fixed[:2] and version >= fixed for fixed in FIXED
    )
    text = f"version {sqlite3.sqlite_version}"
    if is_fixed:
        return finding("ok", "sqlite", text)
    text += ": never let two processes write this file (fixed in 3.51.3)"
    return finding("warn", "sqlite", text)


def lock_of(path: str, reader: Any) -> dict[str, Any]:
    """Say who has the journal."""
    from engine.journal.lock import FileLock
    from engine.journal.owner import is_alive

    lock = FileLock(f"{path}.lock")
    owner = next(iter(reader.owners()), None)
    if not os.path.exists(lock.path) or lock.is_free():
        if owner is not None and owner["closed"] is None:
            text = f"free; process {owner['pid']} did not close it"
            return finding("ok", "lock", text)
        return finding("ok", "lock", "free")
    text = f"held by process {lock.holder()}"
    if owner is not None and lock.holder() == owner["pid"]:
        alive = is_alive(owner["pid"], owner["started"], owner["boot"])
        if alive is False:
            text += ", though the engine that is on record is gone"
    return finding("ok", "lock", text, pid=lock.holder())


def sync_speed(path: str) -> dict[str, Any]:
    """Measure what a commit waits for."""
    times = []
    folder = Path(path).absolute().parent
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".engine-doctor-") as file:
            for _ in range(SYNCS):
                file.write(b"0" * 4096)
                file.flush()
                began = time.perf_counter()
                os.fsync(file.fileno())
                times.append(time.perf_counter() - began)
    except OSError as error:
        return finding("bad", "disk", f"{folder} cannot be written: {error}")
    middle = statistics.median(times)
    text = f"an fsync takes {middle * 1e3:.2f} ms (the longest {max(times) * 1e3:.2f})"
    verdict = "ok" if middle < SLOW_SYNC_SECONDS else "warn"
    return finding(verdict, "disk", text, fsync_seconds=middle)


def what_is_owed(reader: Any) -> dict[str, Any]:
    """Say what still has to be delivered, and what waits for somebody's help."""
    fates = reader.fates()
    parked = fates.get("unresolvable", 0) + fates.get("quarantined", 0)
    text = ", ".join(f"{count} {fate}" for fate, count in fates.items()) or "no hooks"
    if parked:
        return finding("bad", "hooks", f"{text}: see 'hooks' and 'redeliver'", **fates)
    return finding("warn" if fates.get("owed") else "ok", "hooks", text, **fates)
