"""Threads that are killed from outside, and threads that the system does not start."""

import dis
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import anyio
import pytest
from exit_contract.observation import states_after_pending
from exit_contract.tools import drive, put_off_collection, raise_in, strike
from structlog.testing import capture_logs
from support import Notes, of_each_kind
from test_threads import SECONDS, finish, until

from engine import Engine, Flow, Task, flow, placement, task
from engine.dispatch import caller
from engine.exceptions import CrashedRun
from engine.executors import job, thread
from engine.executors.thread import ThreadPool, lend_place

REFUSED = "can't start new thread"


class Strike(BaseException):
    """What is raised in a thread from outside."""


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool("test-pool", 1)
    yield pool
    pool.close()
    until(lambda: not pool.threads)


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    with capture_logs() as logged:
        yield logged


@contextmanager
def untraced() -> Iterator[None]:
    """Let nothing trace this thread.

    While an exception waits for a thread that blocks, a call in another one that is
    traced does not begin (CPython 3.11).
    """
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(trace)


@contextmanager
def refusing(
    monkeypatch: pytest.MonkeyPatch,
    *names: str,
    error: BaseException | None = None,
    after: Callable[[], object] | None = None,
) -> Iterator[None]:
    """Be a system that starts no threads of these names.

    Args:
        monkeypatch: What patches.
        names: The names.
        error: What is raised; None is what Python raises then.
        after: Waits for a thread that begins all the same; None where none does.
    """
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        refused = self.name in names
        if after or not refused:
            start(self)
        if refused:
            if after:
                after()
            raise error or RuntimeError(REFUSED)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


def kill_idle(pool: ThreadPool) -> threading.Thread:
    """Have the only thread of a pool, which waits, die as soon as it is woken."""
    until(lambda: pool._idle)
    (worker,) = pool._workers
    put_off_collection()
    raise_in(worker.thread, Strike)
    found = {one.ident: one for one in threading.enumerate()}
    return found[worker.thread]


class TestDeath:
    """A thread dies of an exception that somebody else raises in it."""

    def test_a_call_that_an_idle_thread_was_woken_for_is_made_by_another(
        self, pool: ThreadPool, logged: list[Any]
    ) -> None:
        """The thread dies before it has taken the call, which is not lost with it."""
        first = finish(pool.start(threading.get_ident))
        with untraced():
            dead = kill_idle(pool)
            second = pool.start(threading.get_ident)
            assert finish(second) != first
            dead.join(SECONDS)
        assert pool.threads == 1
        lost = {"thread": "test-pool", "error": "Strike", "event": "thread_lost"}
        assert logged == [{**lost, "log_level": "error"}]

    def test_whoever_wanted_a_call_is_told_what_it_was_lost_with(
        self, pool: ThreadPool
    ) -> None:
        """The thread dies in the call's hands, and the next call has another."""
        error, lost = Strike(), []

        def die() -> None:
            raise error

        pool.submit(die, lost.append)
        assert finish(pool.start(returns)) == 1
        assert lost == [error]
        assert counted(pool) == 1

    def test_a_call_that_has_returned_keeps_its_result(self, pool: ThreadPool) -> None:
        """What its thread dies of afterwards changes nothing."""
        job = pool.start(returns)
        assert finish(job) == 1
        job.lose(Strike())
        assert job.result() == 1

    def test_a_service_goes_on_in_another_thread(self) -> None:
        """Hooks are served although the thread that was to do so has died."""
        calls: list[int] = []

        async def serve(number: int) -> None:
            calls.append(number)
            if len(calls) == 1:
                raise Strike

        with Engine() as engine:
            engine.worker.spawn_service(serve, 7)
            until(lambda: len(calls) == 2)
        assert calls == [7, 7]

    def test_one_that_is_not_needed_is_not_replaced(self, pool: ThreadPool) -> None:
        """A closed pool whose thread dies has none."""
        finish(pool.start(bool))
        with untraced():
            dead = kill_idle(pool)
            pool.close()
            dead.join(SECONDS)
        assert pool.threads == 0

    @of_each_kind
    def test_an_idle_thread_of_an_engine(self, kind: str) -> None:
        """A run that is submitted to a thread just killed completes in another."""
        work = {"flow": flow, "task": task}[kind](lambda: 1)
        with Engine() as engine:
            before = engine.start(work)
            assert before.result(SECONDS) == 1
            with untraced():
                kill_idle(engine.threads)
                assert engine.start(work).result(SECONDS) == 1
            assert before.state.is_completed()
            assert engine.statistics().threads == 1


CHECKED = ("CALL", "JUMP_BACKWARD", "RESUME")
"""Instructions at which Python raises what waits for a thread."""


@functools.cache
def checked(code: CodeType) -> set[int]:
    """Return where in a function an exception from outside may be raised."""
    found = dis.get_instructions(code)
    return {step.offset for step in found if step.opname.startswith(CHECKED)}


FILES = {job.__file__, thread.__file__}
FUNCTIONS = {
    placement.work.__code__,
    caller.drive.__code__,
    caller.CallerDispatcher.spawn_service.__code__,
}


class Assassin:
    """Raises an exception in the first thread of a name, at one of its steps there.

    Only steps in the pool's own code count, up to the *number*-th.
    """

    def __init__(self, name: str, number: int) -> None:
        self._name = name
        self._left = number
        self._victim: threading.Thread | None = None
        self.is_retired = False

    @property
    def has_struck(self) -> bool:
        """Whether there were as many steps."""
        return not self._left

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        here = threading.current_thread()
        if here.name == self._name and self._victim is None:
            self._victim = here
        if here is not self._victim or self.has_struck:
            sys.settrace(None)
            return None
        code = frame.f_code
        if code.co_filename not in FILES and code not in FUNCTIONS:
            return None
        frame.f_trace_opcodes = True  # some versions of Python give lines only
        return self._step

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        is_one = event == "line" or (
            event == "opcode" and frame.f_lasti in checked(frame.f_code)
        )
        if is_one and self._left and not self.is_retired:
            self._left -= 1
            if not self._left:
                threading.settrace(None)  # type: ignore[arg-type]
                frame.f_trace_opcodes = False  # or it would hit what traces
                sys.settrace(None)
                strike(Strike)
        return self._step


@contextmanager
def stalked(name: str, number: int) -> Iterator[Assassin]:
    """Have an exception raised in a thread of a name that is started in the block."""
    trace, assassin = threading.gettrace(), Assassin(name, number)
    threading.settrace(assassin)
    try:
        with untraced():
            yield assassin
            until(lambda: not alive("engine-body") and not alive("engine-hook"))
    finally:
        threading.settrace(trace)  # type: ignore[arg-type]


def returns() -> int:
    return 1


def submits() -> int:
    result: int = task(returns).submit().result()
    return result


ENDS = {
    "Cancelled": "on_cancellation",
    "Completed": "on_completion",
    "Failed": "on_failure",
    "Crashed": "on_crashed",
}


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
class TestEverywhere:
    """A thread dies at each step of the pool's own code, one after the other."""

    @pytest.mark.parametrize("body", [returns, submits])
    @pytest.mark.parametrize("name", ["engine-body", "engine-hook"])
    def test_a_run_ends_once_with_its_hooks_and_the_pool_goes_on(
        self, name: str, body: Callable[[], int]
    ) -> None:
        """Wherever it is struck: the run, its hooks, the next run, the counts."""
        number, ends = 0, set()
        while True:
            number += 1
            with stalked(name, number) as assassin:
                ends.add(self.end_of_a_run(body, assassin))
            if not assassin.has_struck:
                break
        assert number > 40
        assert ("Running", "Completed") in ends
        lost = ("Crashed, cause worker_lost",)
        assert (lost in ends) == (name == "engine-body")

    def test_so_do_hooks_that_a_thread_of_their_own_serves(self) -> None:
        """The body hangs: a hook thread is the server, and a second one calls them."""
        number = 0
        while True:
            number += 1
            with stalked("engine-hook", number) as assassin:
                self.cancel_a_run()
            if not assassin.has_struck:
                break
        assert number > 40

    def cancel_a_run(self) -> None:
        """Have a run cancelled whose body goes on until its hooks are done."""
        calls, entered, go_on = Notes(), threading.Event(), threading.Event()

        @task(on_cancellation=[calls.hook("on_cancellation")])
        def hang() -> None:
            entered.set()
            go_on.wait(SECONDS)

        with Engine() as engine:
            handle = engine.start(hang)
            assert entered.wait(SECONDS)
            handle.cancel()
            assert handle.wait(SECONDS).is_cancelled()
            self.check_hooks(handle, calls)
            go_on.set()
            until(lambda: counted(engine.threads) == alive("engine-body"))
            until(lambda: counted(engine.hook_threads) == alive("engine-hook"))
            assert engine.statistics().abandoned_threads == 0

    def end_of_a_run(
        self, body: Callable[[], int], assassin: Assassin
    ) -> tuple[str, ...]:
        """Have two runs, and one more; return the states of the first."""
        calls = Notes()
        struck = flow(**calls.hooks())(body)
        with Engine() as engine:
            tape = engine.subscribe(buffer=1000, overflow="fail")
            handle = engine.start(struck)
            end = handle.wait(SECONDS)
            self.check_hooks(handle, calls)
            # The strike may hit the second one, for which a thread was waiting.
            assert engine.start(flow(returns)).wait(SECONDS).is_final()
            assassin.is_retired = True
            assert engine.start(flow(returns)).result(SECONDS) == 1
            assert engine.statistics().live_runs == 0
            until(lambda: counted(engine.threads) == alive("engine-body"))
            until(lambda: counted(engine.hook_threads) == alive("engine-hook"))
            assert engine.statistics().abandoned_threads == 0
            steps = [drive(tape.__anext__()) for _ in range(tape.statistics().buffered)]
        states = [step for step in steps if step.run.id == handle.id]
        assert [step.state.is_final() for step in states].count(True) == 1
        assert states[-1].state is end
        return states_after_pending(states)

    def check_hooks(self, handle: Any, calls: Notes) -> None:
        """See that each hook was called once, in order, or is said to have failed."""
        kinds = [ENDS[handle.state.name]]
        if handle.state.attempt and not handle.state.is_cancelled():
            kinds.insert(0, "on_running")
        outcomes = handle.hook_outcomes
        assert [outcome.kind for outcome in outcomes] == kinds
        called = [kind for kind, _ in calls]
        assert called == [kind for kind in kinds if kind in called]
        for outcome in outcomes:
            if outcome.kind not in called or outcome.status != "delivered":
                assert outcome.status == "failed"
                assert isinstance(outcome.error, Strike)


def alive(name: str) -> int:
    """Return how many threads of a name there are."""
    return sum(one.name == name for one in threading.enumerate())


def counted(pool: ThreadPool) -> int:
    """Return how many threads a pool counts, all of which have a place."""
    return pool.threads if len(pool._present) == pool.threads else -1


class TestRefusal:
    """The system starts no more threads."""

    def test_a_call_that_no_thread_will_ever_make_has_failed(
        self, pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its result is the error; the pool has no thread, and starts one later."""
        with refusing(monkeypatch, "test-pool"):
            job = pool.start(bool)
            with pytest.raises(RuntimeError, match=REFUSED):
                finish(job)
            assert pool.threads == 0
        assert finish(pool.start(returns)) == 1

    def test_a_call_waits_for_the_threads_that_there_are(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One thread makes what two would have."""
        pool, go_on = ThreadPool("test-pool", 2), threading.Event()
        first = pool.start(go_on.wait, SECONDS)
        with refusing(monkeypatch, "test-pool"):
            second = pool.start(returns)
            assert pool.threads == 1
        go_on.set()
        assert finish(first)
        assert finish(second) == 1
        pool.close()

    def test_a_call_does_not_wait_for_a_thread_that_waits_for_it(
        self, pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A thread that lends its place to one that cannot be started gets an error."""

        def outer() -> str:
            inner = pool.start(returns)
            with lend_place(), pytest.raises(RuntimeError, match=REFUSED):
                finish(inner)
            return "goes on"

        finish(pool.start(bool))
        with refusing(monkeypatch, "test-pool"):
            assert finish(pool.start(outer)) == "goes on"
        assert finish(pool.start(returns)) == 1
        assert counted(pool) == 1

    def test_a_call_that_nobody_asks_about_is_refused_to_its_submitter(
        self, pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There is nobody else to tell."""
        calls: list[None] = []
        with (
            refusing(monkeypatch, "test-pool"),
            pytest.raises(RuntimeError, match=REFUSED),
        ):
            pool.submit(lambda: calls.append(None))
        assert finish(pool.start(returns)) == 1
        assert not calls

    @pytest.mark.parametrize("begins", [False, True])
    def test_whoever_is_interrupted_in_starting_a_thread_has_it_counted_right(
        self, pool: ThreadPool, monkeypatch: pytest.MonkeyPatch, begins: bool
    ) -> None:
        """Ctrl-C may come before or after the system has started it."""
        calls: list[Any] = []
        error = KeyboardInterrupt()
        after = (lambda: until(lambda: calls)) if begins else None
        with (
            refusing(monkeypatch, "test-pool", error=error, after=after),
            pytest.raises(KeyboardInterrupt),
        ):
            pool.submit(lambda: calls.append(1), calls.append)
        assert finish(pool.start(returns)) == 1
        assert calls == [1 if begins else error]
        until(lambda: counted(pool) == alive("test-pool") == 1)

    @of_each_kind
    def test_a_run_crashes_on_a_plain_thread(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its hooks are called, its caller is told, and the next run completes."""
        notes, body = Notes(), decorated(kind, returns)
        with Engine() as engine:
            with refusing(monkeypatch, "engine-body"):
                handle = engine.start(body.with_options(**notes.hooks()))
                with pytest.raises(CrashedRun, match=REFUSED):
                    handle.result(SECONDS)
            check_refused(handle, notes)
            assert engine.start(body).result(SECONDS) == 1

    @of_each_kind
    async def test_so_it_does_on_a_loop(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Likewise."""
        notes, body = Notes(), decorated(kind, returns)
        async with Engine(max_concurrency=1) as engine:
            with refusing(monkeypatch, "engine-body"):
                handle = engine.start(body.with_options(**notes.hooks()))
                with anyio.fail_after(SECONDS), pytest.raises(CrashedRun):
                    await handle
            check_refused(handle, notes)
            with anyio.fail_after(SECONDS):
                assert await engine.run(body) == 1

    def test_a_child_ends_before_its_parent(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The parent gets the error of a child that found no thread."""

        @flow
        def parent() -> None:
            task(returns).submit().result()

        with Engine() as engine:
            tape = engine.subscribe(buffer=100, overflow="fail")
            with refusing(monkeypatch, "engine-body"), pytest.raises(CrashedRun):
                parent()
            steps = [drive(tape.__anext__()) for _ in range(tape.statistics().buffered)]
        ended = [step.state.name for step in steps if step.state.is_final()]
        assert ended == ["Crashed", "Failed"]

    @of_each_kind
    @pytest.mark.parametrize("error", [None, KeyboardInterrupt(REFUSED)])
    def test_a_hook_has_failed(
        self, kind: str, error: BaseException | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The run completes without its hooks, whose outcomes say why."""
        notes = Notes()
        body = decorated(kind, returns).with_options(**notes.hooks())
        with Engine() as engine:
            with refusing(monkeypatch, "engine-hook", error=error):
                handle = engine.start(body)
                assert handle.result(SECONDS) == 1
                check_failed(handle)
            assert engine.statistics().threads == 1
        assert not notes

    @of_each_kind
    async def test_a_hook_has_failed_on_a_loop(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Likewise."""

        async def body() -> int:
            return 1

        notes = Notes()
        run = decorated(kind, body).with_options(**notes.hooks())
        async with Engine() as engine:
            with refusing(monkeypatch, "engine-hook"), anyio.fail_after(SECONDS):
                handle = engine.start(run)
                assert await handle == 1
            check_failed(handle)
        assert not notes


def decorated(kind: str, fn: Callable[..., Any]) -> Flow[..., Any] | Task[..., Any]:
    """Make a flow or task."""
    made: Flow[..., Any] | Task[..., Any]
    made = flow(fn) if kind == "flow" else task(fn)
    return made


def check_refused(handle: Any, notes: Notes) -> None:
    """See that a run has crashed straight from Pending."""
    assert (handle.state.name, handle.state.cause) == ("Crashed", "worker_lost")
    assert handle.state.attempt == 0
    assert isinstance(handle.state.data, RuntimeError)
    assert notes == [("on_crashed", "Crashed")]


def check_failed(handle: Any) -> None:
    """See that a run's hooks have failed for want of a thread."""
    outcomes = handle.hook_outcomes
    assert [outcome.kind for outcome in outcomes] == ["on_running", "on_completion"]
    assert {outcome.status for outcome in outcomes} == {"failed"}
    assert all(REFUSED in str(outcome.error) for outcome in outcomes)
