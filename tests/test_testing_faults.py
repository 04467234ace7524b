"""Faults at a checkpoint, trials of each checkpoint, and the check of what is left."""

import asyncio
import contextvars
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from engine import Engine, RunHandle, State, StateType, flow, get_run_logger, task
from engine.exceptions import CancelledRun
from engine.testing import (
    assert_clean,
    call_at,
    cancel_at,
    crash_at,
    record,
)
from engine.testing.steps import Steps

pytestmark = pytest.mark.anyio

CANCELLED = ["Pending", "Running", "Cancelling", "Cancelled"]
CRASHED = ["Pending", "Running", "Crashed"]
FAILED = ["Pending", "Running", "Failed"]
COMPLETED = ["Pending", "Running", "Completed"]


class Walk:
    """A task of three checkpoints, and how far it came."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.task = task(name="walk")(self.walk)

    async def walk(self) -> str:
        for i in range(3):
            self.steps.append(f"begin {i}")
            try:
                await anyio.lowlevel.checkpoint()
            except BaseException as error:
                self.steps.append(type(error).__name__)
                raise
        return "arrived"


@task
def double(x: int) -> int:
    return 2 * x


async def observe(handle: RunHandle[Any]) -> State[Any]:
    with anyio.fail_after(5):
        return await handle.join()


class TestCancelAt:
    @pytest.mark.parametrize("checkpoint", range(3))
    async def test_the_body_is_stopped_there(self, checkpoint: int) -> None:
        """The body is interrupted at the very checkpoint, and gets no further."""
        walk = Walk()
        async with Engine() as engine:
            with cancel_at(engine, walk.task, checkpoint) as fault:
                handle = engine.start(walk.task)
                state = await observe(handle)
        assert state.is_cancelled()
        assert (state.cause, state.message) == (
            "user",
            f"cancelled at checkpoint {checkpoint}",
        )
        begun = [f"begin {i}" for i in range(checkpoint + 1)]
        # A checkpoint may suspend more than once, here on trio.
        assert walk.steps[:-1] == begun
        assert walk.steps[-1] in ("CancelledError", "Cancelled")
        assert fault.run == handle

    async def test_a_checkpoint_that_is_never_reached(self) -> None:
        """Nothing happens when the body has fewer checkpoints; they were counted."""
        walk = Walk()
        async with Engine() as engine:
            with cancel_at(engine, "walk", 3) as fault:
                assert await engine.run(walk.task) == "arrived"
        assert fault.run is None
        assert fault.passed == 3

    async def test_other_runs_are_left_alone(self) -> None:
        """Only runs that are meant are counted, in the fault's own engine and block."""
        walk, other = Walk(), Walk()
        async with Engine() as engine, Engine() as elsewhere:
            with cancel_at(engine, walk.task, 0) as fault:
                # Both walk under the same name.
                assert await engine.run(other.task) == "arrived"
                assert await elsewhere.run(walk.task) == "arrived"
                assert fault.passed == 0
                with pytest.raises(CancelledRun):
                    await engine.run(walk.task)
                passed = fault.passed
                assert await engine.run(walk.task) == "arrived"
                assert await elsewhere.run(walk.task) == "arrived"
                assert fault.passed == passed + 3
            assert await engine.run(walk.task) == "arrived"
            assert fault.passed == passed + 3

    async def test_runs_across_the_ends_of_the_block(self) -> None:
        """A body that began before the block does not count, nor what comes later."""
        go_on = anyio.Event()

        @task
        async def wait() -> None:
            await go_on.wait()
            await anyio.lowlevel.cancel_shielded_checkpoint()

        async with Engine() as engine:
            early = engine.start(wait)
            await record(engine).wait_for(early, "Running")
            with cancel_at(engine, wait, 1) as fault:
                late = engine.start(wait)
                await anyio.wait_all_tasks_blocked()
                assert fault.passed == 1
            go_on.set()
            assert (await observe(early)).is_completed()
            assert (await observe(late)).is_completed()
            assert fault.passed == 1

    async def test_the_definition_is_as_before(self) -> None:
        """The block leaves the flow or task as it was."""
        walk = Walk()
        fn = walk.task.fn
        async with Engine() as engine:
            with cancel_at(engine, walk.task, 0), crash_at(engine, walk.task, 5):
                await observe(engine.start(walk.task))
                assert walk.task.fn is not fn
            assert walk.task.fn is fn

    async def test_blocks_that_end_out_of_order(self) -> None:
        """A fault that ends before one that was made after it ends all the same."""
        walk = Walk()
        async with Engine() as engine:
            first, second = (cancel_at(engine, walk.task, 3) for _ in range(2))
            first.__enter__()
            second.__enter__()
            assert await engine.run(walk.task) == "arrived"
            assert (first.passed, second.passed) == (3, 3)
            first.__exit__(None, None, None)
            second.__exit__(None, None, None)
            assert await engine.run(walk.task) == "arrived"
            assert (first.passed, second.passed) == (3, 3)

    async def test_hooks_get_the_task_itself(self) -> None:
        """Hooks see the task that the user made, not a copy of it."""
        seen: list[object] = []

        @task
        async def walk() -> None:
            await anyio.lowlevel.checkpoint()

        @walk.on_cancellation
        async def note(task: Any, run: Any, state: Any) -> None:
            seen.append(task)

        async with Engine() as engine:
            with cancel_at(engine, walk, 0):
                await observe(engine.start(walk))
        assert seen == [walk]

    async def test_all_attempts_count(self) -> None:
        """Checkpoints are counted through a run's attempts."""
        attempts: list[int] = []

        @task(retries=5)
        async def flaky() -> None:
            attempts.append(len(attempts))
            await anyio.lowlevel.cancel_shielded_checkpoint()
            raise ValueError

        async with Engine() as engine:
            with cancel_at(engine, flaky, 3):
                assert (await observe(engine.start(flaky))).is_cancelled()
        assert attempts == [0, 1, 2, 3]

    async def test_methods_classmethods_and_prints(self) -> None:
        """A fault strikes whatever kind of function a task was made of."""

        class Site:
            @task
            async def fetch(self) -> None:
                await anyio.lowlevel.checkpoint()

            @task
            @classmethod
            async def make(cls) -> None:
                await anyio.lowlevel.checkpoint()

        @task(log_prints=True)
        async def speak() -> None:
            await anyio.lowlevel.checkpoint()

        @flow
        async def generate() -> AsyncIterator[int]:
            await anyio.lowlevel.checkpoint()
            yield 1

        for definition in (Site().fetch, Site.make, speak, generate):
            async with Engine() as engine:
                with cancel_at(engine, definition, 0):
                    assert (await observe(engine.start(definition))).is_cancelled()

    async def test_a_wait_that_the_cancellation_ends(self) -> None:
        """Cancelling may wake the very thing that the body is about to wait for."""

        @task
        async def child() -> None:
            await anyio.lowlevel.checkpoint()

        @flow
        async def parent() -> None:
            await child.submit()

        async with Engine() as engine:
            recorder = record(engine)
            with cancel_at(engine, parent, 0):
                assert (await observe(engine.start(parent))).is_cancelled()
        assert recorder.states(child)[-1] == "Cancelled"

    def test_a_body_that_is_closed(self) -> None:
        """A body whose loop has gone is closed as it would be without a fault."""
        closed: list[type[BaseException]] = []

        async def body() -> None:
            try:
                await asyncio.sleep(0)
            except BaseException as error:
                closed.append(type(error))
                raise

        steps = Steps(body(), lambda: None).__await__()
        steps.send(None)
        steps.close()
        assert closed == [GeneratorExit]

    def test_bad_checkpoints(self) -> None:
        """A negative checkpoint is refused when the fault is made."""
        with pytest.raises(ValueError, match="checkpoint must be >= 0, got -1"):
            cancel_at(Engine(), None, -1)


class TestCrashAt:
    @pytest.mark.parametrize("checkpoint", range(3))
    async def test_the_body_gets_the_error_there(self, checkpoint: int) -> None:
        """The error comes out of what the body awaits at that checkpoint."""
        walk = Walk()
        async with Engine() as engine:
            with crash_at(engine, walk.task, checkpoint):
                state = await observe(engine.start(walk.task))
        assert (state.type, state.cause) == (StateType.CRASHED, "SystemExit")
        begun = [f"begin {i}" for i in range(checkpoint + 1)]
        assert walk.steps == [*begun, "SystemExit"]

    async def test_any_error(self) -> None:
        """Any exception can be raised, as a class or as an object; it can be caught."""
        mine = LookupError("mine")

        @task
        async def careful() -> BaseException:
            try:
                await anyio.sleep(60)
            except Exception as error:
                return error
            raise AssertionError

        async with Engine() as engine:
            with crash_at(engine, careful, 0, error=mine):
                assert await engine.run(careful) is mine
            with crash_at(engine, careful, 0, error=OSError):
                assert isinstance(await engine.run(careful), OSError)

    async def test_an_ordinary_error_is_retried(self) -> None:
        """A transient error at a checkpoint makes the run retry."""
        walk = Walk()
        fetch = walk.task.with_options(retries=1)
        async with Engine() as engine:
            recorder = record(engine)
            with crash_at(engine, fetch, 1, error=ConnectionError):
                assert await engine.run(fetch) == "arrived"
        assert recorder.states(fetch) == ["Pending", "Running", "Retrying", "Completed"]

    async def test_what_was_waited_for_is_not_harmed(self) -> None:
        """Locks, events and streams forget the body that crashed while waiting."""
        lock, event = anyio.Lock(), anyio.Event()
        send, receive = anyio.create_memory_object_stream[int](1)

        @task
        async def acquire() -> None:
            async with lock:
                pass

        @task
        async def wait() -> None:
            await event.wait()

        @task
        async def take() -> int:
            return await receive.receive()

        async with Engine() as engine:
            async with lock:
                for body in (acquire, wait, take):
                    with crash_at(engine, body, 0):
                        assert (await observe(engine.start(body))).is_crashed()
            event.set()
            send.send_nowait(1)
            await engine.run(acquire)
            await engine.run(wait)
            assert await engine.run(take) == 1
        send.close()
        receive.close()

    async def test_what_was_done_is_not_lost(self) -> None:
        """A lock that was just acquired is released: the crash comes after that."""
        lock = anyio.Lock()
        entered: list[bool] = []

        @task
        async def acquire() -> None:
            async with lock:
                entered.append(True)

        async with Engine() as engine:
            with crash_at(engine, acquire, 0):
                assert (await observe(engine.start(acquire))).is_crashed()
        assert entered == [True]
        assert not lock.locked()

    async def test_a_wait_that_cannot_be_given_up(self) -> None:
        """A wait for a thread ends by itself; then the body crashes."""
        began, release = threading.Event(), threading.Event()

        def work() -> bool:
            began.set()
            return release.wait(5)

        @task
        async def wait() -> None:
            assert await trio.to_thread.run_sync(work)

        if asyncio._get_running_loop() is not None:
            return  # there is no such wait
        async with Engine() as engine:
            with crash_at(engine, wait, 1) as fault:
                handle = engine.start(wait)
                await trio.to_thread.run_sync(began.wait)
                assert fault.run == handle
                assert handle.state.is_running()
                release.set()
                assert (await observe(handle)).cause == "SystemExit"

    async def test_a_task_group_at_its_end(self) -> None:
        """A nursery stops its tasks before the error comes out of it."""
        stopped: list[bool] = []

        async def sleep() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                stopped.append(True)

        @task
        async def nursery() -> None:
            async with trio.open_nursery() as group:
                group.start_soon(sleep)

        if asyncio._get_running_loop() is not None:
            return  # see crash_at
        async with Engine() as engine:
            with crash_at(engine, nursery, 0):
                assert (await observe(engine.start(nursery))).is_crashed()
        assert stopped == [True]

    async def test_a_crash_is_reported_to_the_caller(self) -> None:
        """What was raised in the body reaches the caller as it would from the body."""
        async with Engine() as engine:
            recorder = record(engine)
            with (
                crash_at(engine, "walk", 0, error=KeyboardInterrupt("enough")),
                pytest.raises(KeyboardInterrupt, match="enough"),
            ):
                await engine.run(Walk().task)
            (run,) = recorder.runs()
        assert run.state.cause == "KeyboardInterrupt"


class TestCallAt:
    async def test_it_is_called_once_with_the_handle(self) -> None:
        """The function is called with the run's handle, in the run's context."""
        mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="")
        calls: list[tuple[RunHandle[Any], str, str]] = []

        @task
        async def walk() -> None:
            mark.set("walking")
            for _ in range(3):
                await anyio.lowlevel.checkpoint()

        def note(run: RunHandle[Any]) -> None:
            calls.append((run, run.state.name, mark.get()))

        async with Engine() as engine:
            with call_at(engine, walk, 1, note):
                handle = engine.start(walk)
                await handle
        assert calls == [(handle, "Running", "walking")]

    async def test_the_host_cancels(self) -> None:
        """A scope around an attached run can be cancelled at a checkpoint of it."""
        walk = Walk()
        async with Engine() as engine:
            recorder = record(engine)
            with anyio.CancelScope() as scope:
                with call_at(engine, walk.task, 1, lambda _: scope.cancel()):
                    await engine.run(walk.task)
            (run,) = recorder.runs(walk.task)
            assert (await observe(run)).cause == "host"
        assert scope.cancelled_caught

    async def test_its_error_comes_out_of_the_block(self) -> None:
        """An error of the function strikes neither the run nor the loop."""
        walk = Walk()

        def fail(_: object) -> None:
            raise LookupError("mine")

        async def block(error: Exception | None) -> None:
            with call_at(engine, walk.task, 1, fail):
                assert await engine.run(walk.task) == "arrived"
                if error is not None:
                    raise error

        async with Engine() as engine:
            with pytest.raises(LookupError, match="mine"):
                await block(None)
            with pytest.raises(OSError, match="of the block itself"):
                await block(OSError("of the block itself"))


@flow
def sync_flow() -> list[int]:
    first = double(1)
    handle = double.submit(first)
    return [first, handle.result(), *double.map([3, 4]).result()]


class TestSyncBodies:
    CHECKPOINTS = 5

    def test_each_call_into_the_library_is_a_checkpoint(self) -> None:
        """Calls, submissions and waits count; what they do inside does not."""
        with Engine() as engine, cancel_at(engine, sync_flow, 99) as fault:
            assert sync_flow() == [2, 4, 6, 8]
        assert fault.passed == self.CHECKPOINTS

    @pytest.mark.parametrize("checkpoint", range(CHECKPOINTS))
    def test_a_crash_comes_out_of_the_call(self, checkpoint: int) -> None:
        """The error is raised by the call that the body makes."""
        engine = Engine()
        recorder = record(engine)
        with (
            engine,
            crash_at(engine, sync_flow, checkpoint),
            pytest.raises(SystemExit),
        ):
            sync_flow()
        recorder.assert_states(sync_flow, CRASHED)
        assert_clean(engine)

    @pytest.mark.parametrize("checkpoint", range(CHECKPOINTS))
    def test_a_cancelled_body_starts_nothing_more(self, checkpoint: int) -> None:
        """The run is given up at once; what the body starts from then on is refused."""
        engine = Engine()
        recorder = record(engine)
        with (
            engine,
            cancel_at(engine, sync_flow, checkpoint),
            pytest.raises(CancelledRun),
        ):
            sync_flow()
        recorder.assert_states(sync_flow, CANCELLED)
        assert_clean(engine)

    def test_generators(self) -> None:
        """What a generator calls between its items counts as well."""

        @flow
        def generate() -> Iterator[int]:
            for i in range(3):
                yield double(i)

        engine = Engine()
        recorder = record(engine)
        with engine, crash_at(engine, generate, 2), pytest.raises(SystemExit):
            generate()
        assert [r.state.result() for r in recorder.runs(double)] == [0, 2]

    def test_logging_is_no_checkpoint(self) -> None:
        """Neither log lines nor captured prints count."""

        @flow(log_prints=True)
        def speak() -> None:
            print("hello")
            get_run_logger().info("hello")

        with Engine() as engine, cancel_at(engine, speak, 0) as fault:
            speak()
        assert fault.passed == 0

    def test_children_count_for_themselves(self) -> None:
        """The calls of an inner flow are its own, not those of the one that called."""

        @flow
        def outer() -> list[int]:
            return sync_flow()

        with Engine() as engine:
            with cancel_at(engine, outer, 99) as fault:
                outer()
            assert fault.passed == 1
            with cancel_at(engine, None, 99) as fault:
                outer()
            assert fault.passed == 1 + self.CHECKPOINTS

    async def test_in_a_worker_thread(self) -> None:
        """A sync body of a run on a loop is struck in its thread."""

        @task
        def call() -> int:
            return double(1)

        async with Engine() as engine:
            with (
                crash_at(engine, call, 0, error=OSError("mine")),
                pytest.raises(OSError, match="mine"),
            ):
                await engine.run(call)
            with cancel_at(engine, call, 0):
                assert (await observe(engine.start(call))).is_cancelled()

    def test_the_profile_function_is_put_back(self) -> None:
        """A profiler that was there before the body is there after it."""
        seen: list[str] = []

        def profile(frame: Any, event: str, _: Any) -> None:
            seen.append(event)

        with Engine() as engine, cancel_at(engine, sync_flow, 99):
            sys.setprofile(profile)
            try:
                sync_flow()
                assert sys.getprofile() is profile
            finally:
                sys.setprofile(None)
        assert "call" in seen
