"""The engine: which one a call uses, what it tells, and how it opens and closes."""

import contextvars
import math
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from types import FrameType
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import structlog.testing
from support import Way, in_virtual_time, output_of

from engine import Engine, Gap, RunHandle, State, StateType, flow, runtime, task
from engine.exceptions import (
    CancelledRun,
    CrashedRun,
    EngineLoopError,
    EngineNotRunningError,
    NoEngineError,
    SubscriberOverflow,
)


@task
def double(x: int) -> int:
    return 2 * x


@task
async def triple(x: int) -> int:
    await anyio.lowlevel.checkpoint()
    return 3 * x


@task
async def forever() -> None:
    await anyio.sleep_forever()


@flow
def inner() -> int:
    return double(1)


@flow
async def inner_async() -> int:
    return await triple(1)


def names(engine: Engine) -> list[str]:
    """Return the names of the flows and tasks that ended in an engine."""
    return [record.definition_name for record in engine.runs()]  # type: ignore[union-attr]


class TestWhichEngine:
    async def test_the_one_that_is_given(self) -> None:
        """engine.run and engine.start use their engine, and so does all below."""
        async with Engine() as one, Engine() as other:
            assert await one.run(inner_async) == 3
            assert await one.start(inner) == 2
            assert sorted(names(one)) == ["double", "inner", "inner-async", "triple"]
            assert names(other) == []

    async def test_else_the_one_of_the_current_run(self) -> None:
        """What a body calls belongs to its run's engine, also in another's block."""

        @flow
        async def body() -> None:
            async with Engine() as mine:
                double(1)
                await triple.submit(1)
            assert names(mine) == []

        async with Engine() as engine:
            await body()
            assert sorted(names(engine)) == ["body", "double", "triple"]

    async def test_else_the_one_whose_block_it_is_in(self) -> None:
        """The innermost block counts, and after it the one around it."""
        async with Engine() as outer:
            inner()
            async with Engine() as within:
                inner()
                await inner_async()
            inner()
        assert names(outer) == ["double", "inner"] * 2
        assert names(within) == ["double", "inner", "triple", "inner-async"]

    async def test_else_the_only_one_that_is_entered(self) -> None:
        """Code without the block's context variables finds the only engine there is."""
        async with Engine() as engine:
            contextvars.Context().run(inner)
            assert names(engine) == ["double", "inner"]
            await anyio.to_thread.run_sync(lambda: contextvars.Context().run(inner))
            assert names(engine) == ["double", "inner"] * 2

    async def test_else_one_for_the_length_of_the_call(self) -> None:
        """With several to choose from, or none, a call has one of its own."""
        async with Engine() as one, Engine() as other:
            assert contextvars.Context().run(inner) == 2
            assert names(one) == names(other) == []
            with pytest.raises(NoEngineError):
                contextvars.Context().run(double.submit, 1)
        assert inner() == 2
        assert await inner_async() == 3

    async def test_an_engine_that_is_closed_is_not_found(self) -> None:
        """A context that remembers a closed engine goes on without it."""
        async with Engine() as engine:
            context = contextvars.copy_context()
        assert context.run(inner) == 2
        assert names(engine) == []
        with pytest.raises(NoEngineError):
            context.run(double.submit, 1)

    async def test_an_engine_for_one_call_is_found_by_nobody_else(self) -> None:
        """What runs beside such a call does not become a part of it."""
        entered, opened = threading.Event(), threading.Event()

        @flow
        def body() -> None:
            entered.set()
            assert opened.wait(10)

        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, body)
            await anyio.to_thread.run_sync(entered.wait)
            with pytest.raises(NoEngineError):
                double.submit(1)
            opened.set()

    async def test_an_engine_of_another_loop_is_not_used(self) -> None:
        """The only engine is no use to an async call on a loop that is not its own."""

        def elsewhere() -> int:
            return contextvars.Context().run(anyio.run, inner_async)

        async with Engine() as engine:
            assert await anyio.to_thread.run_sync(elsewhere) == 3
            assert names(engine) == []

    async def test_engines_do_not_share_ids(self) -> None:
        """Two engines number their runs apart."""
        async with Engine() as one, Engine() as other:
            ids = [engine.start(double, 1).id for engine in (one, other) * 3]
        assert len(set(ids)) == 6

    async def test_many_engines_work_side_by_side(self) -> None:
        """Each task of a service may have an engine of its own."""
        totals = []

        async def serve(x: int) -> None:
            async with Engine() as engine:
                handles = [triple.submit(x) for _ in range(5)]
                totals.append(sum([await handle for handle in handles]))
                assert len(engine.runs()) == 5

        async with anyio.create_task_group() as group:
            for x in range(10):
                group.start_soon(serve, x)
        assert sorted(totals) == [15 * x for x in range(10)]


class TestRun:
    async def test_it_gives_the_value(self) -> None:
        """Of flows and tasks, sync and async."""
        async with Engine() as engine:
            assert await engine.run(inner) == 2
            assert await engine.run(inner_async) == 3
            assert await engine.run(double, x=4) == 8
            assert await engine.run(triple, 4) == 12

    async def test_sync_bodies_leave_the_loop_free(self) -> None:
        """A sync flow runs in a worker thread."""
        thread = flow(lambda: threading.get_ident())
        async with Engine() as engine:
            assert await engine.run(thread) != threading.get_ident()

    async def test_it_raises_the_error(self) -> None:
        """The object that the body raised."""
        error = LookupError("mine")

        @flow
        def body() -> None:
            raise error

        async with Engine() as engine:
            with pytest.raises(LookupError) as caught:
                await engine.run(body)
        assert caught.value is error

    @pytest.mark.parametrize("kind", ["sync", "async"])
    async def test_it_follows_its_caller(self, kind: str) -> None:
        """A caller that is cancelled cancels the run, and the cancellation goes on."""
        entered, release = threading.Event(), threading.Event()

        @flow
        def blocked() -> None:
            entered.set()
            release.wait(10)

        @flow
        async def waiting() -> None:
            entered.set()
            await anyio.sleep_forever()

        body: Any = blocked if kind == "sync" else waiting
        async with Engine() as engine:
            async with anyio.create_task_group() as group:
                group.start_soon(engine.run, body)
                await anyio.wait_all_tasks_blocked()
                await anyio.to_thread.run_sync(entered.wait)
                group.cancel_scope.cancel()
            [record] = engine.runs()
            assert (record.state_name, record.cause) == ("Cancelled", "host")  # type: ignore[union-attr]
            release.set()

    async def test_a_started_run_outlives_its_caller(self) -> None:
        """The engine owns what is started, whoever started it."""
        handles: list[RunHandle[None]] = []

        async def caller() -> None:
            handles.append(engine.start(forever))
            await anyio.sleep_forever()

        async with Engine() as engine:
            async with anyio.create_task_group() as group:
                group.start_soon(caller)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
            assert handles[0].state.is_running()
            handles[0].cancel()

    async def test_starting_works_from_any_thread(self) -> None:
        """A plain thread can start an async run on the engine's loop."""
        async with Engine() as engine:
            start: Callable[[], RunHandle[int]] = lambda: engine.start(triple, 1)  # noqa: E731
            handle = await anyio.to_thread.run_sync(start)
            assert await handle == 3

    async def test_a_started_run_is_at_the_top(self) -> None:
        """Also when a flow starts it."""

        @flow
        async def body() -> RunHandle[int]:
            handle = engine.start(double, 1)
            await handle
            return handle

        async with Engine() as engine:
            state = await body(return_state=True)
            record = engine.runs(name="double")[0]
        assert record.parent_run_id is None
        assert state.is_completed()


class TestSyncBlock:
    def test_sync_code_can_have_an_engine(self) -> None:
        """A with block serves calls and submissions of both kinds."""
        with Engine() as engine:
            assert inner() == 2
            handles = [double.submit(1), triple.submit(1), engine.start(inner_async)]
            assert [handle.result() for handle in handles] == [2, 3, 3]
        assert engine.shutdown_report is not None
        assert sorted(names(engine)) == [
            "double", "double", "inner", "inner-async", "triple", "triple",
        ]  # fmt: skip

    def test_it_waits_for_what_was_started(self) -> None:
        """Leaving the block drains it."""
        ended = []
        with Engine() as engine:
            slow = task(on_completion=[lambda *_: ended.append(1)])(lambda: None)
            slow.submit()
        assert ended == [1]
        assert names(engine) == ["<lambda>"] or names(engine) == ["unknown-lambda"]

    def test_leaving_by_an_error_cancels(self) -> None:
        """What is live is cancelled with cause shutdown, and the error goes on."""
        handles = []

        def block() -> None:
            with Engine(shutdown_grace=3600) as engine:
                handles.append(engine.start(forever))
                raise LookupError

        with pytest.raises(LookupError):
            block()
        [handle] = handles
        assert (handle.state.name, handle.state.cause) == ("Cancelled", "shutdown")

    def test_it_leaves_no_thread(self) -> None:
        """Worker threads and the background loop end with the block."""
        before = set(threading.enumerate())
        with Engine():
            double.submit(1).result()
            triple.submit(1).result()
            mine = set(threading.enumerate()) - before
            assert len(mine) >= 2
        for thread in mine:
            thread.join(5)
        assert set(threading.enumerate()) <= before

    async def test_it_is_refused_on_a_loop(self) -> None:
        """On an event loop the block has to be an async one."""
        with pytest.raises(EngineLoopError, match=r"async with"), Engine():
            pass


class TestWrongUse:
    def test_before_it_is_entered(self) -> None:
        """Starting a run needs an open block."""
        with pytest.raises(EngineNotRunningError, match=r"has not been entered.*with"):
            Engine().start(double, 1)

    async def test_running_before_it_is_entered(self) -> None:
        """The same when the run is awaited."""
        engine = Engine()
        for fn in (inner, inner_async):
            with pytest.raises(EngineNotRunningError, match="has not been entered"):
                await engine.run(fn)

    async def test_after_it_closed(self) -> None:
        """A closed engine takes no runs, and still tells what it knows."""
        async with Engine() as engine:
            double.submit(1)
        with pytest.raises(EngineNotRunningError, match="is closed"):
            engine.start(double, 1)
        with pytest.raises(RuntimeError, match="is closed"):
            await engine.run(triple, 1)
        assert engine.statistics().ended_runs == 1
        assert names(engine) == ["double"]

    async def test_entering_it_twice(self) -> None:
        """Each engine is entered once, in sequence or nested."""
        async with Engine() as engine:
            with pytest.raises(EngineNotRunningError, match="cannot be entered again"):
                async with engine:
                    pass
            assert await engine.start(double, 1) == 2
        with pytest.raises(EngineNotRunningError, match="is closed and cannot be"):
            async with engine:
                pass
        with pytest.raises(EngineNotRunningError):
            await anyio.to_thread.run_sync(engine.__enter__)

    async def test_from_another_loop(self) -> None:
        """engine.run awaits in the caller's task, which has to be on its loop."""

        async def elsewhere() -> None:
            with pytest.raises(EngineLoopError, match="another event loop"):
                await engine.run(triple, 1)

        async with Engine() as engine:
            await anyio.to_thread.run_sync(anyio.run, elsewhere)
            assert engine.runs() == []

    async def test_starting_from_another_loop(self) -> None:
        """engine.start only sends the run to its engine, from wherever it is called."""

        async def elsewhere() -> int:
            return await engine.start(triple, 1)

        async with Engine() as engine:
            assert await anyio.to_thread.run_sync(anyio.run, elsewhere) == 3

    def test_after_a_fork(self) -> None:
        """A forked child is told to make an engine of its own, which works there."""
        lines = output_of(FORKED)
        assert lines == ["EngineForkedError", "NoEngineError", "2", "2", "child 0", "2"]

    async def test_things_that_are_no_flows(self) -> None:
        """Running a plain function says to decorate it."""
        async with Engine() as engine:
            with pytest.raises(TypeError, match=r"start\(\) takes a flow or a task.*"):
                engine.start(len, [])  # type: ignore[call-overload]
            with pytest.raises(TypeError, match="'len': decorate it with @flow"):
                await engine.run(len, [])  # type: ignore[call-overload]

    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            ({"max_concurrency": 0}, ValueError, "max_concurrency must be >= 1, got 0"),
            ({"max_concurrency": 1.5}, TypeError, "max_concurrency must be a whole"),
            ({"max_concurrency": True}, TypeError, "max_concurrency must be a whole"),
            ({"hook_concurrency": 0}, ValueError, "hook_concurrency must be >= 1"),
            ({"hook_timeout": 0}, ValueError, "hook_timeout must be > 0 seconds"),
            ({"hook_timeout": float("nan")}, ValueError, "hook_timeout must be > 0"),
            ({"hook_timeout": "1"}, TypeError, "hook_timeout must be a number of"),
            ({"shutdown_grace": -1}, ValueError, "shutdown_grace must be >= 0 seconds"),
            ({"shutdown_grace": math.inf}, ValueError, "0 seconds and finite, got inf"),
            ({"history": -1}, ValueError, "history must be >= 0, got -1"),
            ({"on_transition": [1]}, TypeError, "not a callable"),
            ({"on_transition": [lambda: 1]}, TypeError, "1 positional argument, but"),
            ({"on_transition": print}, TypeError, "it takes a list of hooks, got b"),
            ({"on_transition": "ab"}, TypeError, "it takes a list of hooks, got str"),
        ],
    )
    def test_bad_options(
        self, options: dict[str, Any], error: type[Exception], text: str
    ) -> None:
        """They are refused when the engine is made."""
        with pytest.raises(error, match=text):
            Engine(**options)

    def test_a_builtin_can_be_a_flow(self) -> None:
        """A function whose signature nobody knows takes what it is called with."""
        assert flow(threading.get_ident)() == threading.get_ident()
        assert task(max)(1, 3, 2) == 3

    def test_unknown_options(self) -> None:
        """As Python does it."""
        with pytest.raises(TypeError, match="'max_concurency'"):
            Engine(max_concurency=1)  # type: ignore[call-arg]


FORKED = """
import os
from engine import Engine, flow, task

@task
def double(x): return 2 * x

with Engine() as engine:
    child = os.fork()
    if not child:
        for call in (lambda: engine.start(double, 1), lambda: double.submit(1)):
            try:
                call()
            except RuntimeError as error:
                print(type(error).__name__, flush=True)
        print(double(1), flush=True)
        with Engine():
            print(double.submit(1).result(), flush=True)
        os._exit(0)
    print("child", os.waitpid(child, 0)[1])
    print(double.submit(1).result())
"""


class Stuck:
    """A sync body, or hook, that hangs until the test is over."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()

    def __call__(self, *args: Any) -> None:
        self.entered.set()
        self.released.wait(10)

    async def wait(self) -> None:
        await anyio.to_thread.run_sync(self.entered.wait)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    body = Stuck()
    yield body
    body.released.set()


class TestShutdown:
    async def test_live_runs_get_to_end(self) -> None:
        """Leaving the block waits for what is live; the report counts it."""
        order = []

        @task(on_completion=[lambda *_: order.append("hook")])
        async def slow() -> None:
            await anyio.wait_all_tasks_blocked()
            order.append("body")

        async with Engine() as engine:
            handle = slow.submit()
            assert engine.shutdown_report is None
        order.append("left")
        assert order == ["body", "hook", "left"]
        assert handle.state.is_completed()
        report = engine.shutdown_report
        assert report is not None
        assert (report.drained, report.cancelled, report.abandoned) == (1, 0, 0)
        assert (report.hooks.due, report.hooks.delivered) == (1, 1)
        assert report.abandoned_threads == 0
        assert report.seconds < 5

    @in_virtual_time
    def test_the_grace_ends_it(self, way: Way) -> None:
        """What has not ended by itself is cancelled with cause shutdown, with hooks."""
        causes = []

        async def note(_: Any, run: Any, state: State[Any]) -> None:
            causes.append((run.name, state.cause))

        @task(on_cancellation=[note], task_run_name="child")
        async def child() -> None:
            await anyio.sleep_forever()

        @flow(on_cancellation=[note], flow_run_name="parent")
        async def parent() -> None:
            await child()

        async def main() -> Any:
            async with Engine(shutdown_grace=30) as engine:
                handle = engine.start(parent)
                await anyio.sleep(1)
            assert anyio.current_time() == 31
            with pytest.raises(CancelledRun) as caught:
                await handle
            assert caught.value.cause == "shutdown"
            return engine.shutdown_report

        report = way.call(main)
        assert sorted(causes) == [("child", "parent"), ("parent", "shutdown")]
        assert (report.drained, report.cancelled, report.abandoned) == (0, 2, 0)

    async def test_an_error_in_the_block_cancels_at_once(self) -> None:
        """The error leaves the block as it was, after the runs have stopped."""
        error = LookupError("mine")
        handles = []

        async def block() -> None:
            async with Engine(shutdown_grace=3600) as engine:
                handles.append(engine.start(forever))
                await anyio.wait_all_tasks_blocked()
                raise error

        with pytest.raises(LookupError) as caught:
            await block()
        assert caught.value is error
        [handle] = handles
        assert (handle.state.name, handle.state.cause) == ("Cancelled", "shutdown")

    async def test_a_cancelled_block_cancels_at_once(self) -> None:
        """A service that is told to stop stops its runs, and its scope is left."""
        handles: list[RunHandle[None]] = []
        cleaned = []

        @task(on_cancellation=[lambda *_: cleaned.append("hook")])
        async def tidy() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.lowlevel.checkpoint()
                cleaned.append("body")

        async def service() -> None:
            async with Engine(shutdown_grace=3600) as engine:
                handles.append(engine.start(tidy))
                await anyio.sleep_forever()

        async with anyio.create_task_group() as group:
            group.start_soon(service)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        assert handles[0].state.is_cancelled()
        assert sorted(cleaned) == ["body", "hook"]

    async def test_a_cancellation_while_it_drains_makes_it_hurry(self) -> None:
        """Whoever cancels the shutdown does not sit out its grace."""
        handles: list[RunHandle[None]] = []

        async def service() -> None:
            async with Engine(shutdown_grace=3600) as engine:
                handles.append(engine.start(forever))

        async with anyio.create_task_group() as group:
            group.start_soon(service)
            await anyio.wait_all_tasks_blocked()
            assert handles[0].state.is_running()
            group.cancel_scope.cancel()
        assert handles[0].state.is_cancelled()

    async def test_it_takes_no_new_runs(self) -> None:
        """While it drains, only live runs may start children."""
        errors = []
        engine = Engine()

        @flow
        async def body() -> int:
            await closing.wait()
            try:
                engine.start(double, 1)
            except EngineNotRunningError as error:
                errors.append(str(error))
            return await triple.submit(double(1))

        async def close() -> None:
            await anyio.wait_all_tasks_blocked()
            closing.set()

        closing = anyio.Event()
        async with anyio.create_task_group() as group, engine:
            handle = engine.start(body)
            group.start_soon(close)
        assert await handle == 6
        [text] = errors
        assert "is shutting down" in text

    @in_virtual_time
    def test_a_stuck_thread_does_not_hold_it_up(self, way: Way, stuck: Stuck) -> None:
        """A sync body that hangs is cancelled, left behind, and reported."""
        blocked = task(stuck)

        async def main() -> Any:
            async with Engine(shutdown_grace=30) as engine:
                handle = blocked.submit()
                await stuck.wait()
            assert handle.state.is_cancelled()
            return engine.shutdown_report

        report = way.call(main)
        assert (report.cancelled, report.abandoned_threads) == (1, 1)

    @in_virtual_time
    def test_hung_hooks_do_not_hold_it_up(self, way: Way, stuck: Stuck) -> None:
        """Sync and async hooks that hang time out; the report counts them."""

        async def hang(*_: Any) -> None:
            await anyio.sleep_forever()

        @task(on_running=[stuck], on_completion=[hang])
        async def made() -> None: ...

        async def main() -> Any:
            async with Engine(hook_timeout=20, shutdown_grace=60) as engine:
                handle = made.submit()
                await stuck.wait()
            assert [o.status for o in handle.hook_outcomes] == ["timed_out"] * 2
            return engine.shutdown_report

        with structlog.testing.capture_logs() as logs:
            report = way.call(main)
        hooks = report.hooks
        assert (hooks.due, hooks.timed_out, hooks.waiting) == (2, 2, 0)
        assert report.abandoned_threads == 1
        assert [log["event"] for log in logs] == ["hook_failed"] * 2

    def test_hung_hooks_do_not_hold_up_a_sync_block(self, stuck: Stuck) -> None:
        """In sync code alike."""
        made = task(on_completion=[stuck])(lambda: 1)
        with (
            structlog.testing.capture_logs(),
            Engine(hook_timeout=0.01, shutdown_grace=0.01) as engine,
        ):
            made.submit()
            assert stuck.entered.wait(10)
        report = engine.shutdown_report
        assert report is not None
        assert report.hooks.timed_out + report.hooks.undelivered == 1

    @in_virtual_time
    def test_a_body_that_refuses_to_stop_is_given_up(self, way: Way) -> None:
        """An async body that swallows its cancellation ends Crashed, abandoned."""

        async def main() -> Any:
            stubborn = anyio.Event()

            async def release(*_: Any) -> None:
                stubborn.set()

            @task(on_crashed=[release])
            async def refuse() -> None:
                while not stubborn.is_set():
                    with (
                        suppress(anyio.get_cancelled_exc_class()),
                        anyio.CancelScope(shield=True),
                    ):
                        await stubborn.wait()

            async with Engine(shutdown_grace=30) as engine:
                handle = refuse.submit()
                await anyio.sleep(1)
            assert (handle.state.name, handle.state.cause) == ("Crashed", "abandoned")
            with pytest.raises(CrashedRun, match="did not stop"):
                await handle
            return engine.shutdown_report

        with structlog.testing.capture_logs() as logs:
            report = way.call(main)
        assert (report.cancelled, report.abandoned) == (0, 1)
        assert [log["event"] for log in logs] == ["run_abandoned"]

    @in_virtual_time
    def test_a_parent_that_waits_for_such_a_body_is_not_given_up(
        self, way: Way
    ) -> None:
        """It has stopped: it is Cancelled as soon as its child is out of the way."""

        @task
        async def deaf() -> None:
            for _ in range(2):
                cancelled = anyio.get_cancelled_exc_class()
                with suppress(cancelled), anyio.CancelScope(shield=True):
                    await anyio.sleep(5)

        @flow
        async def parent() -> None:
            deaf.submit()

        async def main() -> Any:
            async with Engine(shutdown_grace=0) as engine:
                handle = engine.start(parent)
                await anyio.sleep(1)
            assert handle.state.name == "Cancelled"
            return engine.shutdown_report

        with structlog.testing.capture_logs() as logs:
            report = way.call(main)
        assert (report.cancelled, report.abandoned) == (1, 1)
        assert [log["event"] for log in logs] == ["run_abandoned"]

    async def test_hooks_owed_add_up(self) -> None:
        """Whatever became of them, each hook that was due is counted once."""

        def fails(*_: Any) -> None:
            raise ValueError

        async def leaves(*_: Any) -> None:
            raise SystemExit

        noted = task(
            on_running=[fails, lambda *_: None],
            on_completion=[leaves],
            on_failure=[lambda *_: None],
        )(lambda x: 1 / x)
        with structlog.testing.capture_logs():
            async with Engine() as engine:
                for x in range(5):
                    noted.submit(x)
        assert engine.shutdown_report is not None
        hooks = engine.shutdown_report.hooks
        assert (hooks.due, hooks.failed, hooks.delivered) == (15, 9, 6)
        assert hooks == engine.statistics().hooks

    async def test_an_empty_engine_closes_at_once(self) -> None:
        """With nothing to do the report is all zeros."""
        async with Engine() as engine:
            pass
        report = engine.shutdown_report
        assert report is not None
        assert (report.drained, report.cancelled, report.hooks.due) == (0, 0, 0)


class TestRunsAndStatistics:
    async def test_live_runs_and_records(self) -> None:
        """runs() gives live runs, parents first, then what ended, oldest first."""

        @flow(name="parent")
        async def parent() -> None:
            await forever()

        async with Engine() as engine:
            await triple.submit(1)
            await double.submit(1)
            handle = engine.start(parent)
            await anyio.wait_all_tasks_blocked()
            live_parent, live_child, *records = engine.runs()
            assert (live_parent.id, live_parent.state_name) == (handle.id, "Running")
            assert live_child.parent_run_id == handle.id
            assert [r.definition_name for r in records] == ["triple", "double"]  # type: ignore[union-attr]
            assert [h.id for h in engine.handles()] == [handle.id, live_child.id]
            handle.cancel()
            await handle.join()
            assert engine.handles() == []
            assert len(engine.runs()) == 4

    async def test_runs_can_be_chosen(self) -> None:
        """By the name of the flow or task, and by the type of the state."""
        async with Engine() as engine:
            await double.submit(1)
            await double.submit("x", 2).join()  # type: ignore[call-arg]
            handle = forever.submit()
            await anyio.wait_all_tasks_blocked()
            assert len(engine.runs(name="double")) == 2
            failed = engine.runs(state_type=StateType.FAILED)
            assert [r.state_type for r in failed] == [StateType.FAILED]
            [running] = engine.runs(state_type=StateType.RUNNING)
            assert running.id == handle.id
            assert engine.runs(name="forever", state_type=StateType.FAILED) == []
            assert repr(engine.runs(state_type="FAILED")) == repr(failed)
            with pytest.raises(ValueError, match="'failed': use one of SCHEDULED"):
                engine.runs(state_type="failed")
            assert engine.runs(name="nobody") == []
            handle.cancel()

    async def test_a_record_tells_how_a_run_ended(self) -> None:
        """Names, state, cause and times; neither arguments nor result."""

        @task(retries=1, task_run_name="named")
        def fail(secret: str) -> None:
            raise ValueError("no")

        async with Engine() as engine:
            handle = fail.submit("secret")
            state = await handle.join()
            [record] = engine.runs()
        assert (record.id, record.kind, record.definition_name, record.name) == (  # type: ignore[union-attr]
            handle.id,
            "task",
            "fail",
            "named",
        )
        assert (record.state_type, record.state_name, record.message) == (  # type: ignore[union-attr]
            state.type,
            "Failed",
            state.message,
        )
        assert (record.cause, record.attempt, record.parent_run_id) == (None, 2, None)  # type: ignore[union-attr]
        assert record.end_time == state.timestamp
        assert 0 <= record.seconds < 5  # type: ignore[union-attr]
        assert repr(record) == f"<RunRecord 'named' id={handle.id} Failed>"
        assert not hasattr(record, "parameters")

    @pytest.mark.parametrize(("history", "kept"), [(0, 0), (3, 3), (1000, 5)])
    async def test_history_is_bounded(self, history: int, kept: int) -> None:
        """Only the last so many records are kept; all are counted."""
        async with Engine(history=history) as engine:
            for x in range(5):
                await double.submit(x)
            assert len(engine.runs()) == kept
            assert engine.statistics().ended_runs == 5

    async def test_statistics(self) -> None:
        """A frozen value that counts runs, transitions, hooks, threads and buffers."""
        noted = double.with_options(on_completion=[lambda *_: None])
        async with Engine() as engine, engine.subscribe(buffer=7) as transitions:
            await noted.submit(1)
            handle = forever.submit()
            await anyio.wait_all_tasks_blocked()
            found = engine.statistics()
            assert (found.live_runs, found.ended_runs) == (1, 1)
            assert found.transitions == 3 + 2
            assert (found.hooks.due, found.hooks.delivered) == (1, 1)
            assert found.threads >= 1
            assert (found.abandoned_threads, found.waiting_runs) == (0, 0)
            [buffer] = found.buffers
            assert buffer == transitions.statistics()
            with pytest.raises(AttributeError):
                found.live_runs = 2  # type: ignore[misc]
            handle.cancel()


class TestSubscribe:
    async def test_it_gives_every_transition_in_order(self) -> None:
        """Numbered without gaps, with both states, until the engine closes."""
        found = []

        async def read() -> None:
            async with engine.subscribe() as transitions:
                ready.set()
                found.extend([t async for t in transitions])

        ready = anyio.Event()
        async with anyio.create_task_group() as group, Engine() as engine:
            group.start_soon(read)
            await ready.wait()
            await inner_async()
        assert [(t.run.name.partition("-")[0], t.state.name) for t in found][2:5] == [
            ("triple", "Pending"),
            ("triple", "Running"),
            ("triple", "Completed"),
        ]
        assert [t.state.name for t in found] == [
            "Pending", "Running", "Pending", "Running", "Completed", "Completed",
        ]  # fmt: skip
        assert [t.sequence for t in found] == [1, 2, 3, 4, 5, 6]
        assert found[1].previous is found[0].state
        assert found[0].previous is None

    async def test_it_begins_now(self) -> None:
        """What happened before is not seen, and after its block nothing is."""
        async with Engine() as engine:
            await double.submit(1)
            async with engine.subscribe() as transitions:
                await double.submit(2)
                first = await anext(transitions)
                assert first.sequence == 4
            with pytest.raises(StopAsyncIteration):
                await anext(transitions)

    async def test_dropping_the_oldest_says_how_many(self) -> None:
        """A reader that is too slow finds a Gap in their place."""
        async with (
            Engine() as engine,
            engine.subscribe(2, overflow="drop_oldest") as transitions,
        ):
            await double.submit(1)
            await double.submit(2)
            gap = await anext(transitions)
            assert isinstance(gap, Gap)
            assert gap.missed == 4
            later = [await anext(transitions), await anext(transitions)]
            assert [t.sequence for t in later] == [5, 6]  # type: ignore[union-attr]

    async def test_a_slow_reader_can_be_cut_off(self) -> None:
        """With overflow="fail" it gets an error, and the runs go on."""
        async with (
            Engine() as engine,
            engine.subscribe(2, overflow="fail") as transitions,
        ):
            await double.submit(1)
            with pytest.raises(SubscriberOverflow, match="more than 2"):
                _ = [t async for t in transitions]
            assert await double.submit(1) == 2

    async def test_runs_wait_for_a_reader_that_must_lose_nothing(self) -> None:
        """By default a full buffer keeps further runs from starting."""
        found = []
        async with Engine() as engine:
            async with engine.subscribe(2) as transitions:
                handles = [triple.submit(x) for x in range(10)]
                await anyio.wait_all_tasks_blocked()
                assert not all(h.state.is_completed() for h in handles)
                while len(found) < 30:
                    found.append(await anext(transitions))
            for handle in handles:
                await handle
        assert [t.sequence for t in found] == list(range(1, 31))

    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            ({"buffer": 0}, ValueError, "buffer must be >= 1, got 0"),
            ({"buffer": "1"}, TypeError, "buffer must be a whole number"),
            ({"overflow": "drop"}, ValueError, "'block', 'drop_oldest' or 'fail'"),
        ],
    )
    async def test_bad_options(
        self, options: dict[str, Any], error: type[Exception], text: str
    ) -> None:
        """They are refused at the call."""
        async with Engine() as engine:
            with pytest.raises(error, match=text):
                engine.subscribe(**options)


class TestConcurrency:
    @pytest.mark.parametrize("kind", ["sync", "async"])
    async def test_no_more_runs_execute_at_once(self, kind: str) -> None:
        """Further ones wait in Pending, and start in their order."""
        lock, opened, opened_async = threading.Lock(), threading.Event(), anyio.Event()
        inside = most = 0
        order = []

        def enter(x: int) -> None:
            nonlocal inside, most
            with lock:
                order.append(x)
                inside += 1
                most = max(most, inside)

        def leave() -> None:
            nonlocal inside
            with lock:
                inside -= 1

        @task
        def body(x: int) -> None:
            enter(x)
            opened.wait(10)
            leave()

        @task
        async def body_async(x: int) -> None:
            enter(x)
            await opened_async.wait()
            await anyio.lowlevel.checkpoint()
            leave()

        made: Any = body if kind == "sync" else body_async
        async with Engine(max_concurrency=3) as engine:
            handles = made.map(range(12))
            assert engine.statistics().waiting_runs == 9
            assert [h.state.name for h in handles[3:]] == ["Pending"] * 9
            opened.set()
            opened_async.set()
            await handles
            assert engine.statistics().waiting_runs == 0
        assert most <= 3
        assert sorted(order) == list(range(12))

    @pytest.mark.parametrize("limit", [1, 2])
    async def test_nested_fan_outs_do_not_deadlock(self, limit: int) -> None:
        """A run that waits for its children gives its place to them, at any depth."""

        @task
        async def tree(depth: int) -> int:
            if not depth:
                return 1
            handles = [tree.submit(depth - 1) for _ in range(3)]
            return sum([await handle for handle in handles])

        @task
        def tree_sync(depth: int) -> int:
            if not depth:
                return 1
            handles = [tree_sync.submit(depth - 1) for _ in range(3)]
            return sum(handle.result() for handle in handles)

        @flow
        async def body() -> list[int]:
            return [await tree.submit(3), await tree_sync.submit(3), await tree(3)]

        async with Engine(max_concurrency=limit) as engine:
            assert await engine.start(body) == [27, 27, 27]
            assert await body() == [27, 27, 27]

    async def test_a_map_in_a_limited_flow_does_not_deadlock(self) -> None:
        """A flow that maps and streams under a limit of one gets all its values."""

        @flow
        async def body() -> tuple[list[int], list[int]]:
            mapped = await triple.map(range(5))
            streamed = [await h async for h in double.stream(range(5), limit=2)]
            return mapped, sorted(streamed)

        async with Engine(max_concurrency=1) as engine:
            assert await engine.start(body) == ([0, 3, 6, 9, 12], [0, 2, 4, 6, 8])

    async def test_a_waiting_run_can_be_cancelled(self) -> None:
        """It ends without ever having had a place, and takes none."""
        async with Engine(max_concurrency=1) as engine:
            first = engine.start(forever)
            second = engine.start(forever)
            third = engine.start(triple, 1)
            await anyio.wait_all_tasks_blocked()
            second.cancel()
            assert (await second.join()).is_cancelled()
            assert third.state.is_pending()
            first.cancel()
            assert await third == 3

    async def test_runs_that_wait_for_upstreams_take_no_place(self) -> None:
        """Under a limit of one, a run can depend on a later one."""

        @task
        async def wait_for_x() -> int:
            return 1

        async with Engine(max_concurrency=1):
            last = triple.submit(triple.submit(wait_for_x.submit()))
            assert await last == 9

    @pytest.mark.parametrize("is_sync", [False, True])
    async def test_nor_do_those_that_are_called_in_place(self, is_sync: bool) -> None:
        """Not before their upstreams have ended, which may need all of the places."""

        @task
        async def total(values: list[int]) -> int:
            return sum(values)

        @task
        def sync_total(values: list[int]) -> int:
            return sum(values)

        @flow
        async def parent() -> int:
            return await total(double.map(range(3)))

        @flow
        def sync_parent() -> int:
            return sync_total(double.map(range(3)))

        async with Engine(max_concurrency=1) as engine:
            with anyio.fail_after(10):
                assert await engine.start(sync_parent if is_sync else parent) == 6

    async def test_a_retrying_run_keeps_its_order(self) -> None:
        """A failed run frees its place for the next."""

        @task(retries=1)
        async def flaky(x: int) -> int:
            if runtime.task_run.attempt == 1:
                raise ValueError
            return x

        async with Engine(max_concurrency=1):
            assert await flaky.map(range(4)) == [0, 1, 2, 3]


class TestEngineHooks:
    async def test_they_see_every_transition(self) -> None:
        """Sync and async ones, with flows' and tasks' runs."""
        seen, seen_async = [], []

        async def note(transition: Any) -> None:
            seen_async.append(transition)

        async with Engine(on_transition=[seen.append, note]) as engine:
            await inner_async()
            await double.submit(1)
        assert sorted(t.sequence for t in seen) == list(range(1, 10))
        assert {t.sequence for t in seen} == {t.sequence for t in seen_async}
        assert engine.statistics().hooks.due == 18

    async def test_their_errors_change_nothing(self) -> None:
        """A hook that raises is logged and counted."""

        def broken(transition: Any) -> None:
            raise ValueError

        with structlog.testing.capture_logs() as logs:
            async with Engine(on_transition=[broken]) as engine:
                assert await triple.submit(1) == 3
        assert engine.statistics().hooks.failed == 3
        assert {log["event"] for log in logs} == {"hook_failed"}


class TestLifespan:
    async def test_a_service_uses_its_lifespans_engine(self) -> None:
        """Request handlers, whose context is another, find the service's engine."""

        @asynccontextmanager
        async def lifespan() -> AsyncIterator[Engine]:
            async with Engine() as engine:
                yield engine

        async def handle_request() -> int:
            return await inner_async()

        async with lifespan() as engine:
            values = []

            async def serve() -> None:
                values.append(await handle_request())

            async with anyio.create_task_group() as group:
                for _ in range(3):
                    contextvars.Context().run(group.start_soon, serve)
            assert values == [3, 3, 3]
            assert len(engine.runs(name="inner-async")) == 3

    async def test_it_can_be_closed_in_another_context(self) -> None:
        """Entering in one task's context and leaving in another's works."""
        engine = Engine()
        context = contextvars.copy_context()
        context.run(lambda: None)
        await engine.__aenter__()
        assert await engine.start(double, 1) == 2
        await engine.__aexit__(None, None, None)
        assert inner() == 2


IMPORTED = """
import logging, signal, sys, threading
given = set(sys.modules)  # a tool that watches the tests may be there
handlers = {s: signal.getsignal(s) for s in signal.valid_signals()}
root = logging.getLogger()
before = (list(root.handlers), root.level, logging.raiseExceptions)
import engine
import engine.runtime, engine.states, engine.exceptions
assert threading.active_count() == 1
assert {s: signal.getsignal(s) for s in signal.valid_signals()} == handlers
assert (list(root.handlers), root.level, logging.raiseExceptions) == before
import structlog
assert not structlog.is_configured()
print(sorted({"trio", "pydantic", "fastapi", "cryptography", "apprise", "httpx2",
    "sqlite3", "rich", "uvicorn"} & (set(sys.modules) - given)))
"""

ON_ASYNCIO = """
import asyncio, sys
from engine import Engine, flow, task
@task
def double(x): return 2 * x
@flow(timeout_seconds=60)
async def body(): return await double.submit(1)
async def main():
    async with Engine(): return await body()
print(asyncio.run(main()))
print(double(1), "trio" in sys.modules)
"""


class TestImport:
    def test_it_has_no_side_effects(self) -> None:
        """No thread, handler, configuration or extra comes with the import."""
        assert output_of(IMPORTED) == ["[]"]

    def test_trio_is_not_imported_on_asyncio(self) -> None:
        """Who uses asyncio alone does not load trio."""
        assert output_of(ON_ASYNCIO) == ["2", "2 False"]

    def test_the_public_names_are_there(self) -> None:
        """Everything in __all__ can be imported."""
        program = "from engine import *; import engine; print(len(engine.__all__) > 20)"
        assert output_of(program) == ["True"]


async def test_from_thread_calls_use_the_engine() -> None:
    """A thread that calls back to the loop finds the engine of its context."""

    def call_back() -> int:
        return anyio.from_thread.run(inner_async)

    async with Engine() as engine:
        assert await anyio.to_thread.run_sync(call_back) == 3
        assert "inner-async" in names(engine)


async def test_a_state_may_change_while_it_is_looked_at() -> None:
    """At any step of that, as by a signal handler: it is the one before or after."""
    seen = []

    def looked_at(handle: RunHandle[None], step: int) -> str:
        """Return the state's name; the run is cancelled at that step of looking."""

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal step
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            step -= event == "opcode"
            if not step:
                sys.settrace(None)
                handle.cancel()
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        state = handle.state
        sys.settrace(before)
        return state.name

    async with Engine() as engine:
        for step in range(1, 100):
            handle = engine.start(forever)
            seen.append(looked_at(handle, step))
            handle.cancel()
            assert (await handle.join()).is_cancelled()
    assert seen[-1] == "Pending"
    assert set(seen) == {"Cancelled", "Pending"}
