"""What happened to runs is in the journal, field by field, however it is kept there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from journal_faults import FaultyJournal, rows

from engine import Engine, flow, task
from engine.journal import SQLiteJournal, clerk
from engine.journal.entries import MOST_CHARACTERS, WHEN
from engine.states import COMPLETED, FAILED, Completed, Failed, State

pytestmark = pytest.mark.anyio

STEPS = (
    "SELECT run_id, sequence, type, transitions.name, message, cause, attempt,"
    " entered_at FROM transitions JOIN runs USING (run) ORDER BY sequence"
)
SIBLINGS = clerk.FEW * 2


class Touchy(str):
    """A text that is not to be compared."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, _: object) -> bool:
        raise AssertionError("somebody compared a user's text")


OUTCOMES: list[Any] = [
    None,
    7,
    Completed(data=1),
    Completed(data=1, message="well done"),
    State(COMPLETED, "Skipped"),
    State(COMPLETED, "Completed", cause="luck"),
    State(COMPLETED, Touchy("Completed")),
    State(FAILED, "Completed"),
    Failed(message="badly done"),
    ValueError("raised"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def test_every_step_is_written_as_it_was_published(path: Path) -> None:
    """Type, name, message, cause, attempt and time are those that a reader is told."""
    tries: dict[int, int] = {}

    @task(retries=1)
    async def end(number: int, at_once: bool) -> Any:
        tries[number] = tries.get(number, 0) + 1
        if not at_once and tries[number] == 1:
            raise ValueError("not at once")
        outcome = OUTCOMES[number]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @flow
    async def every_way() -> None:
        for at_once in (True, False):
            tries.clear()
            ways = [end.submit(number, at_once) for number in range(len(OUTCOMES))]
            for way in ways:
                await way.join()

    async with Engine(journal=SQLiteJournal(path)) as engine:
        told = engine.subscribe(buffer=1000)
        await every_way()
        count = engine.statistics().transitions
        seen = [await anext(told) for _ in range(count)]
    published = [
        (
            step.run.id,
            step.sequence,
            step.state.type.value,
            str(step.state.name),
            step.state.message,
            step.state.cause,
            step.state.attempt,
            step.state.timestamp.timestamp(),
        )
        for step in seen
    ]
    written = rows(path, STEPS)
    assert [row[:7] for row in written] == [step[:7] for step in published]
    for row, step in zip(written, published, strict=True):
        assert row[7] == pytest.approx(step[7], abs=1e-6)
    assert {row[3] for row in written} >= {"Completed", "Skipped", "Retrying"}


async def test_clocks_of_a_run_never_go_back(path: Path) -> None:
    """The monotonic clock orders the steps of a run as their numbers do."""

    @task
    async def work() -> None:
        await anyio.lowlevel.checkpoint()

    @flow
    async def several() -> None:
        for one in [work.submit() for _ in range(10)]:
            await one

    async with Engine(journal=SQLiteJournal(path)):
        await several()
    by_number = rows(path, "SELECT run, clock FROM transitions ORDER BY run, sequence")
    by_clock = rows(path, "SELECT run, clock FROM transitions ORDER BY run, clock")
    assert by_number == by_clock


VALUES: list[Any] = [
    1,
    -(10**30),
    True,
    None,
    0.1,
    1e300,
    "100 % of it",
    'a "quoted" \\ text',
    "déjà vu \ud800",
]


@pytest.mark.parametrize("odd", [None, math.nan, [1, 2], object(), "x" * 70_000])
async def test_parameters_of_siblings_are_written_side_by_side(
    path: Path, odd: Any
) -> None:
    """Each run has its own parameters; one whose cannot be written is alone in that."""

    @task
    async def take(größe: Any, other: Any) -> None:
        pass

    @flow
    async def several() -> None:
        calls = [(value, "same") for value in VALUES]
        calls += [("same", value) for value in VALUES]
        calls += [(1, odd), (2, 3)]
        for one in [take.submit(*call) for call in calls]:
            await one

    async with Engine(journal=SQLiteJournal(path)):
        await several()
    found = rows(path, "SELECT parameters FROM runs WHERE flow_run_id IS NOT NULL")
    expected = [{"größe": value, "other": "same"} for value in VALUES]
    expected += [{"größe": "same", "other": value} for value in VALUES]
    texts = [json.dumps(one) for one in expected]
    can_be_written = odd is None or odd == [1, 2]
    texts.append(json.dumps({"größe": 1, "other": odd}) if can_be_written else None)  # type: ignore[arg-type]
    texts.append(json.dumps({"größe": 2, "other": 3}))
    assert [text for (text,) in found] == texts
    assert max(len(text or "") for text in texts) < MOST_CHARACTERS


async def test_siblings_are_written_with_all_they_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many siblings or few, ended in the same batch or later: the rows are the same."""
    assert await families(tmp_path / "many.db") == expected_families()
    monkeypatch.setattr(clerk, "FEW", 10**6)
    assert await families(tmp_path / "few.db") == expected_families()


def expected_families() -> set[tuple[Any, ...]]:
    families = {("work", "family", "family", tags) for tags in (None, '["a", "b"]')}
    return families | {("work", None, None, None), ("family", None, None, None)}


async def families(path: Path) -> set[tuple[Any, ...]]:
    """Have runs with and without parents; return what their rows have in common."""

    @task
    async def work(number: int) -> int:
        await anyio.lowlevel.checkpoint()
        return number

    tagged = work.with_options(tags=["b", "a"])

    @flow
    async def family() -> None:
        handles = [work.submit(number) for number in range(SIBLINGS)]
        handles += [tagged.submit(number) for number in range(SIBLINGS)]
        for number in range(10):  # siblings of two kinds in turn
            handles += [work.submit(number), tagged.submit(number)]
        for handle in handles:
            await handle

    journal = FaultyJournal(path)
    async with Engine(journal=journal) as engine:
        handles = [engine.start(work, number) for number in range(SIBLINGS)]
        await family()
        for handle in handles:
            await handle
    total = 3 * SIBLINGS + 20 + 1
    assert rows(path, "SELECT count(*), count(ended_at) FROM runs") == [(total, total)]
    late = "SELECT count(*) FROM runs WHERE ended_at != (SELECT max(entered_at)"
    late += " FROM transitions WHERE transitions.run = runs.run)"
    assert rows(path, late) == [(0,)]
    early = "SELECT count(*) FROM runs WHERE created_at != (SELECT min(entered_at)"
    early += " FROM transitions WHERE transitions.run = runs.run)"
    assert rows(path, early) == [(0,)]
    roots = "SELECT count(*) FROM runs WHERE root_run_id != ifnull(flow_run_id, run_id)"
    assert rows(path, roots) == [(0,)]
    return set(
        rows(
            path,
            "SELECT definitions.name, parents.name, flows.name, runs.tags FROM runs"
            " JOIN definitions USING (definition)"
            " LEFT JOIN (SELECT run_id, definitions.name FROM runs JOIN definitions"
            "  USING (definition)) AS parents ON parents.run_id = parent_run_id"
            " LEFT JOIN (SELECT run_id, definitions.name FROM runs JOIN definitions"
            "  USING (definition)) AS flows ON flows.run_id = flow_run_id",
        )
    )


async def test_runs_wait_for_room_before_they_begin(path: Path) -> None:
    """While the disk is slow no more runs begin than there is room for."""
    journal = FaultyJournal(path)
    begun: list[int] = []
    room = 5

    @task
    async def work(number: int) -> None:
        begun.append(number)

    @flow
    async def many(engine: Engine) -> int:
        assert engine.hooks.recorder is not None
        engine.hooks.recorder.size = room * len(WHEN)
        journal.may_write.clear()
        handles = [work.submit(number) for number in range(100)]
        await anyio.wait_all_tasks_blocked()
        at_first = len(begun)
        journal.may_write.set()
        for handle in handles:
            await handle
        return at_first

    async with Engine(journal=journal) as engine:
        # So many in the page that waits and in the one in hand; a third one may have
        # been on its way. In each, as many that found room as were let in.
        assert room <= await many(engine) <= room * 6
    assert sorted(begun) == list(range(100))
    ended = "SELECT count(*) FROM runs WHERE ended_at IS NOT NULL"
    assert rows(path, ended) == [(101,)]
