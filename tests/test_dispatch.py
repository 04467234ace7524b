"""Dispatchers: a held loop never deadlocks, and each gets back what is its own."""

import asyncio
import itertools
import threading
from collections.abc import Iterator
from contextvars import Context, copy_context
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio
from structlog.testing import capture_logs

from engine import Engine, flow, task
from engine.actors.broadcast import Buffer
from engine.exceptions import BlockingCallError, CancelledRun

SECONDS = 10
"""How long a test waits for another thread before it fails."""


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield lines


@task
def double(x: int) -> int:
    return 2 * x


@task
async def double_async(x: int) -> int:
    await anyio.lowlevel.checkpoint()
    return 2 * x


@flow
def held(depth: int) -> int:
    """Hold the loop's thread and wait for what has to run elsewhere."""
    value = double.submit(1).result() + double_async.submit(1).result()
    return value + (hold_again.submit(depth - 1).result() if depth else 0)


@task
async def hold_again(depth: int) -> int:
    return held(depth)


class TestAHeldLoop:
    @pytest.mark.parametrize("depth", [0, 1, 3])
    async def test_it_waits_for_what_runs_elsewhere(self, depth: int) -> None:
        """A sync flow on the loop's thread gets its tasks' results, however nested."""
        async with Engine():
            assert held(depth) == 4 * (depth + 1)

    async def test_its_end_waits_for_what_it_left(self) -> None:
        """Tasks that a held flow submitted and did not wait for end before it."""
        ended: list[int] = []

        @task
        async def child(x: int) -> None:
            await anyio.lowlevel.checkpoint()
            ended.append(x)

        @flow
        def parent() -> None:
            child.map([1, 2, 3])

        async with Engine():
            parent()
            assert sorted(ended) == [1, 2, 3]

    async def test_without_an_engine_it_works_as_well(self) -> None:
        """An engine opened for one call on a loop's thread has its loop elsewhere."""
        assert held(1) == 8

    async def test_sync_hooks_run_in_place_and_async_ones_elsewhere(self) -> None:
        """The async hooks of a run that holds the loop are served by another loop."""
        threads: list[threading.Thread] = []

        def hook(*_: Any) -> None:
            threads.append(threading.current_thread())

        async def async_hook(*_: Any) -> None:
            await anyio.lowlevel.checkpoint()
            hook()

        fn = held.with_options(on_running=[hook, async_hook], on_completion=[hook])
        async with Engine():
            assert fn(0) == 4
        here = threading.current_thread()
        assert [thread is here for thread in threads] == [True, False, True]

    async def test_holding_it_for_long_is_worth_a_warning(
        self, logs: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The outermost call that held the loop is named, and no other."""
        monkeypatch.setattr("engine.placement.LOOP_HELD_SECONDS", -1.0)

        @flow
        def outer() -> int:
            return double(1)

        async with Engine():
            outer()
        (line,) = [line for line in logs if line["event"] == "event_loop_held"]
        assert "outer" in line["hint"]


class TestBlocking:
    async def test_waiting_for_its_own_loop_is_refused(self) -> None:
        """On the loop's thread a blocking call says `await` instead of hanging."""
        async with Engine():
            handle = double_async.submit(1)
            for call in (handle.result, handle.wait):
                with pytest.raises(BlockingCallError, match="'await' the handle"):
                    call()
            assert await handle == 2

    async def test_what_a_threads_run_leaves_on_the_loop_must_not_wait(self) -> None:
        """A callback has the context of a run that may block, and not its thread."""
        contexts: list[Context] = []

        @task
        def leave() -> None:
            contexts.append(copy_context())

        async with Engine():
            await leave.submit()
            handle = double_async.submit(1)
            with pytest.raises(BlockingCallError):
                contexts[0].run(handle.wait)
            assert await handle == 2

    async def test_what_has_ended_needs_no_waiting(self) -> None:
        """After the end the blocking calls give the result anywhere."""
        async with Engine():
            handle = double_async.submit(1)
            await handle
            assert handle.result() == 2
            assert handle.wait().is_completed()


def schedules() -> Iterator[list[str]]:
    """Give every order of events, with up to three turns of the loop between them.

    C cancels the run, H cancels the task that awaits it, E ends its body.
    """
    for events in ("C", "CE", "CH", "CEH", "H", "HE"):
        for order in itertools.permutations(events):
            for gaps in itertools.product(range(4), repeat=len(order) - 1):
                turns = [order[0]]
                for gap, event in zip(gaps, order[1:], strict=True):
                    turns += [""] * gap
                    if gap:
                        turns[-1] = event
                    else:
                        turns[-1] += event
                yield turns


class Interleaving:
    """One run in place, in a task of its own, and what becomes of both."""

    def __init__(self, reaction: str) -> None:
        self.reaction = reaction
        self.began, self.go_on = asyncio.Event(), asyncio.Event()
        self.host_was_cancelled = self.body_saw_it = False
        self.outcomes: list[str] = []
        self.requests_left = 0

    async def body(self) -> str:
        self.began.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.body_saw_it = self.host_was_cancelled
            if self.reaction == "raises":
                raise ValueError from None
            if self.reaction == "propagates":
                raise
        return "value"

    async def host(self) -> None:
        for step in (flow(self.body), lambda: asyncio.sleep(0)):
            try:
                await step()
            except asyncio.CancelledError:
                self.outcomes.append("cancelled")
            except (ValueError, CancelledRun) as error:
                self.outcomes.append(type(error).__name__)
        current = asyncio.current_task()
        assert current is not None
        self.requests_left = current.cancelling()

    async def run(self, turns: list[str]) -> None:
        async with Engine() as engine:
            host = asyncio.create_task(self.host())
            await self.began.wait()
            (handle,) = engine.handles()
            for turn in turns:
                for event in turn:
                    if event == "C":
                        handle.cancel()
                    elif event == "H":
                        self.host_was_cancelled |= host.cancel()
                    else:
                        self.go_on.set()
                await asyncio.sleep(0)
            await host
            await handle.join()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("reaction", ["propagates", "raises", "swallows"])
async def test_interruptions_of_a_run_and_of_its_host_are_told_apart(
    reaction: str,
) -> None:
    """In any order, a host keeps its own cancellation and never gets the run's."""
    for turns in schedules():
        case = Interleaving(reaction)
        await case.run(turns)
        assert case.requests_left == case.host_was_cancelled, turns
        if not case.host_was_cancelled:
            assert "cancelled" not in case.outcomes, turns
        elif not case.body_saw_it or reaction == "propagates":
            assert "cancelled" in case.outcomes, turns


async def test_a_cancelled_run_in_place_leaves_its_host_alone() -> None:
    """On both loops the caller gets CancelledRun and may go on awaiting."""
    began = anyio.Event()

    @flow
    async def fn() -> None:
        began.set()
        await anyio.sleep_forever()

    async def host() -> None:
        with pytest.raises(CancelledRun):
            await fn()
        await anyio.lowlevel.checkpoint()
        went_on.append(True)

    went_on: list[bool] = []
    async with Engine() as engine, anyio.create_task_group() as group:
        group.start_soon(host)
        await began.wait()
        engine.handles()[0].cancel()
    assert went_on == [True]


def test_ctrl_c_on_trio_leaves_no_transition_half_done() -> None:
    """Trio raises it at a checkpoint, not amid a run's steps; bodies are not kept."""
    protected: list[bool] = []

    class Witness(Buffer):
        def put(self, entry: Any) -> None:
            protected.append(trio.lowlevel.currently_ki_protected())

    @task
    async def body() -> bool:
        return trio.lowlevel.currently_ki_protected()

    @flow
    async def parent() -> list[bool]:
        return [await body.submit(), await body()]

    async def main() -> list[bool]:
        async with Engine() as engine:
            engine.broadcast.attach(Witness(engine.broadcast, 1, "fail"))
            return await parent()

    assert trio.run(main) == [False, False]
    assert len(protected) == 9
    assert all(protected)


@pytest.mark.parametrize("timed", [False, True])
async def test_what_a_thread_asks_of_a_loop_after_its_engine_closed(
    timed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child's start or a timer that comes too late is dropped, and harms nobody."""
    is_late, closed = anyio.Event(), threading.Event()
    main = threading.get_ident()

    @task
    async def child() -> None: ...

    @flow(timeout_seconds=60 if timed else None)
    def parent() -> None:
        child.submit()

    async with Engine() as engine:
        home = engine.loops.home
        assert home is not None
        call_soon = home.call_soon

        def late(*call: Any) -> None:
            if threading.get_ident() != main and not closed.is_set():
                call_soon(is_late.set)
                assert closed.wait(10)
            call_soon(*call)

        monkeypatch.setattr(type(home), "call_soon", lambda _, *call: late(*call))
        handle = engine.start(parent)
        await is_late.wait()
        handle.cancel()
        await handle.join()
    closed.set()
    await anyio.to_thread.run_sync(engine.threads.close)
    await anyio.wait_all_tasks_blocked()
    assert handle.state.is_cancelled()
    assert engine.statistics().live_runs == 0
