"""What runs cost, and what they leave behind: nothing.

The numbers that the project promises (100,000 streamed tasks, 200,000 runs in one
engine) take half a minute; ``ENGINE_TESTS_LARGE=1`` asks for them. Otherwise the same
tests run with a tenth, where what grows with the runs shows as well.
"""

import asyncio
import gc
import os
import signal
import sqlite3
import sys
import threading
import time
import traceback
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
import structlog
import trio
from support import output_of

from engine import Engine, Hook, RunHandle, State, Transition, flow, runtime, task
from engine.actors.lane import Lane
from engine.actors.run import RunActor
from engine.exceptions import CrashedRun
from engine.executors.job import Job
from engine.testing import virtual_time_options

LARGE = "ENGINE_TESTS_LARGE" in os.environ
STREAMED = 100_000 if LARGE else 10_000
RUNS = 200_000 if LARGE else 5_000
LIMIT = 1000
SECONDS = 10
"""How long a test waits for another thread before it fails."""


def until(condition: Callable[[], object]) -> None:
    """Let other threads run until something is true."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0)


def drop(*_: Any) -> Any:
    raise structlog.DropEvent


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Log nothing; captured logs would keep the errors, and with them frames."""
    processors = structlog.get_config()["processors"]
    kept, processors[:] = processors[:], [drop]
    yield
    processors[:] = kept


@pytest.fixture
def no_threads_and_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make starting a thread or an event loop fail."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a sync run from a plain thread needs none of this")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(asyncio, "new_event_loop", refuse)
    monkeypatch.setattr(trio, "run", refuse)
    monkeypatch.setattr(anyio, "run", refuse)


@task(retries=1)
def sync_leaf(into: list[int]) -> int:
    into.append(threading.get_ident())
    if runtime.task_run.attempt == 1:
        raise ValueError
    return threading.get_ident()


@flow(flow_run_name="inner-{depth}")
def sync_tree(depth: int, into: list[int]) -> int:
    into.append(threading.get_ident())
    return sync_tree(depth - 1, into) if depth else sync_leaf(into)


class TestSyncRunsFromAPlainThread:
    @pytest.mark.usefixtures("no_threads_and_loops")
    def test_they_start_no_thread_and_no_loop(self) -> None:
        """Nested flows and tasks, retried and hooked, all run in the caller's."""
        idents: list[int] = []

        def note(*_: Any) -> None:
            idents.append(threading.get_ident())

        hooks = {kind: [note] for kind in ("on_running", "on_completion")}
        tree = sync_tree.with_options(**hooks)
        assert tree(3, idents) == threading.get_ident()
        with Engine(on_transition=[note]):
            assert tree(3, idents) == threading.get_ident()
        assert set(idents) == {threading.get_ident()}

    def test_they_open_nothing(self) -> None:
        """They open no file and no socket, as the interpreter itself reports."""
        events = output_of(
            """if True:
            import sys
            from engine import flow, task
            @task(retries=1, on_completion=[lambda *_: None])
            def leaf(x):
                if not seen:
                    seen.append(x)
                    raise ValueError
                return x
            @flow(on_failure=[lambda *_: None])
            def tree(x):
                return leaf(x)
            seen, events = [], []
            tree(1)
            watched = {"open", "socket.__new__", "_thread.start_new_thread", "os.fork"}
            def hook(event, args):
                if event in watched:
                    events.append(event)
            sys.addaudithook(hook)
            assert tree(2) == 2
            print("events", *events)
            """
        )
        assert events == ["events"]

    def test_thread_bound_clients_work(self) -> None:
        """A connection that may be used in one thread only is used by every task."""
        connection = sqlite3.connect(":memory:", check_same_thread=True)

        @task
        def insert(x: int) -> None:
            connection.execute("INSERT INTO numbers VALUES (?)", (x,))

        @flow
        def fill() -> int:
            connection.execute("CREATE TABLE numbers (x)")
            for x in range(10):
                insert(x)
            row = connection.execute("SELECT sum(x) FROM numbers").fetchone()
            return int(row[0])

        with connection:
            assert fill() == 45
        connection.close()

    def test_signals_reach_the_body(self) -> None:
        """A signal handler interrupts the body itself, in the main thread."""

        class Interrupted(Exception):
            pass

        def interrupt(*_: Any) -> None:
            raise Interrupted

        @task
        def body() -> None:
            signal.raise_signal(signal.SIGTERM)

        @flow
        def outer() -> str:
            try:
                body()
            except Interrupted:
                return "interrupted"
            return "not interrupted"

        previous = signal.signal(signal.SIGTERM, interrupt)
        try:
            assert outer() == "interrupted"
        finally:
            signal.signal(signal.SIGTERM, previous)

    def test_a_debugger_sees_the_callers(self) -> None:
        """The stack of a body leads up to who called, over few frames of ours."""

        @task
        def inner() -> list[str]:
            return [frame.name for frame in traceback.extract_stack()]

        @flow
        def outer() -> list[str]:
            return inner()

        names = outer()
        here = names.index("test_a_debugger_sees_the_callers")
        assert names.index("outer") > here
        assert names[-1] == "inner"
        assert len(names) - here < 30


class Result:
    """A result that can be watched."""


refs: list[weakref.ref[Any]] = []
"""All runs, and what their bodies have made: results and errors."""


def returns(*_: Any) -> Result:
    result = Result()
    refs.append(weakref.ref(result))
    return result


def raises(*_: Any) -> None:
    raise Watched


class Watched(Exception):
    """An exception that can be watched."""

    def __init__(self) -> None:
        refs.append(weakref.ref(self))


async def returns_async(*_: Any) -> Result:
    await anyio.lowlevel.checkpoint()
    return returns()


async def raises_async(*_: Any) -> None:
    await anyio.lowlevel.checkpoint()
    raises()


def hook(definition: Any, run: Any, state: Any) -> None: ...
async def async_hook(definition: Any, run: Any, state: Any) -> None: ...


def bad_hook(definition: Any, run: Any, state: Any) -> None:
    raise ValueError("hook")


async def bad_async_hook(definition: Any, run: Any, state: Any) -> None:
    raise ValueError("hook")


def at_every_state(*hooks: Any) -> dict[str, Any]:
    return {kind: list(hooks) for kind in ("on_running", "on_completion", "on_failure")}


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "hooks": at_every_state(hook, async_hook),
    "failing hooks": at_every_state(bad_hook, bad_async_hook),
    "retries": {"retries": 2, "on_retry": [hook]},
    "delays": {"retries": 1, "retry_delay_seconds": 0.0001},
    "condition": {"retries": 1, "retry_condition_fn": lambda *_: False},
    "timeout": {"timeout_seconds": 60},
}
BODIES = [returns, raises, returns_async, raises_async]

with_each_option = pytest.mark.parametrize("options", OPTIONS)


@pytest.fixture
def without_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Turn the garbage collector off, so that only unreferenced objects are freed."""
    refs.clear()
    make = RunActor.__init__

    def make_watched(run: RunActor, *args: Any) -> None:
        make(run, *args)
        refs.append(weakref.ref(run))

    monkeypatch.setattr(RunActor, "__init__", make_watched)
    gc.disable()
    yield
    gc.enable()


async def waits(*_: Any) -> None:
    await anyio.Event().wait()  # without a timer, which the loop would keep


class WatchedExit(SystemExit):
    """An exit that can be watched."""

    def __init__(self) -> None:
        refs.append(weakref.ref(self))


def exits(*_: Any) -> None:
    raise WatchedExit


async def exits_async(*_: Any) -> None:
    exits()


async def strays(*_: Any) -> None:
    raise asyncio.CancelledError


async def timed_out(engine: Engine) -> None:
    fn = task(timeout_seconds=0.0001)(waits)
    await engine.start(fn).join()
    await fn(return_state=True)


async def timed_out_and_retried(engine: Engine) -> None:
    await engine.start(task(timeout_seconds=0.0001, retries=2)(waits)).join()


async def timed_out_in_a_thread(engine: Engine) -> None:
    released = threading.Event()

    @task(timeout_seconds=0.0001, on_failure=[hook])
    def blocks() -> None:
        released.wait(SECONDS)

    await engine.start(blocks).join()
    released.set()


async def cancelled_by_user(engine: Engine) -> None:
    handle = engine.start(task(on_cancellation=[hook])(waits))
    await anyio.wait_all_tasks_blocked()
    handle.cancel()
    await handle.join()


async def cancelled_by_host(engine: Engine) -> None:
    for call in (task(waits), flow(waits), lambda: engine.run(task(waits))):
        with anyio.move_on_after(0.0001):
            await call()


async def cancelled_by_parent(engine: Engine) -> None:
    @flow
    async def parent() -> None:
        task(waits).submit()
        await anyio.wait_all_tasks_blocked()
        raises()

    await engine.start(parent).join()


async def cancelled_by_sibling(engine: Engine) -> None:
    @task
    async def first_raises(x: int) -> None:
        await (waits() if x else raises_async())

    @flow
    async def parent() -> None:
        async for _ in first_raises.stream(range(5), limit=5):
            pass

    @flow
    def sync_parent() -> None:
        for _ in first_raises.stream(range(5), limit=5):
            pass

    await engine.start(parent).join()
    await engine.start(sync_parent).join()


async def crashed(engine: Engine) -> None:
    for body in (exits, exits_async, strays):
        fn = task(body)
        await engine.start(fn).join()
        with suppress(SystemExit, CrashedRun):
            await engine.start(fn)
        with suppress(SystemExit, CrashedRun):
            await fn() if fn.is_async else fn()


async def refused(engine: Engine) -> None:
    @flow(flow_run_name=raises)
    async def misnamed() -> None: ...

    await engine.start(misnamed).join()
    await misnamed(return_state=True)
    await engine.start(number).join()


async def failed_by_a_child(engine: Engine) -> None:
    @flow
    async def returns_state() -> Any:
        return await task(raises_async)(return_state=True)

    @flow
    async def passes_on() -> None:
        await task(raises_async)()

    @flow
    def sync_returns_state() -> Any:
        return task(raises)(return_state=True)

    for fn in (returns_state, passes_on, sync_returns_state):
        await engine.start(fn).join()
    await returns_state(return_state=True)
    sync_returns_state(return_state=True)


async def failed_by_its_hook(engine: Engine) -> None:
    bad = Hook(bad_async_hook, on_error="fail_run")
    await engine.start(task(on_running=[bad])(returns_async)).join()


async def timed_out_hooks(engine: Engine) -> None:
    released = threading.Event()

    def hangs(definition: Any, run: Any, state: Any) -> None:
        released.wait(SECONDS)

    async def hangs_async(definition: Any, run: Any, state: Any) -> None:
        await anyio.sleep_forever()

    hooks = [Hook(fn, timeout=0.0001, retries=1) for fn in (hangs, hangs_async)]
    fn = task(on_completion=hooks, on_failure=hooks)
    await engine.start(fn(returns_async)).join()
    await engine.start(fn(raises_async)).join()
    await fn(raises_async)(return_state=True)
    released.set()


ENDINGS = [
    timed_out,
    timed_out_and_retried,
    timed_out_in_a_thread,
    cancelled_by_user,
    cancelled_by_host,
    cancelled_by_parent,
    cancelled_by_sibling,
    crashed,
    refused,
    failed_by_a_child,
    failed_by_its_hook,
    timed_out_hooks,
]


def all_is_freed() -> bool:
    assert refs
    return not any(ref() is not None for ref in refs)


async def until_all_is_freed() -> None:
    """Wait for threads and tasks that are about to let go of their last run."""
    with anyio.fail_after(2):
        while not all_is_freed():
            await anyio.lowlevel.checkpoint()
    refs.clear()


async def start(engine: Engine, fn: Any) -> None:
    await engine.start(fn).join()


async def start_and_catch(engine: Engine, fn: Any) -> None:
    with suppress(Watched):
        await engine.start(fn)


async def run_attached(engine: Engine, fn: Any) -> None:
    with suppress(Watched):
        await engine.run(fn)


async def call(engine: Engine, fn: Any) -> None:
    # Nothing is kept in a variable: the frame of a caller is a holder like others.
    with suppress(Watched):
        await fn() if fn.is_async else fn()


async def call_for_state(engine: Engine, fn: Any) -> None:
    await fn(return_state=True) if fn.is_async else fn(return_state=True)


async def in_a_flow(engine: Engine, fn: Any) -> None:
    @flow
    async def parent() -> None:
        await call_for_state(engine, fn)
        first = fn.submit()
        for handle in (first, fn.submit(wait_for=[first]), *fn.map([1, 2])):
            await handle.join()

    await parent(return_state=True)


async def unobserved(engine: Engine, fn: Any) -> None:
    @flow
    async def parent() -> None:
        fn.submit()

    await parent()


async def by_arguments(engine: Engine, fn: Any) -> None:
    @flow
    async def parent() -> None:
        await start_and_catch(engine, fn.with_options(name="last"))
        await task(returns_async).submit(fn.submit()).join()

    await parent()


async def streamed(engine: Engine, fn: Any) -> None:
    @flow
    async def parent() -> None:
        async for handle in fn.stream(range(5), limit=2, on_error="continue"):
            assert handle.state.is_final()

    await parent()


async def subscribed(engine: Engine, fn: Any) -> None:
    async with engine.subscribe(buffer=100) as transitions:
        await engine.start(fn).join()
        async for transition in transitions:
            if transition.state.is_final():
                break


WAYS = [
    start,
    start_and_catch,
    run_attached,
    call,
    call_for_state,
    in_a_flow,
    unobserved,
    by_arguments,
    streamed,
    subscribed,
]


@pytest.mark.usefixtures("without_collector")
class TestFreed:
    """With the garbage collector off, what nobody holds is gone."""

    @with_each_option
    @pytest.mark.parametrize("body", BODIES)
    async def test_on_a_loop(self, body: Any, options: str) -> None:
        """However it was run and ended, a run is freed with its result and error."""
        fn = task(**OPTIONS[options])(body)
        kept = []
        async with Engine(history=10) as engine:
            for way in WAYS:
                await way(engine, fn)
                try:
                    await until_all_is_freed()
                except TimeoutError:
                    kept.append(way.__name__)
                    refs.clear()
        assert not kept

    @with_each_option
    @pytest.mark.parametrize("body", BODIES[:2])
    @pytest.mark.parametrize("deco", [flow, task])
    def test_in_a_plain_thread(self, deco: Any, body: Any, options: str) -> None:
        """Direct calls leave nothing, inside of an engine or without one."""
        fn = deco(**OPTIONS[options])(body)
        with suppress(Watched):
            fn()
        fn(return_state=True)
        with Engine():
            with suppress(Watched):
                fn()
            fn(return_state=True)
            until(all_is_freed)

    @with_each_option
    @pytest.mark.parametrize("body", BODIES)
    def test_submitted_from_a_sync_flow(self, body: Any, options: str) -> None:
        """Runs in worker threads and on the background loop leave nothing."""
        fn = task(**OPTIONS[options])(body)

        @flow
        def parent() -> None:
            handles = [fn.submit() for _ in range(2)]
            for handle in handles:
                handle.wait(SECONDS)
                handle.result(raise_on_failure=False)

        with Engine():
            parent(return_state=True)
            until(all_is_freed)

    @pytest.mark.parametrize("ending", ENDINGS)
    async def test_however_it_ended(self, ending: Any) -> None:
        """A run that ended in one of the less common ways is freed like others."""
        async with Engine(history=10) as engine:
            await ending(engine)
            await until_all_is_freed()

    async def test_a_state_keeps_no_run(self) -> None:
        """Who keeps a failed state and its error does not keep the run."""
        kept = []
        async with Engine() as engine:
            for fn in (task(raises_async), task(raises), flow(raises_async)):
                kept.append(await engine.start(fn).join())
            kept.append(await fn(return_state=True))
            errors = {id(state.data) for state in kept}
            refs[:] = [ref for ref in refs if id(ref()) not in errors]
            await until_all_is_freed()
        assert all(isinstance(state.data, Watched) for state in kept)

    async def test_a_cancelled_run(self) -> None:
        """A run that was cancelled with its children is freed like others."""

        @task(on_cancellation=[hook, async_hook])
        async def child() -> None:
            await anyio.sleep_forever()

        @flow(on_cancellation=[hook, async_hook])
        async def parent() -> None:
            child.submit()
            await child()

        async with Engine() as engine:
            handle = engine.start(parent)
            await anyio.wait_all_tasks_blocked()
            handle.cancel()
            await handle.join()
            del handle
            await until_all_is_freed()

    async def test_a_handle_keeps_its_run_and_no_other(self) -> None:
        """Who keeps the handle of a child does not keep its parent and siblings."""
        kept: list[RunHandle[Any]] = []

        @flow
        async def parent() -> None:
            for handle in [task(returns_async).submit() for _ in range(2)]:
                await handle.join()
            kept.append(task(nothing).submit())
            refs.pop()

        async with Engine():
            await parent()
            await until_all_is_freed()
            assert kept[0].state.is_completed()

    async def test_a_run_that_goes_on_keeps_no_other(self) -> None:
        """Neither the one that started it, nor those that began in the same turn."""
        kept: list[RunHandle[None]] = []

        @flow
        async def starter(engine: Engine) -> None:
            kept.append(engine.start(task(waits)))

        async with Engine(shutdown_grace=0) as engine:
            handles = [engine.start(task(fn)) for fn in (returns_async, nothing)]
            handles.append(engine.start(starter, engine))
            for handle in handles:
                await handle.join()
            handles.clear()
            del handle
            refs[:] = [ref for ref in refs if ref() is not kept[0]._actor]
            await until_all_is_freed()
            assert kept[0].state.is_running()


async def nothing() -> None: ...


@task
async def number(x: int) -> int:
    return x


OURS = (RunActor, Lane, Job, Transition, RunHandle, State)


def count_ours() -> Counter[str]:
    """Count the objects that runs consist of."""
    return Counter(type(o).__name__ for o in gc.get_objects() if isinstance(o, OURS))


class TestStream:
    async def test_no_more_than_the_limit_are_alive(self) -> None:
        """However many items there are, only *limit* runs exist at a time."""
        pulled = read = most = 0

        def pull(item: int) -> int:
            nonlocal pulled
            pulled += 1
            return item

        gc.collect()
        gc.disable()
        before = count_ours()["RunActor"]
        try:
            async with Engine() as engine:
                async for _ in number.stream(map(pull, range(STREAMED)), limit=LIMIT):
                    read += 1
                    assert pulled - read <= LIMIT
                    if read % (STREAMED // 5) == 0:
                        most = max(most, count_ours()["RunActor"] - before)
                        assert engine.statistics().live_runs <= LIMIT
        finally:
            gc.enable()
        assert read == STREAMED
        assert most <= LIMIT + 1

    async def test_a_slow_reader_of_an_async_source_bounds_it(self) -> None:
        """A run that has ended and was not read counts, so the source waits."""
        pulled = 0

        async def items() -> AsyncIterator[int]:
            nonlocal pulled
            for pulled in range(1, 200):
                yield pulled

        read = 0
        async with Engine():
            async for _ in number.stream(items(), limit=10):
                read += 1
                for _ in range(5):
                    await anyio.lowlevel.checkpoint()
                assert pulled - read <= 10
        assert read == 199

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_memory_does_not_grow(self, backend: str) -> None:
        """Streaming many tasks takes no more memory than streaming a few."""
        (growth,) = output_of(
            f"""if True:
            import anyio, resource, sys
            from engine import Engine, task

            @task
            async def number(x):
                return x

            def peak():
                return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

            async def main():
                async with Engine():
                    async for _ in number.stream(range(2 * {LIMIT}), limit={LIMIT}):
                        pass
                    before = peak()
                    async for _ in number.stream(range({STREAMED}), limit={LIMIT}):
                        pass
                    print(peak() - before)

            anyio.run(main, backend={backend!r})
            """
        )
        unit = 1 if sys.platform == "darwin" else 1024
        assert int(growth) * unit < STREAMED * 640, "64 MB for 100,000 of them"

    async def test_it_can_be_endless(self) -> None:
        """A stream over an endless iterable is read for as long as one likes."""

        def forever() -> Iterator[int]:
            while True:
                yield 1

        read = 0
        async with Engine(), number.stream(forever(), limit=3) as stream:
            async for _ in stream:
                read += 1
                if read == 50:
                    break
        assert read == 50


def open_files() -> int:
    """Count this process's open files and sockets."""
    return len(os.listdir("/dev/fd"))


def tasks_here() -> int:
    """Count the tasks of the running loop."""
    if trio.lowlevel.in_trio_run():
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


@task
def sync_number(x: int) -> int:
    return x


@task(retries=1, on_running=[async_hook], on_failure=[async_hook], timeout_seconds=60)
async def failing() -> None:
    raise ValueError


@flow
async def family(x: int) -> int:
    number.submit(x)
    return await number(x)


class TestManyRuns:
    async def test_nothing_is_left_of_them(self) -> None:
        """After many runs of every kind no task, thread, slot, file or object stays."""

        async def some(count: int) -> None:
            kinds: list[Any] = [number, number, number, number, number, family]
            for i in range(count):
                handles = [engine.start(fn, i) for fn in kinds]
                if i % 5 == 0:
                    handles += [engine.start(failing), engine.start(sync_number, i)]
                if i % 7 == 0:
                    handles[0].cancel()
                for handle in handles:
                    await handle.join()

        async with Engine(max_concurrency=4, history=10) as engine:
            subscription = engine.subscribe(buffer=5, overflow="drop_oldest")
            before = await self.measure(engine, some, RUNS // 80)
            after = await self.measure(engine, some, RUNS // 8)
            assert engine.statistics().ended_runs > RUNS
            assert after == before
            assert engine.statistics().hooks.waiting == 0
            assert engine.statistics().waiting_runs == 0
            assert not engine.live
            subscription.close()

    async def measure(self, engine: Engine, work: Any, count: int) -> dict[str, Any]:
        await work(count)
        for _ in range(2):
            await engine.start(number, 0)  # the last whose steps the subscriber keeps
        await anyio.wait_all_tasks_blocked()
        gc.collect()
        # How many threads a burst needs depends on the scheduler; more than one is
        # never needed here.
        assert engine.statistics().threads <= 4
        return {
            "files": open_files(),
            "tasks": tasks_here(),
            "live": engine.statistics().live_runs,
            **count_ours(),
        }

    def test_engines_of_one_call_leave_nothing(self) -> None:
        """Each of many calls without an engine cleans up after its own."""

        @flow(on_completion=[async_hook])
        def with_a_loop() -> int:
            return sync_number.submit(1).result() + number.submit(2).result()

        @flow
        def alone() -> int:
            return sync_number(1)

        threads = set(threading.enumerate())
        with_a_loop()
        alone()
        until(lambda: threads.issuperset(threading.enumerate()))
        gc.collect()
        before = open_files(), count_ours()
        for _ in range(20):
            assert with_a_loop() == 3
        for _ in range(200):
            assert alone() == 1
        until(lambda: threads.issuperset(threading.enumerate()))
        gc.collect()
        assert (open_files(), count_ours()) == before


class TestASubscriberThatNeverReads:
    @pytest.mark.parametrize("overflow", ["drop_oldest", "fail"])
    async def test_it_keeps_its_buffer_and_no_more(self, overflow: Any) -> None:
        """What it holds is bounded by its buffer, however many transitions pass."""
        async with Engine(history=0) as engine:
            gc.collect()
            before = count_ours()["Transition"]
            subscription = engine.subscribe(buffer=50, overflow=overflow)
            for _ in range(500):
                await engine.start(number, 1).join()
            gc.collect()
            assert count_ours()["Transition"] - before <= 50
            assert subscription.statistics().buffered <= 50
            subscription.close()
            gc.collect()
            assert count_ours()["Transition"] == before


class Wakeups(trio.abc.Instrument):
    """Counts how often a loop looks for something to do."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1

    def watch(self) -> None:
        """Begin to count on the running loop."""
        if trio.lowlevel.in_trio_run():
            trio.lowlevel.add_instrument(self)
            return
        selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
        select = selector.select

        def counting(timeout: float | None = None) -> Any:
            self.count += 1
            return select(timeout)

        selector.select = counting


class TestIdle:
    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> Any:
        return virtual_time_options(request.param)

    async def test_an_idle_engine_makes_no_wake_ups(self) -> None:
        """In an hour without runs the loop wakes up at its end only."""
        wakeups = Wakeups()
        async with Engine(
            max_concurrency=3, on_transition=[async_transition]
        ) as engine:
            subscription = engine.subscribe()
            await engine.start(number, 1)
            await engine.start(failing).join()
            await anyio.wait_all_tasks_blocked()
            wakeups.watch()
            await anyio.sleep(3600)
            assert wakeups.count <= 3
            subscription.close()

    async def test_nor_does_a_run_that_waits(self) -> None:
        """Waiting runs, deadlines and delays cost their own timers only."""
        wakeups = Wakeups()

        @task(timeout_seconds=5000)
        async def wait() -> None:
            await anyio.sleep_forever()

        async with Engine(shutdown_grace=0) as engine:
            for _ in range(10):
                engine.start(wait)
            await anyio.wait_all_tasks_blocked()
            wakeups.watch()
            await anyio.sleep(3600)
            assert wakeups.count <= 3

    def test_nor_does_a_background_loop(self) -> None:
        """A loop that was started for one async task has no timer afterwards."""
        with Engine() as engine:
            engine.start(number, 1).result(SECONDS)
            background = engine.loops.started(1)
            until(lambda: not background.loop._ready)
            assert not background.loop._scheduled


async def async_transition(transition: Transition) -> None: ...
