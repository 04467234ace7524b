"""Hooks: all of them, in order, once, and nothing they do changes the run."""

import asyncio
import contextvars
import functools
import itertools
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import suppress
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from engine import (
    Engine,
    Hook,
    HookOutcome,
    RunHandle,
    StateType,
    Transition,
    flow,
    get_run_logger,
    runtime,
    task,
)
from engine.actors.broadcast import Buffer
from engine.actors.hook import HookStatistics
from engine.exceptions import HookDefinitionError, HookTimeout
from engine.testing import run_in_virtual_time
from engine.testing.clock import Backend

DECORATORS: dict[str, Any] = {"flow": flow, "task": task}
BACKENDS: list[Backend] = ["asyncio", "trio"]
SECONDS = 10
"""How long a test waits for another thread before it fails."""


class Place:
    """Where a run and its hooks are: the five that differ.

    ``asyncio`` and ``trio``: an async body on the engine's loop. ``plain``: a sync body
    in a thread without a loop, called directly. ``worker``: a sync body in a worker
    thread. ``held``: a sync body called directly on a loop's thread.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_async = name in BACKENDS

    def body(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return *fn*, or an async function that does the same."""
        if not self.is_async:
            return fn

        @functools.wraps(fn)
        async def body(*args: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            return fn(*args)

        return body

    def make(self, kind: str, fn: Callable[..., Any], **options: Any) -> Any:
        """Make a flow or task with a body of the kind that this place takes."""
        return DECORATORS[kind](**options)(self.body(fn))

    def run(self, fn: Any, *args: Any, **options: Any) -> RunHandle[Any]:
        """Run a flow or task in an engine with *options*; return its handle."""
        engine = Engine(**options)

        async def start() -> RunHandle[Any]:
            async with engine:
                handle = engine.start(fn, *args)
                await handle.join()
                return handle

        async def hold() -> RunHandle[Any]:
            async with engine:
                return call_in(engine, fn, *args)

        if self.is_async:
            return anyio.run(start, backend=self.name)
        if self.name == "held":
            return anyio.run(hold)
        with engine:
            if self.name == "plain":
                return call_in(engine, fn, *args)
            handle = engine.start(fn, *args)
            handle.wait(SECONDS)
            return handle

    def __repr__(self) -> str:
        return self.name


def call_in(engine: Engine, fn: Any, *args: Any) -> RunHandle[Any]:
    """Call a sync flow or task directly; return the handle of its run."""
    buffer = engine.broadcast.subscribe(1000, "fail")
    with suppress(BaseException):
        fn(*args)
    return next(RunHandle(run) for run, *_ in buffer.items if run.definition is fn)


PLACES = [Place(name) for name in (*BACKENDS, "plain", "worker", "held")]
everywhere = pytest.mark.parametrize("place", PLACES, ids=str)
of_each_kind = pytest.mark.parametrize("kind", DECORATORS)
on_each_loop = pytest.mark.parametrize("place", PLACES[:2], ids=str)


def nothing(*_: Any) -> None: ...


def fail(*_: Any) -> None:
    raise ValueError("mine")


def statuses(handle: RunHandle[Any]) -> list[str]:
    return [outcome.status for outcome in handle.hook_outcomes]


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until something outside of the loop has happened."""
    with anyio.fail_after(SECONDS):
        while not condition():
            await anyio.lowlevel.checkpoint()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


class Diary(list[str]):
    """Hooks of both kinds that write down when they begin and end."""

    def sync(self, name: str) -> Callable[..., None]:
        def hook(definition: Any, run: Any, state: Any) -> None:
            self.append(f"{name} begins at {state.name}")
            self.append(f"{name} ends")

        return hook

    def waiting(self, name: str) -> Callable[..., Awaitable[None]]:
        async def hook(definition: Any, run: Any, state: Any) -> None:
            self.append(f"{name} begins at {state.name}")
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            self.append(f"{name} ends")

        return hook

    def both(self, name: str) -> list[Any]:
        return [self.waiting(f"{name} 1"), self.sync(f"{name} 2")]


class TestOrder:
    @everywhere
    @of_each_kind
    def test_hooks_follow_the_transitions_one_at_a_time(
        self, place: Place, kind: str
    ) -> None:
        """Transitions in order, in each the hooks as registered, none overlapping."""
        diary = Diary()

        def body() -> None:
            diary.append("body")
            raise ValueError

        fn = place.make(
            kind,
            body,
            retries=1,
            on_running=diary.both("running"),
            on_retry=diary.both("retry"),
            on_failure=diary.both("failure"),
            on_completion=diary.both("completion"),
            on_crashed=diary.both("crashed"),
            on_cancellation=diary.both("cancellation"),
        )
        place.run(fn)
        expected = [
            *pairs("running", "Running"),
            "body",
            *pairs("retry", "Retrying"),
            *pairs("running", "Retrying"),
            "body",
            *pairs("failure", "Failed"),
        ]
        assert diary == expected

    @everywhere
    @of_each_kind
    def test_the_caller_gets_the_result_after_the_hooks(
        self, place: Place, kind: str
    ) -> None:
        """When a run is over for its caller, so are the hooks of its last state."""
        diary = Diary()
        fn = place.make(kind, nothing, on_completion=[diary.waiting("hook")])
        handle = place.run(fn)
        assert diary == ["hook begins at Completed", "hook ends"]
        assert statuses(handle) == ["delivered"]

    def test_decorated_hooks_come_after_listed_ones(self) -> None:
        """The order is that of registration, however a hook was registered."""
        diary = Diary()

        @task(on_completion=[diary.sync("first")])
        def fn() -> None: ...

        fn.on_completion(diary.sync("second"))

        @fn.on_completion
        async def third(*_: Any) -> None:
            diary.append("third")

        fn()
        assert diary == [*once("first"), *once("second"), "third"]

    async def test_a_transition_waits_for_the_hooks_of_the_one_before(self) -> None:
        """What happens during a slow hook has its own hooks after it."""
        diary, go_on = Diary(), anyio.Event()

        async def slow(*_: Any) -> None:
            diary.append("running begins")
            await go_on.wait()
            diary.append("running ends")

        @flow(on_running=[slow], on_cancellation=[diary.sync("cancellation")])
        async def fn() -> None:
            diary.append("body")

        async with Engine() as engine:
            handle = engine.start(fn)
            await anyio.wait_all_tasks_blocked()
            handle.cancel()
            await anyio.wait_all_tasks_blocked()
            assert handle.state.is_cancelled(), "the state does not wait for hooks"
            go_on.set()
            await handle.join()
        assert diary == [
            "running begins",
            "running ends",
            "cancellation begins at Cancelling",
            "cancellation ends",
        ]

    async def test_a_cancelled_caller_waits_for_the_hooks(self) -> None:
        """A cancellation during the last hooks reaches the caller after them."""
        diary, entered, go_on = Diary(), anyio.Event(), anyio.Event()

        async def slow(*_: Any) -> None:
            entered.set()
            await go_on.wait()
            diary.append("hook ends")

        @flow(on_completion=[slow])
        async def fn() -> None: ...

        async def caller() -> None:
            try:
                await fn()
                await anyio.lowlevel.checkpoint()
            finally:
                diary.append("caller ends")

        async with Engine(), anyio.create_task_group() as group:
            group.start_soon(caller)
            await entered.wait()
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.wait_all_tasks_blocked()
                assert not diary
                go_on.set()
        assert diary == ["hook ends", "caller ends"]

    @settings(max_examples=25, deadline=None)
    @given(
        backend=st.sampled_from(BACKENDS),
        steps=st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=1, max_size=5),
    )
    def test_hooks_of_any_length_keep_their_order(
        self, backend: Backend, steps: list[list[int]]
    ) -> None:
        """Many runs, each with its own hooks of random lengths: each in its order."""
        done: dict[int, list[int]] = {i: [] for i in range(len(steps))}

        def hook(run: int, number: int, checkpoints: int) -> Callable[..., Any]:
            async def wait(*_: Any) -> None:
                for _ in range(checkpoints):
                    await anyio.lowlevel.checkpoint()
                done[run].append(number)

            return wait

        async def main() -> None:
            async with Engine(hook_concurrency=2) as engine:
                for run, lengths in enumerate(steps):
                    hooks = [hook(run, i, length) for i, length in enumerate(lengths)]
                    engine.start(task(on_completion=hooks)(empty))

        async def empty() -> None: ...

        anyio.run(main, backend=backend)
        for run, lengths in enumerate(steps):
            assert done[run] == list(range(len(lengths)))


def once(name: str, state: str = "Completed") -> list[str]:
    """Return what one hook of a diary writes."""
    return [f"{name} begins at {state}", f"{name} ends"]


def pairs(name: str, state: str = "Completed") -> list[str]:
    """Return what the two hooks of one kind write."""
    return [*once(f"{name} 1", state), *once(f"{name} 2", state)]


class TestSideBySide:
    async def test_a_slow_hook_delays_no_other_run(self) -> None:
        """While one run's hook waits, another run of the same task gets all of its."""
        go_on = anyio.Event()

        async def hook(definition: Any, run: Any, state: Any) -> None:
            if run.parameters["slow"]:
                await go_on.wait()

        @task(on_running=[hook], on_completion=[hook])
        async def fn(slow: bool) -> None: ...

        async with Engine() as engine:
            slow = engine.start(fn, True)
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(SECONDS):
                await engine.start(fn, False)
            assert slow.state.is_running()
            go_on.set()
            await slow

    async def test_a_hanging_sync_hook_delays_no_other_run(self) -> None:
        """Likewise for sync hooks, which have a thread for each run."""
        go_on = threading.Event()

        def hook(definition: Any, run: Any, state: Any) -> None:
            if run.parameters["slow"]:
                go_on.wait(SECONDS)

        @task(on_completion=[hook])
        async def fn(slow: bool) -> None: ...

        async with Engine() as engine:
            slow = engine.start(fn, True)
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(SECONDS):
                await engine.start(fn, False)
            assert not slow.hook_outcomes
            go_on.set()
            await slow

    async def test_as_many_as_the_limit_are_served_at_once(self) -> None:
        """With ``hook_concurrency=3`` three runs' hooks run, the others wait."""
        go_on, entered = anyio.Event(), []

        async def hook(*_: Any) -> None:
            entered.append(1)
            await go_on.wait()

        @task(on_completion=[hook])
        async def fn() -> None: ...

        async with Engine(hook_concurrency=3) as engine:
            handles = [engine.start(fn) for _ in range(5)]
            await anyio.wait_all_tasks_blocked()
            assert len(entered) == 3
            assert engine.statistics().hooks.waiting == 5
            go_on.set()
            for handle in handles:
                await handle
        assert len(entered) == 5

    async def test_sync_hooks_are_limited_by_nothing_else(self) -> None:
        """Sixty sync hooks wait for each other, and all get through."""
        together = threading.Barrier(60)

        def hook(*_: Any) -> None:
            together.wait(SECONDS)

        @task(on_completion=[hook])
        async def fn() -> None: ...

        async with Engine(hook_concurrency=60) as engine:
            handles = [engine.start(fn) for _ in range(60)]
            for handle in handles:
                await handle.join()
        assert {status for h in handles for status in statuses(h)} == {"delivered"}

    def test_lanes_in_threads_do_not_wait_for_each_other(self) -> None:
        """Sync runs that are cancelled while they block all get their sync hooks."""
        go_on, began = threading.Event(), threading.Semaphore(0)

        @task(on_cancellation=[nothing, nothing])
        def fn() -> None:
            began.release()
            go_on.wait(SECONDS)

        with Engine(hook_concurrency=1, hook_timeout=SECONDS) as engine:
            engine.hook_threads._limit = 1
            handles = [engine.start(fn) for _ in range(4)]
            for _ in handles:
                assert began.acquire(timeout=SECONDS)
            for handle in handles:
                handle.cancel()
            for handle in handles:
                handle.wait(SECONDS)
            go_on.set()
            assert engine.hook_threads.threads <= 3
        assert {s for h in handles for s in statuses(h)} == {"delivered"}


class TestTimeouts:
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_hanging_hook_ends_by_its_timeout(self, backend: Backend) -> None:
        """It has timed out, the hooks after it run, and the state stays."""
        diary = Diary()

        async def hang(*_: Any) -> None:
            await anyio.sleep_forever()

        @flow(on_completion=[hang, diary.waiting("next"), Hook(hang, timeout=5)])
        async def fn() -> None: ...

        async def main() -> tuple[RunHandle[Any], float]:
            async with Engine(hook_timeout=60) as engine:
                handle = engine.start(fn)
                await handle
            return handle, anyio.current_time()

        handle, now = run_in_virtual_time(main, backend=backend)
        assert statuses(handle) == ["timed_out", "delivered", "timed_out"]
        assert now == 65
        assert diary == once("next")
        error = handle.hook_outcomes[0].error
        assert isinstance(error, HookTimeout)
        assert (error.hook, error.timeout) == ("hang", 60)

    @pytest.mark.parametrize("name", ["asyncio", "trio", "worker"])
    def test_a_sync_hook_that_hangs_is_left_behind(self, name: str) -> None:
        """The run goes on at its timeout; the thread is counted until it returns."""
        go_on, place = threading.Event(), Place(name)

        def hang(*_: Any) -> None:
            go_on.wait(SECONDS)

        fn = place.make("task", nothing, on_completion=[Hook(hang, timeout=0.01)])
        counts: list[int] = []
        watch = Hook(lambda t: counts.append(count()))

        def count() -> int:
            return engine.statistics().abandoned_threads

        engine = Engine(on_transition=[watch])

        async def main() -> RunHandle[Any]:
            async with engine:
                handle = engine.start(fn)
                await handle.join()
                counts.append(count())
                go_on.set()
                await until(lambda: not count())
                return handle

        handle = anyio.run(main, backend="trio" if name == "trio" else "asyncio")
        assert handle.state.is_completed()
        assert statuses(handle)[-1] == "timed_out"
        assert counts[-1] == 1

    @pytest.mark.parametrize("name", ["plain", "held"])
    def test_a_slow_hook_in_the_users_own_thread_is_told_afterwards(
        self, name: str
    ) -> None:
        """A sync hook in place cannot be left behind: it has timed out when it ends."""
        diary, place = Diary(), Place(name)
        hooks = [Hook(diary.sync("slow"), timeout=1e-9), diary.sync("next")]
        handle = place.run(place.make("flow", nothing, on_completion=hooks))
        assert statuses(handle) == ["timed_out", "delivered"]
        assert diary == once("slow") + once("next")

    @pytest.mark.parametrize("name", ["plain", "worker", "held"])
    def test_an_async_hook_of_a_sync_run_ends_by_its_timeout(self, name: str) -> None:
        """The loop that serves a sync run's async hooks keeps their time."""

        async def hang(*_: Any) -> None:
            await anyio.sleep_forever()

        place = Place(name)
        hook = Hook(hang, timeout=0.01)
        handle = place.run(place.make("flow", nothing, on_completion=[hook, nothing]))
        assert statuses(handle) == ["timed_out", "delivered"]

    @everywhere
    def test_the_awaitable_that_a_sync_hook_returns_has_a_time_too(
        self, place: Place
    ) -> None:
        """A lambda around a coroutine that hangs ends like the coroutine's own hook."""
        hook = Hook(lambda *_: anyio.sleep_forever(), timeout=0.01)
        handle = place.run(place.make("task", nothing, on_completion=[hook]))
        assert statuses(handle) == ["timed_out"]

    async def test_a_hook_that_got_no_thread_in_time_is_never_called(self) -> None:
        """Timed out is timed out: the call is not made up for later."""
        go_on, called = threading.Event(), []

        def hang(*_: Any) -> None:
            go_on.wait(SECONDS)

        def late(*_: Any) -> None:
            called.append(1)

        async def body() -> None: ...

        async with Engine() as engine:
            engine.hook_threads._limit = 1
            first = engine.start(task(on_completion=[hang])(body))
            await until(lambda: engine.hook_threads.threads == 1)
            await anyio.wait_all_tasks_blocked()
            hook = Hook(late, timeout=0.01)
            second = engine.start(task(on_completion=[hook])(body))
            await second.join()
            assert statuses(second) == ["timed_out"]
            assert engine.statistics().abandoned_threads == 0
            go_on.set()
            await first
            await engine.start(task(on_completion=[nothing])(body))
        assert not called


class TestRetries:
    @everywhere
    def test_a_hook_is_called_again_until_it_is_delivered(self, place: Place) -> None:
        """A failed call is repeated; the outcome counts the attempts."""
        calls: list[int] = []

        def hook(*_: Any) -> None:
            calls.append(1)
            if len(calls) < 3:
                raise ValueError

        fn = place.make("task", nothing, on_completion=[Hook(hook, retries=5)])
        (outcome,) = place.run(fn).hook_outcomes
        assert (outcome.status, outcome.attempts, outcome.error) == (
            "delivered",
            3,
            None,
        )

    @everywhere
    def test_the_last_error_stays(self, place: Place) -> None:
        """When no attempt is left, the outcome has failed with the last error."""
        errors = [ValueError(), KeyError(), OSError()]
        left = list(errors)

        async def hook(*_: Any) -> None:
            raise left.pop(0)

        fn = place.make("task", nothing, on_completion=[Hook(hook, retries=2)])
        (outcome,) = place.run(fn).hook_outcomes
        assert (outcome.status, outcome.attempts) == ("failed", 3)
        assert outcome.error is errors[-1]

    @on_each_loop
    def test_a_timeout_is_retried(self, place: Place) -> None:
        """Hanging once is no worse than failing once."""
        calls: list[int] = []

        async def hook(*_: Any) -> None:
            calls.append(1)
            if len(calls) == 1:
                await anyio.sleep_forever()

        hooks = [Hook(hook, timeout=0.01, retries=1)]
        (outcome,) = place.run(
            place.make("task", nothing, on_completion=hooks)
        ).hook_outcomes
        assert (outcome.status, outcome.attempts) == ("delivered", 2)


class TestFailRun:
    @everywhere
    @of_each_kind
    def test_an_on_running_hook_may_fail_its_run(self, place: Place, kind: str) -> None:
        """With ``on_error="fail_run"`` the body never starts, and on_failure runs."""
        diary, error = Diary(), ValueError("not today")

        def veto(*_: Any) -> None:
            raise error

        fn = place.make(
            kind,
            lambda: diary.append("body"),
            on_running=[Hook(veto, on_error="fail_run"), diary.sync("after")],
            on_failure=[diary.sync("failure")],
        )
        handle = place.run(fn)
        assert handle.state.type is StateType.FAILED
        assert handle.state.data is error
        assert diary == once("after", "Running") + once("failure", "Failed")
        assert statuses(handle) == ["failed", "delivered", "delivered"]

    @everywhere
    def test_an_on_retry_hook_may_fail_its_run(self, place: Place) -> None:
        """A veto on a retry is that attempt's failure."""
        diary, error = Diary(), OSError("give up")

        def body() -> None:
            diary.append("body")
            raise ValueError

        async def veto(*_: Any) -> None:
            raise error

        hook = Hook(veto, on_error="fail_run")
        handle = place.run(place.make("task", body, retries=1, on_retry=[hook]))
        assert diary == ["body"]
        assert handle.state.data is error

    @on_each_loop
    def test_a_hook_that_hangs_fails_its_run_in_time(self, place: Place) -> None:
        """A veto by timeout fails the run with the timeout."""
        hook = Hook(lambda *_: anyio.sleep_forever(), timeout=0.01, on_error="fail_run")
        handle = place.run(place.make("flow", nothing, on_running=[hook]))
        assert isinstance(handle.state.data, HookTimeout)

    @everywhere
    def test_other_hooks_only_log(self, place: Place) -> None:
        """Without it a failing on_running hook changes nothing."""
        handle = place.run(place.make("flow", nothing, on_running=[fail]))
        assert handle.state.is_completed()

    @of_each_kind
    @pytest.mark.parametrize(
        "event", ["on_completion", "on_failure", "on_cancellation", "on_crashed"]
    )
    def test_no_hook_may_change_how_a_run_ended(self, kind: str, event: str) -> None:
        """For the states that end a run, the option is refused at decoration."""
        hook = Hook(nothing, on_error="fail_run")
        with pytest.raises(HookDefinitionError, match="for on_running and on_retry"):
            DECORATORS[kind](**{event: [hook]})(nothing)


class Halt(BaseException):
    """Is no Exception."""


RAISED: list[Callable[[], BaseException]] = [
    ValueError,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,
    StopIteration,
    StopAsyncIteration,
    Halt,
    lambda: ExceptionGroup("several", [ValueError(), OSError()]),
    lambda: BaseExceptionGroup("several", [ValueError(), Halt()]),
    lambda: BaseExceptionGroup("cancelled", [asyncio.CancelledError()]),
]


class TestContainment:
    @everywhere
    @pytest.mark.parametrize("make", RAISED, ids=lambda make: make.__name__)
    @pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
    def test_whatever_a_hook_raises_is_its_own_affair(
        self, place: Place, make: Callable[[], BaseException], is_async: bool
    ) -> None:
        """It is recorded; the state, the other hooks and other runs see nothing."""
        error, diary = make(), Diary()

        def bad(*_: Any) -> None:
            raise error

        async def bad_async(*_: Any) -> None:
            raise error

        hook = bad_async if is_async else bad
        fn = place.make(
            "flow",
            nothing,
            on_running=[hook, diary.sync("running")],
            on_completion=[hook, diary.waiting("completion")],
        )
        handle = place.run(fn)
        assert handle.state.is_completed()
        assert diary == once("running", "Running") + once("completion")
        assert statuses(handle) == ["failed", "delivered"] * 2
        assert {id(o.error) for o in handle.hook_outcomes} == {id(error), id(None)}

    @of_each_kind
    def test_a_failing_hook_is_logged(self, kind: str) -> None:
        """The line says which hook of which run, at which state, and why."""
        fn = DECORATORS[kind](on_completion=[fail])(nothing)
        with capture_logs() as logs:
            handle = Place("worker").run(fn)
        (line,) = logs
        assert line["event"] == "hook_failed"
        assert line["log_level"] == "error"
        assert line["hook"] == "fail"
        assert line["kind"] == "on_completion"
        assert line["run_id"] == handle.id
        assert line["run"] == handle.name
        assert line["state"] == "Completed"
        assert line["error"] == "ValueError: mine"

    @everywhere
    def test_a_logger_that_fails_changes_nothing(self, place: Place) -> None:
        """A broken logging configuration does not cost the other hooks their call."""

        def broken(*_: Any) -> Any:
            raise OSError("no space left on device")

        diary = Diary()
        hooks = [fail, diary.sync("next")]
        fn = place.make("task", nothing, on_completion=hooks)
        before = structlog.get_config()["processors"]
        structlog.configure(processors=[broken])
        try:
            handle = place.run(fn)
        finally:
            structlog.configure(processors=before)
        assert statuses(handle) == ["failed", "delivered"]
        assert diary == once("next")

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_a_hook_that_cancels_its_own_task_harms_no_other(self) -> None:
        """Cancelling the task that serves it is a failure of that hook alone."""

        async def cancel_myself(*_: Any) -> None:
            current = asyncio.current_task()
            assert current is not None
            current.cancel()
            await asyncio.sleep(0)

        @task(on_completion=[cancel_myself, nothing])
        async def bad() -> None: ...

        @task(on_completion=[nothing])
        async def good() -> None: ...

        async with Engine(hook_concurrency=2) as engine:
            for fn, expected in ((bad, ["failed", "delivered"]), (good, ["delivered"])):
                for _ in range(5):
                    handle = engine.start(fn)
                    with anyio.fail_after(1):
                        await handle.join()
                    assert statuses(handle) == expected


class TestAccounting:
    @everywhere
    def test_an_outcome_tells_the_whole_story(self, place: Place) -> None:
        """Each has the hook, what it was owed for, and what became of it."""
        fn = place.make("flow", nothing, on_running=[fail], on_completion=[nothing])
        handle = place.run(fn)
        first, second = handle.hook_outcomes
        assert (first.hook, first.kind, first.state) == (
            "fail",
            "on_running",
            "Running",
        )
        assert (second.hook, second.kind) == ("nothing", "on_completion")
        assert first.run_id == second.run_id == handle.id
        assert (first.sequence, second.sequence) == (2, 3)
        assert (first.attempts, second.attempts) == (1, 1)
        assert isinstance(first.error, ValueError)
        assert second.error is None
        assert 0 <= first.seconds < SECONDS

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_every_hook_that_was_due_is_accounted_for(self, backend: Backend) -> None:
        """Delivered, failed, timed out and undelivered ones add up to those due."""

        async def hang(*_: Any) -> None:
            await anyio.sleep_forever()

        async def deliver(*_: Any) -> None: ...

        async def raise_it(*_: Any) -> None:
            raise ValueError

        endless = Hook(hang, retries=1000)

        @flow(on_completion=[deliver, raise_it, hang, deliver], on_failure=[deliver])
        async def fn() -> None: ...

        @flow(on_completion=[deliver, endless, deliver, deliver])
        async def stuck() -> None: ...

        async def main() -> tuple[Engine, RunHandle[Any]]:
            async with Engine(hook_timeout=5) as engine:
                for _ in range(3):
                    engine.start(fn)
                handle = engine.start(stuck)
            return engine, handle

        engine, handle = run_in_virtual_time(main, backend=backend)
        expected = HookStatistics(
            due=16, delivered=7, failed=3, timed_out=3, undelivered=3
        )
        assert engine.statistics().hooks == expected
        assert expected.waiting == 0
        assert engine.shutdown_report is not None
        assert engine.shutdown_report.hooks == expected
        assert statuses(handle) == ["delivered"] + ["undelivered"] * 3
        assert [outcome.attempts for outcome in handle.hook_outcomes] == [1, 1, 0, 0]

    async def test_what_runs_now_is_waiting(self) -> None:
        """A hook that has begun and one behind it are due and not ended."""
        go_on = anyio.Event()

        async def slow(*_: Any) -> None:
            await go_on.wait()

        @task(on_completion=[slow, slow])
        async def fn() -> None: ...

        async with Engine() as engine:
            handle = engine.start(fn)
            await anyio.wait_all_tasks_blocked()
            hooks = engine.statistics().hooks
            assert (hooks.due, hooks.waiting, hooks.delivered) == (2, 2, 0)
            go_on.set()
            await handle
            assert engine.statistics().hooks.delivered == 2

    @on_each_loop
    def test_a_run_without_hooks_has_no_outcomes(self, place: Place) -> None:
        """Nothing is due for a run that has none."""
        assert place.run(place.make("task", nothing)).hook_outcomes == ()


class Callables:
    """Every form that a hook can have; each notes that it was called to its end."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def note(self, *args: Any) -> None:
        self.calls.append(args)

    async def note_async(self, *args: Any) -> None:
        await anyio.lowlevel.checkpoint()
        self.calls.append(args)

    def forms(self) -> dict[str, Any]:
        note, note_async = self.note, self.note_async

        def function(definition: Any, run: Any, state: Any) -> None:
            note(definition, run, state)

        async def coroutine_function(definition: Any, run: Any, state: Any) -> None:
            await note_async(definition, run, state)

        def with_options(definition: Any, run: Any, state: Any, *, to: str) -> None:
            assert to == "me"
            note(definition, run, state)

        async def with_options_async(*args: Any, to: str) -> None:
            assert to == "me"
            await note_async(*args)

        class Plain:
            def __call__(self, definition: Any, run: Any, state: Any) -> None:
                note(definition, run, state)

            def method(self, definition: Any, run: Any, state: Any) -> None:
                note(definition, run, state)

            async def async_method(self, *args: Any) -> None:
                await note_async(*args)

            @classmethod
            def class_method(cls, *args: Any) -> None:
                note(*args)

            @staticmethod
            async def static_method(*args: Any) -> None:
                await note_async(*args)

        class Async:
            async def __call__(self, definition: Any, run: Any, state: Any) -> None:
                await note_async(definition, run, state)

        class Later:
            """An awaitable that is no coroutine."""

            def __init__(self, *args: Any) -> None:
                self.args = args

            def __await__(self) -> Generator[Any, Any, None]:
                yield from note_async(*self.args).__await__()

        return {
            "function": function,
            "coroutine function": coroutine_function,
            "partial": functools.partial(with_options, to="me"),
            "partial of async": functools.partial(with_options_async, to="me"),
            "partial of partial": functools.partial(functools.partial(note_async)),
            "lambda with coroutine": lambda *args: note_async(*args),
            "bound method": Plain().method,
            "bound async method": Plain().async_method,
            "class method": Plain.class_method,
            "static method": Plain.static_method,
            "callable object": Plain(),
            "async callable object": Async(),
            "partial of async object": functools.partial(Async()),
            "function with awaitable": lambda *args: Later(*args),
            "class of awaitables": Later,
            "defaults": lambda a, b, c, more=1, **options: note(a, b, c),
            "wrapped": functools.wraps(function)(lambda *args: function(*args)),
        }


FORMS = list(Callables().forms())


class TestCallables:
    @everywhere
    @pytest.mark.parametrize("form", FORMS)
    def test_anything_callable_is_a_hook(self, place: Place, form: str) -> None:
        """It is called with three arguments, and what it returns is awaited."""
        callables = Callables()
        hook = callables.forms()[form]
        fn = place.make("task", nothing, on_completion=[hook])
        handle = place.run(fn)
        assert statuses(handle) == ["delivered"]
        ((definition, run, state),) = callables.calls
        assert definition is fn
        assert run.id == handle.id
        assert state is handle.state

    @pytest.mark.parametrize(
        ("form", "name"),
        [
            ("function", "function"),
            ("partial of async", "with_options_async"),
            ("bound method", "method"),
            ("callable object", "Plain"),
            ("partial of async object", "Async"),
            ("class of awaitables", "Later"),
        ],
    )
    def test_each_has_a_name(self, form: str, name: str) -> None:
        """Outcomes call a hook by its function's name, or by its class."""
        assert Hook(Callables().forms()[form]).name == name

    @everywhere
    def test_what_a_hook_returns_is_ignored(self, place: Place) -> None:
        """A hook's value goes nowhere."""
        fn = place.make("flow", lambda: 1, on_completion=[lambda *_: 2])
        assert place.run(fn).state.data == 1


variable: contextvars.ContextVar[str] = contextvars.ContextVar(
    "variable", default="unset"
)


class Surroundings(list[dict[str, Any]]):
    """Hooks that note what they find around them."""

    def look(self, definition: Any, run: Any, state: Any) -> None:
        bound = structlog.contextvars.get_contextvars()
        logger = get_run_logger()
        self.append(
            {
                "state": state.name,
                "flow": runtime.flow_run.id,
                "task": runtime.task_run.id,
                "logger": structlog.get_context(logger)["run_id"],
                "run_id": bound.get("run_id"),
                "bound": {key: bound[key] for key in ("flow", "task") if key in bound},
                "variable": variable.get(),
                "thread": threading.get_ident(),
            }
        )

    async def look_async(self, definition: Any, run: Any, state: Any) -> None:
        await anyio.lowlevel.checkpoint()
        self.look(definition, run, state)

    def hooks(self, *kinds: str) -> dict[str, list[Any]]:
        return {kind: [self.look, self.look_async] for kind in kinds}

    def values(self, key: str) -> list[Any]:
        return [found[key] for found in self]


class TestContext:
    @everywhere
    @of_each_kind
    def test_a_hook_is_inside_of_its_run(self, place: Place, kind: str) -> None:
        """`runtime`, the run's logger and structlog's keys are those of its run."""
        found = Surroundings()
        fn = place.make(
            kind,
            fail,
            name="thing",
            retries=1,
            **found.hooks("on_running", "on_retry", "on_failure"),
        )
        handle = place.run(fn)
        assert found.values("state") == [
            *["Running"] * 2,
            *["Retrying"] * 4,
            *["Failed"] * 2,
        ]
        assert set(found.values(kind)) == {handle.id}
        assert set(found.values("logger")) == {handle.id}
        assert set(found.values("run_id")) == {handle.id}
        assert found.values("bound") == [{kind: "thing"}] * 8
        other = {"flow": "task", "task": "flow"}[kind]
        assert set(found.values(other)) == {None}

    @everywhere
    @pytest.mark.parametrize("error", [SystemExit(3), Halt()], ids=["exit", "halt"])
    def test_so_is_a_crash_hook(self, place: Place, error: BaseException) -> None:
        """The hook of a run that died sees its run as well."""
        found = Surroundings()

        def crash() -> None:
            raise error

        fn = place.make("flow", crash, **found.hooks("on_crashed"))
        handle = place.run(fn)
        assert handle.state.is_crashed()
        assert found.values("flow") == [handle.id] * 2

    @everywhere
    def test_so_is_the_hook_of_a_run_that_never_started(self, place: Place) -> None:
        """A hook for arguments that do not fit sees the run that they were for."""
        found = Surroundings()
        fn = place.make("flow", lambda x: x, **found.hooks("on_failure"))
        handle = place.run(fn, 1, 2)
        assert handle.state.cause == "arguments"
        assert found.values("flow") == [handle.id] * 2
        assert found.values("run_id") == [handle.id] * 2

    @on_each_loop
    def test_so_is_a_cancellation_hook(self, place: Place) -> None:
        """The hook of a run that was cancelled from outside sees the run."""
        found = Surroundings()

        @flow(**found.hooks("on_cancellation"))
        async def fn() -> None:
            await anyio.sleep_forever()

        async def main() -> RunHandle[Any]:
            async with Engine() as engine:
                handle = engine.start(fn)
                await anyio.wait_all_tasks_blocked()
                handle.cancel()
                await handle.join()
                return handle

        handle = anyio.run(main, backend=place.name)
        assert found.values("flow") == [handle.id] * 2

    @everywhere
    def test_hooks_see_what_the_body_has_set(self, place: Place) -> None:
        """The user's own context variables reach the hooks of the run's end."""
        found = Surroundings()

        def body() -> None:
            variable.set("by the body")

        fn = place.make("task", body, **found.hooks("on_running", "on_completion"))
        contextvars.copy_context().run(place.run, fn)
        assert found.values("variable") == ["unset"] * 2 + ["by the body"] * 2

    @everywhere
    def test_what_a_hook_sets_stays_in_it(self, place: Place) -> None:
        """Each hook has a copy: neither the body nor other hooks see its changes."""
        found = Surroundings()

        def meddle(*_: Any) -> None:
            variable.set("by a hook")

        async def meddle_async(*_: Any) -> None:
            variable.set("by an async hook")

        seen: list[str] = []
        fn = place.make(
            "flow",
            lambda: seen.append(variable.get()),
            on_running=[meddle, meddle_async],
            on_completion=[meddle, meddle_async, found.look],
        )
        place.run(fn)
        assert seen == found.values("variable") == ["unset"]
        assert variable.get() == "unset"

    async def test_a_child_s_hook_is_inside_of_both(self) -> None:
        """A task's hook sees its task run, and the flow run around it."""
        found = Surroundings()

        @task(name="inner", **found.hooks("on_completion"))
        async def inner() -> None: ...

        @flow(name="outer")
        async def outer() -> str:
            await inner()
            return str(runtime.flow_run.id)

        async with Engine():
            outer_id = await outer()
        assert found.values("flow") == [outer_id] * 2
        assert found.values("task") == found.values("run_id")
        assert found.values("bound") == [{"flow": "outer", "task": "inner"}] * 2

    @everywhere
    def test_a_hook_sees_the_run_as_it_was_then(self, place: Place) -> None:
        """The run and the state are those of the transition, not of later."""
        seen: list[tuple[Any, ...]] = []

        def look(definition: Any, run: Any, state: Any) -> None:
            seen.append((run.state is state, run.state_name, run.attempt))

        fn = place.make(
            "task",
            fail,
            retries=1,
            on_running=[look],
            on_retry=[look],
            on_failure=[look],
        )
        place.run(fn)
        assert seen == [
            (True, "Running", 1),
            (True, "Retrying", 2),
            (True, "Retrying", 2),
            (True, "Failed", 2),
        ]


class TestThreads:
    """Which thread a hook is called in."""

    async def test_of_a_run_on_a_loop(self) -> None:
        """Async hooks run on the loop, sync ones never."""
        found = Surroundings()

        @task(**found.hooks("on_running", "on_completion"))
        async def fn() -> None: ...

        async with Engine() as engine:
            await engine.start(fn)
        here = threading.get_ident()
        assert [ident == here for ident in found.values("thread")] == [False, True] * 2

    async def test_of_a_sync_run_in_a_worker_thread(self) -> None:
        """Async hooks run on the host's loop, sync ones in some thread."""
        found = Surroundings()

        @task(**found.hooks("on_running", "on_completion"))
        def fn() -> None: ...

        async with Engine() as engine:
            await engine.start(fn)
        here = threading.get_ident()
        assert [ident == here for ident in found.values("thread")] == [False, True] * 2

    def test_of_a_sync_run_in_a_plain_thread(self) -> None:
        """Sync hooks run in the caller's thread, async ones on a loop in another."""
        found = Surroundings()

        @task(**found.hooks("on_running", "on_completion"))
        def fn() -> None: ...

        fn()
        here = threading.get_ident()
        assert [ident == here for ident in found.values("thread")] == [True, False] * 2

    async def test_of_a_sync_run_that_holds_the_loop(self) -> None:
        """Sync hooks run in place, async ones on another loop, as this one is held."""
        found = Surroundings()

        @task(**found.hooks("on_running", "on_completion"))
        def fn() -> None: ...

        async with Engine():
            fn()
        here = threading.get_ident()
        assert [ident == here for ident in found.values("thread")] == [True, False] * 2


class TestOnTransition:
    @everywhere
    @of_each_kind
    def test_it_sees_every_transition_in_order(self, place: Place, kind: str) -> None:
        """Engine-level hooks see runs with hooks and without, from Pending on."""
        seen: list[Transition] = []
        seen_async: list[Transition] = []

        async def look(transition: Transition) -> None:
            await anyio.lowlevel.checkpoint()
            seen_async.append(transition)

        fn = place.make(kind, fail, retries=1)
        handle = place.run(fn, on_transition=[seen.append, look])
        names = [transition.state.name for transition in seen]
        assert names == ["Pending", "Running", "Retrying", "Failed"]
        assert seen_async == seen
        assert [transition.sequence for transition in seen] == [1, 2, 3, 4]
        assert {o.kind for o in handle.hook_outcomes} == {"on_transition"}
        assert statuses(handle) == ["delivered"] * 8

    @everywhere
    def test_it_comes_before_the_run_s_own_hooks(self, place: Place) -> None:
        """In one transition the engine's hooks are first."""
        diary: list[str] = []
        fn = place.make(
            "flow",
            nothing,
            on_running=[lambda *_: diary.append("own")],
            on_completion=[lambda *_: diary.append("own")],
        )
        place.run(fn, on_transition=[lambda t: diary.append(t.state.name)])
        assert diary == ["Pending", "Running", "own", "Completed", "own"]

    async def test_it_sees_each_of_many_runs_in_order(self) -> None:
        """Side by side, but each run's transitions in their order."""
        seen: dict[str, list[int]] = {}

        async def look(transition: Transition) -> None:
            await anyio.lowlevel.checkpoint()
            seen.setdefault(transition.run.id, []).append(transition.sequence)

        @task(retries=2)
        async def fn() -> None:
            raise ValueError

        async with Engine(on_transition=[look], hook_concurrency=5) as engine:
            handles = [engine.start(fn) for _ in range(20)]
            for handle in handles:
                await handle.join()
        assert seen.keys() == {handle.id for handle in handles}
        for sequences in seen.values():
            assert sequences == sorted(sequences)
            assert len(sequences) == 5
        assert sorted(itertools.chain(*seen.values())) == list(range(1, 101))

    @everywhere
    def test_it_can_fail_like_any_other(self, place: Place) -> None:
        """Its errors are recorded and change nothing; options work as elsewhere."""
        hook = Hook(fail, retries=1)
        handle = place.run(place.make("task", nothing), on_transition=[hook])
        assert handle.state.is_completed()
        assert [(o.status, o.attempts) for o in handle.hook_outcomes] == [
            ("failed", 2)
        ] * 3

    @pytest.mark.parametrize("hook", [nothing.__name__, lambda: 1, lambda a, b: 1])
    def test_it_takes_one_argument(self, hook: Any) -> None:
        """What cannot be called with a transition is refused at once."""
        with pytest.raises(HookDefinitionError, match="def hook\\(transition\\)"):
            Engine(on_transition=[hook])


@task
def double(x: int) -> int:
    return 2 * x


@task
async def double_async(x: int) -> int:
    await anyio.lowlevel.checkpoint()
    return 2 * x


@flow
def sync_flow(x: int) -> int:
    return double(x) + double.submit(x).result()


@flow
async def async_flow(x: int) -> int:
    return await double_async(x) + await double_async.submit(x)


class TestRunsInHooks:
    @everywhere
    def test_a_hook_may_call_flows_and_tasks(self, place: Place) -> None:
        """What a hook runs works as anywhere else, in place or submitted."""
        values: list[int] = []

        def use_sync(*_: Any) -> None:
            values.append(double(1))
            values.append(sync_flow(2))
            values.append(double.submit(5).result())

        async def use_async(*_: Any) -> None:
            values.append(await double_async(10))
            values.append(await async_flow(20))
            values.append(await double_async.submit(50))

        hooks = [use_sync, use_async]
        fn = place.make("flow", nothing, on_running=hooks, on_completion=hooks)
        handle = place.run(fn)
        assert statuses(handle) == ["delivered"] * 4
        assert values == [2, 8, 10, 20, 80, 100] * 2

    @everywhere
    def test_they_are_no_children_of_the_run(self, place: Place) -> None:
        """A run does not wait for what its hooks submit, nor is it judged by it."""
        parents: list[Any] = []

        @task
        def child() -> None:
            parents.append(runtime.task_run.parent_run_id)
            raise ValueError

        handles: list[RunHandle[Any]] = []

        def submit(*_: Any) -> None:
            handles.append(child.submit())

        fn = place.make("flow", nothing, on_running=[submit], on_completion=[submit])
        handle = place.run(fn)
        assert handle.state.is_completed()
        assert not handle.unobserved
        assert parents == [handle.id] * 2
        assert {h.state.type for h in handles} == {StateType.FAILED}

    async def test_a_hook_s_run_may_have_hooks(self) -> None:
        """Hooks of runs in hooks are served as well, with one server if need be."""
        diary = Diary()
        inner = task(on_completion=[diary.waiting("inner")])(double_async.fn)

        async def outer(*_: Any) -> None:
            await inner(1)
            diary.append("outer")

        @flow(on_completion=[outer])
        async def fn() -> None: ...

        async with Engine(hook_concurrency=2) as engine:
            with anyio.fail_after(SECONDS):
                await engine.run(fn)
        assert diary == [*once("inner"), "outer"]

    async def test_a_hook_may_cancel_its_run(self) -> None:
        """An on_running hook that cancels keeps the body from starting."""
        diary = Diary()

        def cancel(definition: Any, run: Any, state: Any) -> None:
            (handle,) = engine.handles()
            handle.cancel("not now")

        @flow(on_running=[cancel], on_cancellation=[diary.sync("cancellation")])
        async def fn() -> None:
            diary.append("body")

        async with Engine() as engine:
            state = await engine.start(fn).join()
        assert (state.name, state.message) == ("Cancelled", "not now")
        assert diary == once("cancellation", "Cancelling")


def test_an_outcome_is_a_value() -> None:
    """Outcomes cannot be changed, and compare by their fields."""
    outcome = HookOutcome(
        hook="h", kind="on_failure", run_id="r", sequence=1, state="Failed",
        status="failed",
    )  # fmt: skip
    assert outcome == HookOutcome(
        hook="h", kind="on_failure", run_id="r", sequence=1, state="Failed",
        status="failed",
    )  # fmt: skip
    with pytest.raises(AttributeError):
        outcome.status = "delivered"  # type: ignore[misc]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_server_that_is_cancelled_before_it_begins_loses_no_hook() -> None:
    """Somebody cancels every task that he finds, just as hooks were owed."""
    delivered: list[str] = []
    cancelled: list[bool] = []

    @task
    async def body() -> None:
        pass

    @body.on_completion
    async def note(task: Any, run: Any, state: Any) -> None:
        delivered.append(run.id)

    class Saboteur(Buffer):
        def put(self, entry: Any) -> None:
            if entry[0].state.is_completed():
                cancelled.extend(one.cancel() for one in asyncio.all_tasks() - known)
                known.update(asyncio.all_tasks())

    async with Engine() as engine:
        engine.broadcast.attach(Saboteur(engine.broadcast, 1, "fail"))
        handles = [body.submit() for _ in range(10)]
        known = asyncio.all_tasks()
        with anyio.fail_after(SECONDS):
            for handle in handles:
                await handle
    assert delivered == [handle.id for handle in handles]
    assert any(cancelled)
