"""Threads for sync bodies and hooks: reused, limited, lent, and left behind."""

import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from engine import Engine, as_completed, flow, task, wait
from engine.executors.job import Job
from engine.executors.thread import ThreadPool, block, lend_place

SECONDS = 10
"""How long a test waits for a thread before it fails."""


def until(condition: Callable[[], object]) -> None:
    """Let other threads run until something is true."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0)


def finish(job: Job) -> Any:
    """Wait for a job; return its result or raise its error."""
    done = threading.Event()
    if job.subscribe(done.set):
        assert done.wait(SECONDS)
    return job.result()


def away(pool: ThreadPool) -> int:
    """Return how many threads of a pool have lent their place."""
    return pool.threads - len(pool._present)


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool("test-pool", 2)
    yield pool
    pool.close()
    until(lambda: not pool.threads)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


class TestPool:
    def test_a_thread_is_used_again(self, pool: ThreadPool) -> None:
        """Calls one after the other need one thread, which waits between them."""
        idents = set()
        for _ in range(5):
            idents.add(finish(pool.start(threading.get_ident)))
            until(lambda: pool._idle)
        assert len(idents) == 1
        assert pool.threads == 1

    def test_whoever_is_woken_finds_the_arguments_freed(
        self, pool: ThreadPool, go_on: threading.Event
    ) -> None:
        """A call that is over holds nothing: its run may be let go of at once."""

        class Argument:
            pass

        argument, woken = Argument(), threading.Event()
        alive, seen = weakref.ref(argument), []

        def wake() -> None:
            seen.append(alive())
            woken.set()

        job = pool.start(lambda _: go_on.wait(SECONDS), argument)
        del argument
        assert job.subscribe(wake)
        go_on.set()
        assert woken.wait(SECONDS)
        assert seen == [None]

    def test_threads_do_not_hold_up_the_exit(self, pool: ThreadPool) -> None:
        """They are daemons, and named after their pool."""
        thread = finish(pool.start(threading.current_thread))
        assert thread.daemon
        assert thread.name == "test-pool"

    def test_there_are_never_more_than_the_limit(
        self, pool: ThreadPool, go_on: threading.Event
    ) -> None:
        """Further calls wait, and begin in the order they came."""
        began: list[int] = []

        def call(number: int) -> None:
            began.append(number)
            go_on.wait(SECONDS)

        jobs = [pool.start(call, number) for number in range(6)]
        until(lambda: len(began) == 2)
        assert pool.threads == 2
        go_on.set()
        for job in jobs:
            finish(job)
        assert pool.threads == 2
        assert sorted(began[:2]) == [0, 1]
        assert set(began) == set(range(6))

    def test_waiting_calls_begin_in_order(self, go_on: threading.Event) -> None:
        """With one thread, calls are made in the order they were asked for."""
        pool, order = ThreadPool("test-pool", 1), []
        jobs = [pool.start(go_on.wait, SECONDS)]
        jobs += [pool.start(order.append, number) for number in range(20)]
        go_on.set()
        for job in jobs:
            finish(job)
        pool.close()
        assert order == list(range(20))

    @pytest.mark.parametrize("error", [ValueError(), SystemExit(), StopIteration()])
    def test_an_error_is_the_call_s_result(
        self, pool: ThreadPool, error: BaseException
    ) -> None:
        """Whatever a call raises is raised to who asks; the thread goes on."""

        def fail() -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            finish(pool.start(fail))
        assert caught.value is error
        assert finish(pool.start(lambda: 1)) == 1

    def test_closing_ends_idle_threads_at_once(self, pool: ThreadPool) -> None:
        """A pool that closes lets go of who waits for work."""
        thread = finish(pool.start(threading.current_thread))
        until(lambda: pool._idle)
        pool.close()
        thread.join(SECONDS)
        assert not thread.is_alive()
        assert pool.threads == 0

    def test_closing_lets_busy_threads_finish(
        self, pool: ThreadPool, go_on: threading.Event
    ) -> None:
        """What was asked for before is done, then the threads end by themselves."""
        done: list[int] = []
        jobs = [pool.start(go_on.wait, SECONDS) for _ in range(2)]
        jobs.append(pool.start(done.append, 1))
        pool.close()
        assert pool.threads == 2
        go_on.set()
        for job in jobs:
            finish(job)
        until(lambda: not pool.threads)
        assert done == [1]

    def test_a_late_call_is_made_all_the_same(self, pool: ThreadPool) -> None:
        """After closing there is a thread for each further call, but not for longer."""
        pool.close()
        assert finish(pool.start(lambda: 1)) == 1
        until(lambda: not pool.threads)

    def test_many_callers_and_no_call_is_lost(self, pool: ThreadPool) -> None:
        """Calls from several threads at once are each made once."""
        made: list[tuple[int, int]] = []

        def ask(thread: int) -> None:
            jobs = [pool.start(made.append, (thread, i)) for i in range(100)]
            for job in jobs:
                finish(job)

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(made) == [(t, i) for t in range(4) for i in range(100)]
        assert pool.threads <= 2

    def test_two_find_room_for_one_thread(self, pool: ThreadPool) -> None:
        """Who comes second starts none."""
        pool._limit = 1
        assert finish(pool.start(lambda: 1)) == 1
        pool._start_thread()
        assert pool.threads == 1


class TestLending:
    def test_a_waiting_thread_lends_its_place(self, go_on: threading.Event) -> None:
        """While the only thread of a pool waits for another call, a second is there."""
        pool = ThreadPool("test-pool", 1)

        def outer() -> int:
            inner = pool.start(lambda: 2)
            with lend_place():
                return finish(inner) + 1

        assert finish(pool.start(outer)) == 3
        until(lambda: len(pool._idle) == 2 and not away(pool))
        pool.close()

    def test_chains_of_any_length_get_through(self) -> None:
        """Each link of a chain waits for the next, in a pool of one thread."""
        pool = ThreadPool("test-pool", 1)

        def link(left: int) -> int:
            if not left:
                return 0
            below = pool.start(link, left - 1)
            with lend_place():
                return finish(below) + 1

        assert finish(pool.start(link, 20)) == 20
        pool.close()

    def test_only_threads_of_a_pool_have_a_place(self, pool: ThreadPool) -> None:
        """Lending in the user's own thread changes no pool's count."""
        with lend_place():
            assert not away(pool)

    def test_the_place_comes_back_after_an_error(self, pool: ThreadPool) -> None:
        """A wait that fails does not leave the pool larger for ever."""

        def fail() -> None:
            with lend_place():
                raise OSError

        for _ in range(3):
            with pytest.raises(OSError):  # noqa: PT011 - raised right above
                finish(pool.start(fail))
        assert not away(pool)


class Waits(threading.Event):
    """An event that notes how long it is waited for, and comes at the fifth time."""

    def __init__(self) -> None:
        super().__init__()
        self.timeouts: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.timeouts.append(timeout)
        return len(self.timeouts) == 5


class TestBlocking:
    def test_signals_race_with_the_beginning_of_a_wait(self) -> None:
        """A signal is handled soon, also if it comes just as the thread blocks."""
        begun, handled, over = threading.Event(), threading.Event(), threading.Event()
        main = threading.get_ident()

        def send() -> None:
            for _ in range(20):
                begun.wait(SECONDS)
                begun.clear()
                signal.pthread_kill(main, signal.SIGUSR1)
                if not handled.wait(SECONDS / 5):
                    missed.append(signal.SIGUSR1)
                over.set()

        missed: list[int] = []
        previous = signal.signal(signal.SIGUSR1, lambda *_: handled.set())
        thread = threading.Thread(target=send)
        thread.start()
        try:
            for _ in range(20):
                begun.set()  # the other thread goes on when this one lets it: it blocks
                block(over, SECONDS)
                over.clear()
                handled.clear()
                if missed:
                    break
        finally:
            thread.join()
            signal.signal(signal.SIGUSR1, previous)
        assert not missed

    def test_the_main_thread_looks_up_ever_more_seldom(self) -> None:
        """However long it waits, it does so a few times; other threads only once."""
        event = Waits()
        assert block(event)
        assert sorted(event.timeouts, key=float) == event.timeouts
        assert event.timeouts[4] == pytest.approx(16 * event.timeouts[0], rel=0.1)

    def test_a_timeout_is_kept(self) -> None:
        """A wait takes no longer than it may, also one that is over already."""
        for timeout in (-1.0, 0.0, 0.01, 0.06):
            began = time.monotonic()
            assert not block(threading.Event(), timeout)
            assert timeout <= time.monotonic() - began
        event = Waits()
        assert not block(event, 0.3)
        assert event.timeouts[-1] == pytest.approx(0.3, abs=0.05)

    def test_other_threads_wait_at_one_go(self, pool: ThreadPool) -> None:
        """They handle no signals."""
        event = Waits()
        finish(pool.start(block, event))
        assert event.timeouts == [None]


class TestAbandoning:
    def test_a_call_that_hangs_gives_its_place_to_another(
        self, go_on: threading.Event
    ) -> None:
        """Nobody waits behind an abandoned call, which counts until it returns."""
        pool = ThreadPool("test-pool", 1)
        began = threading.Event()

        def hang() -> None:
            began.set()
            go_on.wait(SECONDS)

        job = pool.start(hang)
        assert began.wait(SECONDS)
        behind = pool.start(lambda: 1)
        assert job.abandon()
        assert finish(behind) == 1
        assert pool.abandoned == 1
        go_on.set()
        until(lambda: not pool.abandoned)
        until(lambda: len(pool._idle) == 2 and not away(pool))
        pool.close()

    def test_a_thread_given_up_while_it_waits_gets_no_place_by_waking_up(
        self, go_on: threading.Event
    ) -> None:
        """It takes none before its call is over."""
        pool = ThreadPool("test-pool", 1)
        woken, waits, last = (threading.Event() for _ in range(3))

        def hang() -> None:
            with lend_place():
                waits.set()
                go_on.wait(SECONDS)
            woken.set()
            last.wait(SECONDS)

        job = pool.start(hang)
        assert waits.wait(SECONDS)
        assert job.abandon()
        go_on.set()
        assert woken.wait(SECONDS)
        assert (pool.abandoned, away(pool)) == (1, 1)
        assert finish(pool.start(lambda: 1)) == 1
        last.set()
        until(lambda: not pool.abandoned and not away(pool))
        pool.close()

    def test_a_call_that_has_returned_cannot_be_abandoned(
        self, pool: ThreadPool
    ) -> None:
        """Who comes too late finds the result."""
        job = pool.start(lambda: 1)
        finish(job)
        assert not job.abandon()
        assert pool.abandoned == 0

    def test_a_call_that_has_not_begun_never_will(self, go_on: threading.Event) -> None:
        """Abandoned while it waits for a thread, a call is not made, nor counted."""
        pool, called = ThreadPool("test-pool", 1), []
        blocker = pool.start(go_on.wait, SECONDS)
        job = pool.start(called.append, 1)
        assert job.abandon()
        assert (pool.abandoned, away(pool)) == (0, 0)
        go_on.set()
        finish(blocker)
        finish(pool.start(bool))
        assert not called
        pool.close()


def by_result(handles: Any) -> list[int]:
    return [handle.result() for handle in handles]


def by_wait(handles: Any) -> list[int]:
    return [handle.wait().result() for handle in handles]


def by_list(handles: Any) -> list[int]:
    values: list[int] = handles.result()
    return values


def by_waiting_for_all(handles: Any) -> list[int]:
    assert not wait(handles).not_done
    return by_result(handles)


def as_they_complete(handles: Any) -> list[int]:
    return sorted(handle.result() for handle in as_completed(handles))


@task
def add(*numbers: int) -> list[int]:
    return list(numbers)


def as_arguments(handles: Any) -> list[int]:
    return add(*handles)


def by_returning(handles: Any) -> Any:
    return handles


@task
def double(x: int) -> int:
    return 2 * x


class TestStarvation:
    """More parents than threads, each waiting for tasks that need a thread."""

    @pytest.fixture
    def engine(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
        monkeypatch.setattr("engine.host.BODY_THREADS", 2)
        with Engine() as engine:
            yield engine
            until(lambda: not away(engine.threads))

    @pytest.mark.parametrize(
        "wait_for_them",
        [
            by_result,
            by_wait,
            by_list,
            by_waiting_for_all,
            as_they_complete,
            as_arguments,
            by_returning,
        ],
    )
    def test_sync_flows_that_wait_for_submitted_sync_tasks_finish(
        self, engine: Engine, wait_for_them: Callable[[Any], Any]
    ) -> None:
        """Six flows in a pool of two threads get the results of their tasks."""
        together = threading.Barrier(2)

        @flow
        def parent(number: int) -> Any:
            if number < 2:
                together.wait(SECONDS)  # both threads have a parent now
            return wait_for_them(double.map([1, 2, 3]))

        handles = [engine.start(parent, number) for number in range(6)]
        for handle in handles:
            state = handle.wait(SECONDS)
            assert state.is_completed()
            values = state.data
            if wait_for_them is by_returning:
                values = [child.data for child in values]
            assert values == [2, 4, 6]

    def test_so_do_flows_that_do_not_wait(self, engine: Engine) -> None:
        """A flow's end waits for its tasks, and lends its place as well."""

        @flow
        def parent() -> None:
            double.submit(1)
            double.submit(2)

        handles = [engine.start(parent) for _ in range(6)]
        assert {handle.wait(SECONDS).name for handle in handles} == {"Completed"}

    def test_so_do_streams(self, engine: Engine) -> None:
        """A flow that reads a stream of sync tasks lends its place between them."""

        @flow
        def parent() -> int:
            return sum(h.result() for h in double.stream(range(10), limit=2))

        handles = [engine.start(parent) for _ in range(6)]
        assert [handle.result(SECONDS) for handle in handles] == [90] * 6

    def test_so_do_flows_in_flows(self, engine: Engine) -> None:
        """Waiting parents may be stacked deeper than there are threads."""

        @task
        def parent(depth: int) -> int:
            return 1 + parent.submit(depth - 1).result() if depth else 0

        assert engine.start(parent, 12).result(SECONDS) == 12

    def test_so_do_runs_between_attempts(self, engine: Engine) -> None:
        """A run that waits for its retry lends its place, and stops when cancelled."""

        @task(retries=1, retry_delay_seconds=1000)
        def fail() -> None:
            raise ValueError

        waiting = [engine.start(fail) for _ in range(4)]
        assert engine.start(double, 1).result(SECONDS) == 2
        for handle in waiting:
            until(lambda handle=handle: handle.state.is_scheduled())
            handle.cancel()
            assert handle.wait(SECONDS).is_cancelled()

    def test_so_do_abandoned_bodies(
        self, engine: Engine, go_on: threading.Event
    ) -> None:
        """Bodies that hang past their deadline do not stop the ones behind them."""

        @task(timeout_seconds=0.1)
        def hang() -> None:
            go_on.wait(SECONDS)

        handles = [engine.start(hang) for _ in range(4)]
        assert {handle.wait(SECONDS).name for handle in handles} == {"TimedOut"}
        assert engine.start(double, 1).result(SECONDS) == 2
        assert engine.statistics().abandoned_threads == 4
        go_on.set()
        until(lambda: not engine.statistics().abandoned_threads)

    async def test_so_do_runs_that_wait_on_the_host_s_loop(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Sync parents in worker threads wait for async children on the host's loop."""
        monkeypatch.setattr("engine.host.BODY_THREADS", 1)

        @task
        async def child(x: int) -> int:
            await anyio.lowlevel.checkpoint()
            return 2 * x

        @flow
        def parent() -> int:
            return child.submit(1).result() + double.submit(2).result()

        async with Engine() as engine:
            handles = [engine.start(parent) for _ in range(5)]
            with anyio.fail_after(SECONDS):
                assert [await handle for handle in handles] == [6] * 5


class TestAbandonedBodies:
    """A blocked sync body cannot be stopped: its run ends on time, without it."""

    def test_the_deadline_is_on_time_and_the_late_result_dropped(
        self, go_on: threading.Event
    ) -> None:
        """The run is TimedOut while its body goes on, and stays so."""

        @task(timeout_seconds=0.1, retries=3)
        def hang() -> int:
            go_on.wait(SECONDS)
            return 1

        with Engine() as engine:
            handle = engine.start(hang)
            assert handle.wait(SECONDS).name == "TimedOut"
            assert handle.state.attempt == 1, "what hangs is not tried again"
            assert engine.statistics().abandoned_threads == 1
            transitions = engine.statistics().transitions
            go_on.set()
            until(lambda: not engine.statistics().abandoned_threads)
            assert engine.statistics().transitions == transitions
            assert handle.state.name == "TimedOut"

    def test_so_is_a_cancellation(self, go_on: threading.Event) -> None:
        """A cancelled run does not wait for a body that cannot hear it."""
        began = threading.Event()

        @flow
        def hang() -> int:
            began.set()
            go_on.wait(SECONDS)
            raise ValueError("too late")

        with Engine() as engine:
            handle = engine.start(hang)
            assert began.wait(SECONDS)
            handle.cancel()
            assert handle.wait(SECONDS).is_cancelled()
            assert engine.statistics().abandoned_threads == 1
            go_on.set()
            until(lambda: not engine.statistics().abandoned_threads)
            assert handle.state.is_cancelled()

    def test_a_caller_s_own_thread_is_counted_as_well(
        self, go_on: threading.Event
    ) -> None:
        """A direct call that is cancelled from elsewhere hears of it at its end."""
        engine, counts = Engine(), []

        @flow
        def hang() -> None:
            (handle,) = engine.handles()
            stop = threading.Thread(target=handle.cancel)
            stop.start()
            stop.join()
            assert handle.state.is_cancelled()
            counts.append(engine.statistics().abandoned_threads)

        with engine:
            assert hang(return_state=True).is_cancelled()
            assert counts == [1]
            assert engine.statistics().abandoned_threads == 0

    async def test_shutdown_reports_what_hangs(self, go_on: threading.Event) -> None:
        """The engine closes on time, and says how many threads it leaves behind."""
        began = threading.Semaphore(0)

        @task
        def hang() -> None:
            began.release()
            go_on.wait(SECONDS)

        async with Engine(shutdown_grace=0) as engine:
            handles = [engine.start(hang) for _ in range(3)]
            for _ in handles:
                assert began.acquire(timeout=SECONDS)
        report = engine.shutdown_report
        assert report is not None
        assert (report.cancelled, report.abandoned_threads) == (3, 3)
        assert {handle.state.cause for handle in handles} == {"shutdown"}
        go_on.set()
        until(lambda: not engine.statistics().threads)
