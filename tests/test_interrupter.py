"""Of many runs that are asked to stop, some are interrupted in each turn."""

import itertools

import anyio
import anyio.lowlevel
import pytest
from support import Way, in_virtual_time

from engine import Engine, RunHandle, flow, task
from engine.dispatch.turns import RUNS_A_TURN
from engine.runtime import task_run

MANY = 10 * RUNS_A_TURN + 7


class Crowd:
    """A flow of many children that wait, and what they note as they end."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended: list[int] = []
        self.may_end = anyio.Event()
        self.has_begun = anyio.Event()
        self.children: list[RunHandle[int]] = []

    async def wait(self, number: int) -> int:
        self.begun += 1
        if self.begun == MANY:
            self.has_begun.set()
        try:
            await self.may_end.wait()
        finally:
            self.ended.append(number)
        return number

    @flow
    async def parent(self) -> None:
        child = task(self.wait)
        self.children += [child.submit(number) for number in range(MANY)]


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


async def test_all_are_told_at_once_and_others_get_their_turns(crowd: Crowd) -> None:
    """Each is Cancelling when `cancel` returns; the bodies end a few in each turn."""
    turns = [0]

    async def watch() -> None:
        while len(crowd.ended) < MANY:
            await anyio.lowlevel.checkpoint()
            turns.append(len(crowd.ended))

    async with Engine() as engine, anyio.create_task_group() as group:
        handle = engine.start(crowd.parent)
        await crowd.has_begun.wait()
        handle.cancel()
        assert all(child.state.is_cancelling() for child in crowd.children)
        group.start_soon(watch)
        assert (await handle.join()).is_cancelled()
    assert {child.state.cause for child in crowd.children} == {"parent"}
    assert all(child.state.is_cancelled() for child in crowd.children)
    assert sorted(crowd.ended) == list(range(MANY))
    at_once = [later - earlier for earlier, later in itertools.pairwise(turns)]
    # On trio the tasks of one turn come in any order, the watching one among them.
    assert max(at_once) <= 2 * RUNS_A_TURN


async def test_a_body_that_ends_before_its_turn_is_cancelled_all_the_same(
    crowd: Crowd,
) -> None:
    """Nothing that was meant for it hits what its task or the loop does later."""
    async with Engine() as engine:
        handle = engine.start(crowd.parent)
        await crowd.has_begun.wait()
        handle.cancel()
        crowd.may_end.set()
        assert (await handle.join()).is_cancelled()
        assert all(child.state.is_cancelled() for child in crowd.children)
        assert await task(crowd.wait).map(range(5)) == list(range(5))
    assert len(crowd.ended) == MANY + 5


@in_virtual_time
def test_deadlines_that_pass_together_end_their_own_attempts(way: Way) -> None:
    """However many, and if a body ends by itself just then: not the next attempt."""

    @task(retries=1, timeout_seconds=1)
    async def body() -> int:
        if task_run.attempt == 1:
            try:
                await first_has_ended.wait()
            finally:
                first_has_ended.set()
            raise ValueError
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        return task_run.attempt

    async def main() -> set[str]:
        nonlocal first_has_ended
        first_has_ended = anyio.Event()
        async with Engine():
            handles = [body.submit() for _ in range(MANY)]
            return {(await handle.join()).name for handle in handles}

    first_has_ended: anyio.Event
    assert way.call(main) == {"Completed"}


async def test_each_may_be_stopped_by_itself(crowd: Crowd) -> None:
    """Cancelled one by one they stop likewise, and their parent goes on."""
    async with Engine() as engine:
        handle = engine.start(crowd.parent)
        await crowd.has_begun.wait()
        for child in crowd.children:
            child.cancel()
        assert (await handle.join()).is_completed()
    assert {child.state.cause for child in crowd.children} == {"user"}
    assert len(crowd.ended) == MANY
