"""A journal that cannot be written: who is told what and when, and what follows."""

from __future__ import annotations

import resource
import signal
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from journal_faults import FaultyJournal, rows, sqlite_error, until

from engine import Engine, Hook, flow, task
from engine.actors.lane import Commit, Lane, Owed
from engine.exceptions import EngineFailedError
from engine.journal import JournalBroken, JournalError, JournalFull, SQLiteJournal
from engine.states import Completed

pytestmark = pytest.mark.anyio

PROMPT = 1.0
"""Seconds within which a new run has to learn that it cannot start."""


@pytest.fixture
def journal(tmp_path: Path) -> FaultyJournal:
    return FaultyJournal(tmp_path / "journal.db")


def states(path: str | Path) -> list[tuple[Any, ...]]:
    """Return the state of each run, by a connection of its own."""
    return rows(
        Path(path),
        "SELECT name, max(sequence) FROM transitions GROUP BY run ORDER BY run",
    )


@flow
async def nothing() -> int:
    return 1


async def passes(engine: Engine) -> None:
    """Wait until the journal's trouble has passed."""
    await until(lambda: engine.statistics().journal.problem is None)


@asynccontextmanager
async def measured_lag() -> AsyncIterator[list[float]]:
    """Give the times by which a ticker's beats came late."""
    lags: list[float] = []

    async def tick() -> None:
        while True:
            due = time.perf_counter() + 0.005
            await anyio.sleep(0.005)
            lags.append(time.perf_counter() - due)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        yield lags
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("SQLITE_FULL", JournalFull),
        ("SQLITE_IOERR_WRITE", JournalError),
        ("SQLITE_BUSY", JournalError),
        ("SQLITE_READONLY", JournalError),
    ],
)
async def test_passing_trouble_refuses_runs_until_it_has_passed(
    journal: FaultyJournal, name: str, error: type[JournalError]
) -> None:
    """New runs fail at once, live ones wait; when it passes all goes on by itself."""
    has_begun, may_end = anyio.Event(), anyio.Event()
    hooks = []

    @flow(on_completion=[lambda *_: hooks.append("told")])
    async def long() -> str:
        has_begun.set()  # so its beginning is on disk
        await may_end.wait()
        return "kept"

    async with Engine(journal=journal) as engine:
        live = engine.start(long)
        await has_begun.wait()
        journal.error = sqlite_error(name)
        began = time.monotonic()
        with pytest.raises(error):
            await nothing()
        assert time.monotonic() - began < PROMPT
        with pytest.raises(error):
            engine.start(nothing)
        may_end.set()
        await anyio.wait_all_tasks_blocked()
        assert live.state.is_completed()
        assert not live._actor.settled
        assert not hooks
        journal.error = None
        assert await live == "kept"
        await passes(engine)
        assert await nothing() == 1
    assert hooks == ["told"]
    ended = [name for name, _ in states(journal.path)]
    assert ended == ["Completed", "Failed", "Completed"]


@pytest.mark.parametrize("waits_for", ["step", "gate"])
def test_no_hook_is_called_for_what_never_got_to_the_disk(waits_for: str) -> None:
    """When the journal is given up, waiting ends, but the next hook is not called."""
    run: Any = None
    lane = Lane(run)
    lane.owed = (Owed(None, "on_failure", Hook(print)),)
    assert lane.is_servable
    commit = Commit()
    setattr(lane, waits_for, commit)
    assert not lane.is_servable
    commit.finish(JournalBroken("journal.db", "a failed sync"))
    assert not lane.is_servable
    commit.finish()
    assert lane.is_servable


@pytest.mark.parametrize("place", ["owed", "current"])
@pytest.mark.parametrize("kind", ["on_running", "on_retry", "on_failure"])
def test_only_hooks_of_a_beginning_hold_a_body(kind: str, place: str) -> None:
    """They fail it when the journal is lost; a recovery must not call them later."""
    run: Any = None
    lane = Lane(run)
    owed = Owed(None, kind, Hook(print))
    setattr(lane, place, owed if place == "current" else (owed,))
    assert lane.holds_body is (kind != "on_failure")


async def test_a_failed_fsync_is_final(journal: FaultyJournal) -> None:
    """After a failed fsync the file is not written again; the host goes on without."""
    async with Engine(journal=journal):
        assert await nothing() == 1
        journal.error = sqlite_error("SQLITE_IOERR_FSYNC")
        with pytest.raises(JournalBroken):
            await nothing()
        journal.error, attempts = None, journal.attempts
        for _ in range(3):
            with pytest.raises(JournalBroken):
                await nothing()
        assert journal.attempts == attempts
    assert [name for name, _ in states(journal.path)] == ["Completed"]


async def test_the_writer_is_restarted(journal: FaultyJournal) -> None:
    """A writer that dies is started again and goes on with the batch it had in hand."""
    async with Engine(journal=journal) as engine:
        await nothing()
        journal.error = RuntimeError("a defect")
        handle = engine.start(nothing)
        await until(lambda: journal.attempts >= 3)
        journal.error = None
        assert await handle == 1
    assert [name for name, _ in states(journal.path)] == ["Completed"] * 2


async def test_a_writer_that_keeps_dying_fails_the_engine(
    journal: FaultyJournal,
) -> None:
    """Past the restart intensity the engine fails loudly, and leaves nobody waiting."""

    async def fail() -> None:
        async with Engine(journal=journal):
            journal.error = RuntimeError("a defect")
            await nothing()

    with pytest.raises(EngineFailedError, match="journal"):
        await fail()


async def test_a_full_disk(tmp_path: Path) -> None:
    """SQLite's own limit: nothing acknowledged is lost, and it goes on when it may."""
    path = tmp_path / "journal.db"
    journal = SQLiteJournal(path)
    acknowledged: list[str] = []
    async with Engine(journal=journal) as engine, measured_lag() as lags:
        await nothing()
        limit(journal, 24)
        with pytest.raises(JournalFull):
            await fill(engine, acknowledged)
        began = time.monotonic()
        with pytest.raises(JournalFull):
            await nothing()
        assert time.monotonic() - began < PROMPT
        limit(journal, 1 << 30)
        await passes(engine)
        await nothing()
    assert acknowledged
    ended = "SELECT run_id FROM runs WHERE ended_at IS NOT NULL"
    assert set(acknowledged) <= {run for (run,) in rows(path, ended)}
    print(f"lag {max(lags) * 1e3:.1f} ms")


def largest(folder: Path) -> int:
    """Return the size of a folder's largest file."""
    return max(file.stat().st_size for file in folder.iterdir())


async def fill(engine: Engine, acknowledged: list[str]) -> None:
    """Run until the journal takes no more."""
    for _ in range(2000):
        handle = engine.start(nothing)
        await handle
        acknowledged.append(handle.id)


def limit(journal: SQLiteJournal, pages: int) -> None:
    """Let the file grow to so many pages at most."""
    journal._file.execute(f"PRAGMA max_page_count = {pages}")


async def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: the write itself fails; the host stays up, and it passes."""
    path = tmp_path / "journal.db"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        async with Engine(journal=SQLiteJournal(path)) as engine:
            await nothing()
            size = largest(tmp_path)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 8192, before[1]))
            with pytest.raises(JournalError):
                await fill(engine, [])
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            await passes(engine)
            await nothing()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


async def test_a_file_that_another_process_locks(tmp_path: Path) -> None:
    """While another connection writes, new runs are refused and the loop goes on."""
    path = tmp_path / "journal.db"
    async with Engine(journal=SQLiteJournal(path)) as engine, measured_lag() as lags:
        await nothing()
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="locked"):
            await nothing()
        for _ in range(20):
            with pytest.raises(JournalError):
                await nothing()
            await anyio.sleep(0.005)
        other.execute("ROLLBACK")
        other.close()
        await passes(engine)
        assert await nothing() == 1
    print(f"lag {max(lags) * 1e3:.1f} ms")


async def test_leaving_while_it_cannot_be_written(
    journal: FaultyJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that closes meanwhile gives up after a bounded time."""
    monkeypatch.setattr("engine.journal.writer.CLOSING_SECONDS", 0.1)
    async with Engine(journal=journal, hook_timeout=0.1) as engine:
        engine.start(nothing)
        journal.error = sqlite_error("SQLITE_FULL")
        monkeypatch.setattr("engine.shutdown.HOOK_MARGIN", 0.0)
    live = [thread.name for thread in threading.enumerate()]
    assert "engine-journal" not in live


async def test_many_children_when_the_disk_is_full(journal: FaultyJournal) -> None:
    """A flow cannot start tasks that could not be recorded, and is told why."""

    @task
    async def child() -> None:
        pass

    @flow
    async def parent() -> str:
        journal.error = sqlite_error("SQLITE_FULL")
        refused = None
        with anyio.fail_after(5):
            while refused is None:
                try:
                    await child()
                except JournalFull as error:
                    refused = str(error)
                await anyio.lowlevel.checkpoint()
        journal.error = None
        return refused

    async with Engine(journal=journal):
        assert "no space" in await parent()


class Mute:
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("message", ["half a pair \ud800", Mute(), ["a list"], 1 << 70])
async def test_what_sqlite_cannot_store_holds_nothing_up(
    tmp_path: Path, message: Any
) -> None:
    """A state may say anything: it is written as text, and so are all others."""

    @flow
    async def odd() -> Any:
        return Completed(name="odd \ud800", message=message)

    path = tmp_path / "journal.db"
    async with Engine(journal=SQLiteJournal(path)):
        await odd()
        await nothing()
    assert [name for name, _ in states(path)] == ["odd ?", "Completed"]
    query = "SELECT message FROM transitions WHERE name = 'odd ?'"
    assert [type(text) for (text,) in rows(path, query)] == [str]


async def test_many_rows_of_many_shapes_are_all_written(tmp_path: Path) -> None:
    """Whatever the number of rows, each is written once: statements are filled up."""

    @task
    async def child(n: int, text: str = "x") -> int:
        if n % 3 == 0:
            raise ValueError(n)
        return n

    @flow
    async def parent(count: int) -> None:
        for handle in [child.submit(n) for n in range(count)]:
            await handle.join()

    path = tmp_path / "journal.db"
    counts = [1, 3, 5, 17, 100, 300]
    async with Engine(journal=SQLiteJournal(path, durability="off")):
        for count in counts:
            await parent(count)
    runs = sum(counts) + len(counts)
    assert rows(path, "SELECT count(*), count(ended_at) FROM runs") == [(runs, runs)]
    assert rows(path, "SELECT count(*) FROM transitions") == [(3 * runs,)]
    failed = "SELECT count(*) FROM transitions WHERE message LIKE '%ValueError: %'"
    assert rows(path, failed) == [(sum(-(-count // 3) for count in counts),)]
    parameters = "SELECT parameters FROM runs WHERE parent_run_id IS NOT NULL LIMIT 2"
    assert rows(path, parameters) == [('{"n": 0, "text": "x"}',)] * 2
