"""With a journal nobody is told of a step before it is on disk, and in this order."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from journal_faults import FaultyJournal, rows

from engine import Engine, flow, runtime, task, transaction
from engine.journal import JournalLocked, SQLiteJournal

pytestmark = pytest.mark.anyio

FATES = "SELECT hook, fate FROM hooks ORDER BY run, sequence, position"


@pytest.fixture
def journal(tmp_path: Path) -> FaultyJournal:
    return FaultyJournal(tmp_path / "journal.db")


async def reached(event: Any) -> None:
    assert await anyio.to_thread.run_sync(partial(event.wait, 10))


async def test_a_body_begins_when_its_run_is_on_disk(journal: FaultyJournal) -> None:
    """The body of a run without a parent waits for its Running to be committed."""
    began = anyio.Event()

    @flow
    async def body() -> None:
        began.set()

    async with Engine(journal=journal) as engine:
        journal.may_write.clear()
        handle = engine.start(body)
        await reached(journal.writing)
        await anyio.wait_all_tasks_blocked()
        assert not began.is_set()
        assert handle.state.is_running()
        journal.may_write.set()
        await handle
    assert began.is_set()


async def test_a_hook_is_called_when_its_transition_is_on_disk(
    journal: FaultyJournal,
) -> None:
    """When a hook is called, another connection can read the transition it is for."""
    found = []

    def look(flow: Any, run: Any, state: Any) -> None:
        query = f"SELECT name FROM transitions WHERE sequence = {run_sequence()}"
        found.append((state.name, rows(Path(journal.path), query)))

    def run_sequence() -> int:
        assert runtime.delivery.sequence is not None
        return runtime.delivery.sequence

    @flow(on_running=[look], on_completion=[look])
    async def body() -> None:
        pass

    async with Engine(journal=journal):
        await body()
    assert found == [("Running", [("Running",)]), ("Completed", [("Completed",)])]


async def test_a_caller_is_told_when_the_end_is_on_disk(journal: FaultyJournal) -> None:
    """A run without a parent is settled when its terminal state is committed."""
    over = anyio.Event()

    @flow
    async def body() -> int:
        journal.may_write.clear()
        journal.writing.clear()
        over.set()
        return 1

    async with Engine(journal=journal) as engine:
        handle = engine.start(body)
        await over.wait()
        await reached(journal.writing)
        await anyio.wait_all_tasks_blocked()
        assert handle.state.is_completed()
        assert not handle._actor.settled
        journal.may_write.set()
        assert await handle == 1


async def test_the_next_hook_waits_for_the_outcome_of_the_last(
    journal: FaultyJournal,
) -> None:
    """A hook is called when the outcome of the one before it is committed."""
    seen = []

    def first(*_: Any) -> None:
        journal.writing.clear()
        journal.may_write.clear()
        seen.append("first")

    def second(*_: Any) -> None:
        seen.append("second")

    @flow(on_completion=[first, second])
    async def body() -> None:
        pass

    async with Engine(journal=journal) as engine:
        handle = engine.start(body)
        await reached(journal.writing)
        while not seen:
            journal.writing.clear()
            await reached(journal.writing)
        await reached(journal.writing)
        await anyio.wait_all_tasks_blocked()
        assert seen == ["first"]
        journal.may_write.set()
        await handle
    assert seen == ["first", "second"]
    assert rows(Path(journal.path), FATES) == [
        ("on_completion[0]:first", "delivered"),
        ("on_completion[1]:second", "delivered"),
    ]


async def test_children_without_hooks_wait_for_nothing(journal: FaultyJournal) -> None:
    """A child that nobody outside is told about goes on while the disk is slow."""
    values = []

    @task
    async def child(n: int) -> int:
        return n

    @flow
    async def parent() -> None:
        journal.may_write.clear()
        values.extend(await child.map(range(3)))
        journal.may_write.set()

    async with Engine(journal=journal):
        await parent()
    assert values == [0, 1, 2]
    query = "SELECT count(*) FROM transitions"
    assert rows(Path(journal.path), query) == [(12,)]


async def test_the_delivery_key_is_the_journals(journal: FaultyJournal) -> None:
    """A hook's delivery key is the one in the journal; outside of hooks it is None."""
    keys = []

    def keep(*_: Any) -> None:
        keys.append(runtime.delivery.key)

    @flow(on_running=[keep], on_completion=[keep, keep])
    async def body() -> None:
        assert runtime.delivery.key is None

    async with Engine(journal=journal):
        await body()
    query = (
        "SELECT run_id, sequence, hook FROM hooks JOIN runs USING (run)"
        " ORDER BY sequence, position"
    )
    assert keys == rows(Path(journal.path), query)
    assert len(set(keys)) == 3


def test_sync_code_is_journalled_on_its_own_thread(journal: FaultyJournal) -> None:
    """A sync flow in a plain thread is journalled; its hooks stay on that thread."""
    threads = []

    def here(*_: Any) -> None:
        threads.append(threading.get_ident())

    @flow(on_running=[here], on_completion=[here])
    def body() -> int:
        here()
        return 7

    with Engine(journal=journal):
        assert body() == 7
    assert len(set(threads)) == 1
    assert [fate for _, fate in rows(Path(journal.path), FATES)] == ["delivered"] * 2


async def test_a_second_engine_is_refused(tmp_path: Path) -> None:
    """Two engines on one journal: the second is told who has it."""
    path = tmp_path / "journal.db"
    async with Engine(journal=f"sqlite:///{path}"):
        with pytest.raises(JournalLocked, match="this one"):
            async with Engine(journal=f"sqlite:///{path}"):
                pass
    async with Engine(journal=f"sqlite:///{path}"):
        pass


async def test_a_second_engine_waits_if_asked(tmp_path: Path) -> None:
    """``wait`` has the second engine wait for the first to let go."""
    path = tmp_path / "journal.db"
    entered = anyio.Event()

    async def second() -> None:
        async with Engine(journal=SQLiteJournal(path, wait=10)):
            entered.set()

    async with (
        anyio.create_task_group() as tasks,
        Engine(journal=SQLiteJournal(path)),
    ):
        tasks.start_soon(second)
        await anyio.wait_all_tasks_blocked()
        assert not entered.is_set()
    assert entered.is_set()


async def test_without_a_journal_nothing_is_imported_or_made(tmp_path: Path) -> None:
    """An engine without a journal has no recorder, and no lanes without hooks."""

    @flow
    async def body() -> None:
        pass

    async with Engine() as engine:
        handle = engine.start(body)
        assert handle._actor.lane is None
        await handle
        assert engine.recording is None
        assert engine.statistics().journal is None


@pytest.mark.parametrize(
    ("given", "error"),
    [("postgres:///x", ValueError), ("sqlite:///", ValueError), (3, TypeError)],
)
def test_what_is_no_journal_is_refused(given: Any, error: type[Exception]) -> None:
    """``journal=`` takes a URL it knows, or a journal; anything else is named."""
    with pytest.raises(error, match="journal must"):
        Engine(journal=given)


async def test_transaction_hooks_are_not_journalled(journal: FaultyJournal) -> None:
    """They are owed by the end of a transaction, and only hooks of steps are kept."""
    told = []

    def committed(txn: Any) -> None:
        told.append("committed")

    def completed(task: Any, run: Any, state: Any) -> None:
        told.append("completed")

    @task(on_commit=[committed], on_completion=[completed])
    async def child() -> None:
        pass

    @flow
    async def parent() -> None:
        async with transaction():
            await child()

    async with Engine(journal=journal):
        await parent()
    assert told == ["completed", "committed"]
    kept = rows(Path(journal.path), FATES)
    assert kept == [("on_completion[0]:completed", "delivered")]
