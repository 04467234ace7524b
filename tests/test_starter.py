"""Submitted runs start some in each turn of the loop, in order, and all of them."""

import asyncio
import itertools
from contextvars import ContextVar

import anyio
import anyio.to_thread
import pytest

from engine import Engine, RunHandle, flow, task
from engine.dispatch.turns import RUNS_A_TURN
from engine.exceptions import CancelledRun

MANY = 10 * RUNS_A_TURN + 7

WHERE: ContextVar[int] = ContextVar("where", default=-1)


@pytest.fixture
def begun() -> list[int]:
    return []


async def test_others_get_their_turns_meanwhile(begun: list[int]) -> None:
    """Between two turns of another task no more runs begin than start in one turn."""
    turns = [0]

    @task
    async def body(number: int) -> None:
        begun.append(number)

    async def watch() -> None:
        while len(begun) < MANY:
            await anyio.lowlevel.checkpoint()
            turns.append(len(begun))

    @flow
    async def parent() -> None:
        await body.map(range(MANY))

    async with Engine(), anyio.create_task_group() as group:
        group.start_soon(watch)
        await anyio.lowlevel.checkpoint()
        await parent()
    at_once = [later - earlier for earlier, later in itertools.pairwise(turns)]
    # On trio the tasks of one turn come in any order, the watching one among them.
    assert max(at_once) <= 2 * RUNS_A_TURN
    assert sorted(begun) == list(range(MANY))


async def test_they_begin_in_the_order_of_submission(
    begun: list[int], anyio_backend: str
) -> None:
    """On asyncio exactly so; trio shuffles the tasks of one turn, but no more."""

    @task
    async def body(number: int) -> None:
        begun.append(number)

    async with Engine():
        for handle in [body.submit(number) for number in range(MANY)]:
            await handle
    if anyio_backend == "asyncio":
        assert begun == list(range(MANY))
    for place, number in enumerate(begun):
        assert abs(place - number) < 2 * RUNS_A_TURN


async def test_each_has_the_context_of_its_submission() -> None:
    """Whether it starts at once or later, and from the loop or from a thread."""

    @task
    async def body() -> int:
        before = WHERE.get()
        WHERE.set(-2)  # its own copy
        await anyio.lowlevel.checkpoint()
        return before

    def submit_all() -> list[RunHandle[int]]:
        handles = []
        for number in range(MANY):
            WHERE.set(number)
            handles.append(engine.start(body))
        return handles

    async with Engine() as engine:
        for handles in (submit_all(), await anyio.to_thread.run_sync(submit_all)):
            assert [await handle for handle in handles] == list(range(MANY))


async def test_what_is_stopped_meanwhile_never_begins(begun: list[int]) -> None:
    """A run that is cancelled while it waits takes no place; the others go on."""

    @task
    async def body(number: int) -> None:
        begun.append(number)

    async with Engine():
        handles = [body.submit(number) for number in range(MANY)]
        stopped = [handle for number, handle in enumerate(handles) if number % 10]
        for handle in stopped:
            handle.cancel()
        for handle in handles:
            await handle.join()
    assert all(handle.state.is_cancelled() for handle in stopped)
    assert sorted(begun) == list(range(0, MANY, 10))


async def test_a_flow_that_is_cancelled_starts_no_more(begun: list[int]) -> None:
    """Children that wait for their turn end with their parent, without a body."""

    @task
    async def body(number: int) -> None:
        begun.append(number)
        if number == 0:
            parents[0].cancel()

    @flow
    async def parent() -> None:
        await body.map(range(MANY))

    async with Engine() as engine:
        parents = [engine.start(parent)]
        assert (await parents[0].join()).is_cancelled()
        assert engine.statistics().live_runs == 0
    assert 0 < len(begun) <= 2 * RUNS_A_TURN


async def test_live_runs_do_not_hold_up_others() -> None:
    """The limit is on how many start in a turn, not on how many are live."""
    everybody = anyio.Event()
    live = 0

    @task
    async def body() -> None:
        nonlocal live
        live += 1
        if live == MANY:
            everybody.set()
        await everybody.wait()

    async with Engine():
        for handle in [body.submit() for _ in range(MANY)]:
            await handle


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("turns", range(4))
async def test_a_task_cancelled_before_its_first_step_is_no_lost_run(
    begun: list[int], turns: int
) -> None:
    """Nothing of such a task is executed, and its run is Cancelled all the same."""

    @task
    async def body() -> None:
        begun.append(1)
        await anyio.sleep_forever()

    async with Engine():
        before = asyncio.all_tasks()
        handle = body.submit()
        (started,) = asyncio.all_tasks() - before
        for _ in range(turns):
            await asyncio.sleep(0)
        started.cancel()
        state = await handle.join()
    assert (state.name, state.cause) == ("Cancelled", "host")
    assert bool(begun) == (turns > 0)
    with pytest.raises(CancelledRun):
        await handle
