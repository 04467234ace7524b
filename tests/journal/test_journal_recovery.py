"""What the next engine does for a process that is gone."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import journal_app
import pytest
from journal_faults import rows

from engine import Engine, flow, task
from engine.journal import JournalFormatError, SQLiteJournal, schema
from engine.journal.lock import FileLock

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
FATES = "SELECT hook, fate, recoveries FROM hooks ORDER BY run, sequence, position"


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "notes"
    path.touch()
    monkeypatch.setenv(journal_app.NOTES, str(path))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def words(notes: Path) -> list[list[str]]:
    """Return what was noted."""
    return [line.split()[1:] for line in notes.read_text().splitlines()]


def die(path: Path, call: str, loop: str = "asyncio") -> None:
    """Run something of the application in a process that does not survive it."""
    program = f"""
import anyio, journal_app
from engine import Engine
from engine.journal import SQLiteJournal
async def main():
    async with Engine(journal=SQLiteJournal({str(path)!r})):
        await {call}
anyio.run(main, backend={loop!r})
"""
    folders = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    env = {**os.environ, "PYTHONPATH": folders}
    process = subprocess.run((sys.executable, "-c", program), env=env, check=False)
    assert process.returncode == -9


async def recover(path: Path, **options: Any) -> Any:
    """Enter an engine until nothing is owed."""
    async with Engine(journal=SQLiteJournal(path, **options)) as engine:
        pass
    return engine.statistics()


async def test_lost_runs_crash_and_their_hooks_run(
    path: Path, notes: Path, anyio_backend: str
) -> None:
    """Runs of a killed process end Crashed, children first; all hooks are called."""
    die(path, "journal_app.parent('kill')", anyio_backend)
    statistics = await recover(path)
    assert statistics.journal.recovered == 2
    query = (
        "SELECT run_id, transitions.name, cause FROM transitions JOIN runs USING (run)"
        " WHERE cause = 'process_lost' ORDER BY sequence"
    )
    crashed = rows(path, query)
    assert [run_id[-2:] for run_id, *_ in crashed] == ["-2", "-1"]
    assert [rest for _, *rest in crashed] == [["Crashed", "process_lost"]] * 2
    told = [
        line for line in words(notes) if line[0] in ("noted", "noted_later", "page")
    ]
    assert sorted(told) == [
        ["noted", "child", "Crashed", "process_lost", "on_crashed[0]:noted"],
        ["noted", "parent", "Crashed", "process_lost", "on_crashed[1]:noted"],
        [
            "noted_later",
            "parent",
            "Crashed",
            "process_lost",
            "on_crashed[0]:noted_later",
        ],
        ["page", "help", "Crashed", "on_crashed[2]:page"],
    ]
    assert {fate for _, fate, _ in rows(path, FATES)} == {"delivered"}


async def test_a_recovered_hook_knows_its_run(
    path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook of a lost run is given its id, name, parameters and parent."""
    seen: list[Any] = []
    monkeypatch.setattr(journal_app, "noted", lambda *args: seen.append(args))
    die(path, "journal_app.parent('kill')")
    await recover(path)
    child, parent = sorted(seen, key=lambda args: args[0].kind, reverse=True)
    assert child[0] is journal_app.child
    assert parent[0] is journal_app.parent
    assert child[1].parent_run_id == child[1].flow_run_id == parent[1].id
    assert child[1].parameters == {"how": "kill"}
    assert parent[1].parameters == {"how": "kill"}
    assert child[1].name == f"child-{child[1].id.rpartition('-')[2]}"
    assert parent[2].cause == "process_lost"
    assert parent[2].attempt == 1
    assert parent[1].state.is_crashed()


async def test_what_cannot_be_found_is_parked(path: Path, notes: Path) -> None:
    """A hook without a name is parked as unresolvable, and the others are delivered."""
    die(path, "journal_app.local()()")
    await recover(path)
    assert [fate for _, fate, _ in rows(path, FATES)] == ["unresolvable", "delivered"]
    assert [line[:2] for line in words(notes)] == [["noted", "local"]]
    await recover(path)
    assert len(words(notes)) == 1


async def test_a_deadly_hook_is_quarantined(path: Path, notes: Path) -> None:
    """A hook that kills each recovery is given up; what comes after it is delivered."""
    die(path, "journal_app.doomed()")
    for _ in range(2):
        die(path, "__import__('anyio').sleep(9)")
    await recover(path, quarantine_after=2)
    found = rows(path, FATES)
    assert found == [
        ("on_crashed[0]:deadly", "quarantined", 2),
        ("on_crashed[1]:noted", "delivered", 1),
    ]
    assert [line[0] for line in words(notes)] == ["deadly", "deadly", "noted"]


async def test_a_failing_hook_is_tried_by_each_recovery(
    path: Path, notes: Path
) -> None:
    """A recovered hook that raises stays owed for the next, until it is quarantined."""
    die(path, "journal_app.unlucky()")
    for _ in range(3):
        await recover(path, quarantine_after=2)
    assert [line[0] for line in words(notes)] == ["failing", "noted", "failing"]
    assert [fate for _, fate, _ in rows(path, FATES)] == ["quarantined", "delivered"]


async def test_what_was_given_up_can_be_owed_again(
    path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``owe_again`` has the next engine deliver what was quarantined."""
    die(path, "journal_app.unlucky()")
    await recover(path, quarantine_after=1)
    await recover(path, quarantine_after=1)
    assert [fate for _, fate, _ in rows(path, FATES)] == ["quarantined", "delivered"]
    monkeypatch.setenv("JOURNAL_APP_TAMED", "1")
    assert SQLiteJournal(path).owe_again(["quarantined"], ["no-such-run"]) == 0
    assert SQLiteJournal(path).owe_again(["quarantined"]) == 1
    await recover(path, quarantine_after=1)
    assert [fate for _, fate, _ in rows(path, FATES)] == ["delivered"] * 2


async def test_a_suspect_is_delivered_alone(path: Path, notes: Path) -> None:
    """A hook under suspicion takes no innocent one with it."""
    die(path, "journal_app.doomed()")
    die(path, "__import__('anyio').sleep(9)")  # the recovery of the first, which dies
    db = sqlite3.connect(path)
    db.execute("UPDATE hooks SET recoveries = 0 WHERE hook LIKE '%noted'")
    db.commit()
    db.close()
    for _ in range(3):
        die(path, "__import__('anyio').sleep(9)")
    recoveries = {hook: count for hook, _, count in rows(path, FATES)}
    assert recoveries == {"on_crashed[0]:deadly": 4, "on_crashed[1]:noted": 0}


def test_a_forked_child_writes_nothing(path: Path) -> None:
    """A child that goes on with an inherited run leaves the journal alone."""

    @task
    def step(n: int) -> int:
        return n

    @flow
    def forks() -> int:
        pid = os.fork()
        if pid == 0:
            try:
                step(1)
            except BaseException:
                os._exit(7)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)

    with Engine(journal=SQLiteJournal(path)):
        forks()
    assert rows(path, "SELECT count(*) FROM runs") == [(1,)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_child_does_not_keep_the_lock(path: Path) -> None:
    """A forked child that lives on does not keep its killed parent's journal."""
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        lock = FileLock(f"{path}.lock")
        assert lock.try_acquire()
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)  # until the test's end closes its side
            os._exit(0)
        os.write(write, b"%d\n" % child)
        os._exit(0)
    os.waitpid(parent, 0)
    assert FileLock(f"{path}.lock").is_free()
    os.close(write)
    os.close(read)


def test_ended_runs_are_dropped(path: Path) -> None:
    """``keep_runs`` bounds what is kept; what owes a hook stays, and ids go on."""

    @flow
    def nothing() -> None:
        pass

    journal = SQLiteJournal(path, keep_runs=10, durability="off")
    with Engine(journal=journal):
        for _ in range(30):
            nothing()
        journal._file.execute("UPDATE runs SET ended_at = NULL WHERE run = 1")
        while journal.tidy():
            pass
    kept = [run for (run,) in rows(path, "SELECT run FROM runs ORDER BY run")]
    assert kept == [1, *range(21, 31)]
    assert rows(path, "SELECT count(*) FROM transitions") == [(33,)]
    with Engine(journal=SQLiteJournal(path, keep_runs=0)) as engine:
        nothing()
        assert engine.statistics().journal is not None
    assert rows(path, "SELECT max(run) FROM runs") == [(31,)]


def test_the_file_stays_bounded(path: Path) -> None:
    """With ``keep_runs`` neither the file nor its log grows with what was run."""

    @task
    def step(n: int) -> str:
        return "x" * n

    @flow
    def steps() -> None:
        for _ in range(1000):
            step(1)

    sizes = []
    with Engine(journal=SQLiteJournal(path, keep_runs=500, durability="off")):
        for _ in range(12):
            steps()
            log = Path(f"{path}-wal")
            sizes.append(path.stat().st_size + log.stat().st_size)
    assert max(sizes) < 8_000_000
    assert rows(path, "SELECT count(*) FROM runs")[0][0] < 9000


@pytest.mark.parametrize("version", sorted({*schema.MIGRATIONS, schema.FORMAT}))
async def test_each_released_format_opens(
    version: int, path: Path, notes: Path
) -> None:
    """A journal that an earlier release left behind is recovered."""
    fixture = HERE / "formats" / f"format{version}.sql"
    db = sqlite3.connect(path)
    db.executescript(fixture.read_text("utf-8"))
    db.close()
    statistics = await recover(path)
    assert statistics.journal.recovered == 2
    assert rows(path, "PRAGMA user_version") == [(schema.FORMAT,)]
    assert {fate for _, fate, _ in rows(path, FATES)} == {"delivered"}
    assert [line[0] for line in words(notes)].count("noted") == 2


async def test_an_older_format_becomes_the_current_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Migrations are applied one after the other, each in a transaction."""
    await recover(path)
    monkeypatch.setattr(schema, "FORMAT", 3)
    steps = {1: "ALTER TABLE runs ADD COLUMN a", 2: "ALTER TABLE hooks ADD COLUMN b"}
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    await recover(path)
    assert rows(path, "PRAGMA user_version") == [(3,)]
    rows(path, "SELECT a FROM runs")
    rows(path, "SELECT b FROM hooks")


async def test_newer_and_other_files_are_refused(path: Path) -> None:
    """A newer format, another database and another file are all refused."""
    await recover(path)
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {schema.FORMAT + 1}")
    db.close()
    with pytest.raises(JournalFormatError, match="newer"):
        await recover(path)
    other = path.with_name("other.db")
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE t (x)")
    db.close()
    with pytest.raises(JournalFormatError, match="another kind"):
        await recover(other)
    text = path.with_name("text.db")
    text.write_text("hello " * 1000)
    with pytest.raises(JournalFormatError):
        await recover(text)


async def test_ids_never_meet(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose prefix another has used takes another one."""
    prefixes = iter(["aaaaaa-", "aaaaaa-", "bbbbbb-"])
    monkeypatch.setattr("engine.recording.new_prefix", lambda: next(prefixes))
    await recover(path)
    await recover(path)
    found = rows(path, "SELECT prefix FROM owners ORDER BY owner")
    assert found == [("aaaaaa-",), ("bbbbbb-",)]


async def test_the_clock_may_be_set(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock set back an hour and on a day changes no order and no duration."""
    real, shift = time.time, [0.0]
    monkeypatch.setattr("time.time", lambda: real() + shift[0])

    @flow
    async def body() -> None:
        shift[0] -= 3600
        await anyio.sleep(0.01)
        shift[0] += 90_000

    async with Engine(journal=SQLiteJournal(path)) as engine:
        handles = []
        for _ in range(2):
            handles.append(engine.start(body))
            await handles[-1]
    from engine.journal.reader import reading

    with reading(str(path)) as reader:
        last, first = reader.runs()
        assert (first["id"], last["id"]) == tuple(handle.id for handle in handles)
        for run in (first, last):
            steps = reader.run(run["id"])["steps"]  # type: ignore[index]
            assert [s["state"] for s in steps] == ["Pending", "Running", "Completed"]
            assert 0.005 < run["seconds"] < 5
            times = [step["at"] for step in steps]
            assert times == sorted(times)


def test_what_an_older_release_left_is_kept_for_ever() -> None:
    """There is a fixture of each format."""
    found = {path.stem for path in (HERE / "formats").glob("*.sql")}
    assert found == {f"format{n}" for n in range(1, schema.FORMAT + 1)}
