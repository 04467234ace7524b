"""Races between threads, each in the one order of events that used to go wrong.

What has to happen in the middle of something is done there, by another thread, for
which the first one waits. So nothing depends on the system's scheduler.
"""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import anyio
import pytest
import trio
from structlog.testing import capture_logs
from support import Way, in_every_way

from engine import Engine, RunHandle, Task, flow, task
from engine.actors import body, run
from engine.actors.flights import Flights
from engine.actors.hook import HookActor
from engine.actors.run import RunActor
from engine.exceptions import CancelledRun, EngineNotRunningError
from engine.executors.background import BackgroundLoop
from engine.runtime import task_run

SECONDS = 10
"""How long a test waits for a thread before it fails."""

Act = Callable[[Any], object]


def begin(act: Callable[[], object]) -> threading.Thread:
    """Have another thread do something, which does not outlive the tests."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def finish(thread: threading.Thread) -> None:
    """Wait until a thread has done what it has to."""
    thread.join(SECONDS)
    assert not thread.is_alive()


def elsewhere(act: Callable[[], object]) -> None:
    """Do something in another thread, and wait until it is done."""
    finish(begin(act))


def pass_block(way: Way, engine: Engine, act: Callable[[], object]) -> None:
    """Do something in an engine's block, and leave it."""

    async def main() -> None:
        async with engine:
            act()

    if way.is_async:
        way.call(main)
    else:
        with engine:
            act()


class Interposer:
    """Has something done in the middle of the engine, with a call's first argument."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def before(self, owner: Any, name: str, act: Act) -> None:
        """Have it done when a function is called."""
        function = getattr(owner, name)

        def call(first: Any, *rest: Any) -> Any:
            act(first)
            return function(first, *rest)

        self._patch.setattr(owner, name, call)

    def after(self, owner: Any, name: str, act: Act) -> None:
        """Have it done when a function has returned."""
        function = getattr(owner, name)

        def call(first: Any, *rest: Any) -> Any:
            result = function(first, *rest)
            act(first)
            return result

        self._patch.setattr(owner, name, call)


@pytest.fixture
def interpose(monkeypatch: pytest.MonkeyPatch) -> Interposer:
    return Interposer(monkeypatch)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


@task
async def sleeps() -> None:
    await anyio.sleep_forever()


@task
def returns() -> int:
    return 1


class TestNewRuns:
    """A run is made, while another thread ends what it would belong to."""

    @pytest.mark.parametrize("start", [Task.submit, Task.__call__])
    def test_a_parent_that_has_ended_gets_no_child(
        self, start: Callable[..., Any], interpose: Interposer
    ) -> None:
        """Cancelled while it starts one, it is refused, and nothing outlives it."""
        begun: list[None] = []
        refusals: list[CancelledRun] = []
        is_over = threading.Event()

        @task
        def child() -> None:
            begun.append(None)

        @flow
        def parent() -> None:
            try:
                start(child)
            except CancelledRun as refusal:
                refusals.append(refusal)
            finally:
                is_over.set()

        def stop_parent(new: Any) -> None:
            if new.definition is child:
                elsewhere(RunHandle(new.parent).cancel)

        interpose.before(RunActor, "announce", stop_parent)
        with Engine() as engine:
            assert engine.start(parent).wait(SECONDS).is_cancelled()
            assert is_over.wait(SECONDS)
        assert [refusal.cause for refusal in refusals] == ["user"]
        assert not begun

    @in_every_way
    def test_an_engine_that_has_closed_gets_no_run(
        self, way: Way, interpose: Interposer
    ) -> None:
        """A thread that starts one meanwhile is told, and has no handle to wait for."""
        engine, handles = Engine(), list[RunHandle[None]]()
        is_starting, is_closed = threading.Event(), threading.Event()
        refusals: list[EngineNotRunningError] = []

        def hold_up(_: RunActor) -> None:
            is_starting.set()
            assert is_closed.wait(SECONDS)

        def start() -> None:
            try:
                handles.append(engine.start(sleeps))
            except EngineNotRunningError as refusal:
                refusals.append(refusal)

        interpose.before(RunActor, "announce", hold_up)
        thread = threading.Thread(target=start, daemon=True)

        def begin_to_start() -> None:
            thread.start()
            assert is_starting.wait(SECONDS)

        pass_block(way, engine, begin_to_start)
        is_closed.set()
        finish(thread)
        assert not handles
        assert [refusal.condition for refusal in refusals] == ["is closed"]

    @in_every_way
    def test_a_hook_starts_no_run_that_outlives_the_engine(
        self, way: Way, interpose: Interposer
    ) -> None:
        """While an engine waits for nothing but hooks, they may call, not submit."""
        runs_are_over = threading.Event()
        outcomes: list[Any] = []

        def hook(*_: object) -> None:
            assert runs_are_over.wait(SECONDS)
            outcomes.append(returns())
            try:
                outcomes.append(sleeps.submit())
            except EngineNotRunningError as refusal:
                outcomes.append(refusal.condition)

        interpose.before(HookActor, "subscribe_idle", lambda _: runs_are_over.set())
        engine = Engine(shutdown_grace=0)
        waits = sleeps.with_options(on_cancellation=[hook])
        pass_block(way, engine, lambda: engine.start(waits))
        assert outcomes == [1, "is shutting down"]
        assert engine.statistics().live_runs == 0

    def test_a_run_has_one_name(
        self, interpose: Interposer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two threads that ask for it first, at once, get the same."""
        names: list[str] = []
        numbers = iter(range(10))

        def make_up() -> str:
            number = next(numbers)
            # Who makes one up with the lock held keeps the others out already.
            if not number and not engine.lock._is_owned():
                elsewhere(ask)
            return f"name-{number}"

        def ask() -> None:
            names.append(handle.name)

        monkeypatch.setattr(run, "two_words", make_up)
        with Engine() as engine:
            handle = engine.start(flow(returns.fn))
            ask()
            elsewhere(ask)
        assert len(set(names)) == 1


class TestCancelling:
    """Another thread cancels a run that is about to go on."""

    async def test_a_run_that_is_about_to_retry(self, interpose: Interposer) -> None:
        """It is cancelled by who has asked for that, whatever it was doing."""

        @task(retries=1, retry_delay_seconds=60)
        async def fails() -> None:
            raise OSError

        def cancel(failed: RunActor) -> None:
            elsewhere(RunHandle(failed).cancel)

        interpose.before(body, "back_off", cancel)
        async with Engine() as engine:
            with anyio.fail_after(SECONDS):
                state = await engine.start(fails).join()
        assert (state.name, state.cause) == ("Cancelled", "user")

    def test_a_host_that_is_cancelled_too(self) -> None:
        """Its own cancellation came first, and goes on in the host."""

        async def main() -> None:
            begun = asyncio.Event()

            @task
            async def waits() -> None:
                begun.set()
                await anyio.sleep_forever()

            async def call() -> None:
                await waits()

            async with Engine() as engine:
                host = asyncio.create_task(call())
                await begun.wait()
                host.cancel()
                elsewhere(engine.handles()[0].cancel)
                with pytest.raises(asyncio.CancelledError):
                    await host

        asyncio.run(main())

    @pytest.mark.parametrize("limit", [None, 2])
    def test_a_run_that_waited_for_the_result_of_another(
        self,
        limit: int | None,
        go_on: threading.Event,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Its body does not begin, and its call comes back, limited or not."""
        begun, states = list[None](), list[Any]()
        is_flying = threading.Event()
        wait = Flights.wait

        @task(cache_key_fn=lambda *_: "waited for by another")
        def kept() -> None:
            begun.append(None)
            is_flying.set()
            go_on.wait(SECONDS)
            raise OSError

        async def wait_and_cancel(
            flights: Flights, place: Any, waiter: RunActor, on: Any
        ) -> None:
            go_on.set()
            await wait(flights, place, waiter, on)
            elsewhere(RunHandle(waiter).cancel)

        monkeypatch.setattr(Flights, "wait", wait_and_cancel)
        with Engine(max_concurrency=limit) as engine:
            engine.start(kept)
            assert is_flying.wait(SECONDS)
            finish(begin(lambda: states.append(kept(return_state=True))))
        assert [state.name for state in states] == ["Cancelled"]
        assert len(begun) == 1

    def test_a_run_in_place_that_gets_a_place(self, interpose: Interposer) -> None:
        """Cancelled just before it gets one of the engine's limit, it keeps none."""
        cancelled = returns.with_options(name="cancelled")

        def cancel(new: RunActor) -> None:
            if new.definition is cancelled:
                elsewhere(RunHandle(new).cancel)

        interpose.after(RunActor, "announce", cancel)
        with Engine(max_concurrency=1, shutdown_grace=0) as engine:
            assert cancelled(return_state=True).is_cancelled()
            assert engine.start(returns).result(SECONDS) == 1


async def test_a_retry_passes_its_turn_on() -> None:
    """It waits for room in a buffer and then publishes nothing: the next one may go."""
    may_fail, may_end = anyio.Event(), anyio.Event()

    @task(retries=1)
    async def fails_once() -> None:
        await may_fail.wait()
        if task_run.run_count == 1:
            raise OSError
        await may_end.wait()

    @task
    async def helps() -> None:
        may_end.set()

    async with Engine(shutdown_grace=0) as engine:
        handle = engine.start(fails_once)
        await anyio.wait_all_tasks_blocked()
        async with engine.subscribe(buffer=1) as transitions:
            for act in (may_fail.set, lambda: engine.start(helps)):
                act()
                await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(SECONDS):
                async for transition in transitions:
                    if transition.run.id == handle.id and transition.state.is_final():
                        break
    assert handle.state.is_completed()


@pytest.mark.parametrize("has_loops", [False, True])
def test_trio_may_be_half_imported(
    has_loops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another thread imports it for the first time, calls and runs go on."""
    half = ModuleType("trio")
    if has_loops:
        half.lowlevel = trio.lowlevel  # type: ignore[attr-defined]

    @task
    def fails() -> None:
        raise OSError

    monkeypatch.setitem(sys.modules, "trio", half)
    with Engine() as engine:
        assert returns() == 1
        assert engine.start(returns).result(SECONDS) == 1
        assert fails(return_state=True).is_failed()
        assert engine.start(fails).wait(SECONDS).is_failed()


def test_a_loop_whose_start_was_interrupted_is_stopped(interpose: Interposer) -> None:
    """Ctrl-C comes when its thread is there and nobody has taken note of it."""
    before = set(threading.enumerate())
    interpose.after(
        BackgroundLoop, "start", lambda _: signal.raise_signal(signal.SIGINT)
    )
    with Engine(shutdown_grace=0) as engine:
        with pytest.raises(KeyboardInterrupt):
            engine.start(sleeps)
        threads = set(threading.enumerate()) - before
        (loop,) = (thread for thread in threads if thread.name == "engine-loop")
    finish(loop)
