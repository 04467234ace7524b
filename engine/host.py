"""The engine: opens the tree of actors, hands runs to them, and closes it in order."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, suppress
from threading import RLock, get_ident
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    overload,
)

import anyio

from engine.actors import messages as m
from engine.actors.broadcast import Broadcast, Gap, Overflow
from engine.actors.flights import FLIGHTS
from engine.actors.hook import HookActor
from engine.actors.mailbox import Mailbox
from engine.actors.run import RUNS
from engine.actors.supervisor import Supervisor
from engine.checks import Checker
from engine.context import SCOPE
from engine.definition import Definition
from engine.dispatch.caller import CallerDispatcher, drive
from engine.dispatch.context import exc_details
from engine.dispatch.here import loop_waiter, running_backend
from engine.exceptions import (
    EngineFailedError,
    EngineForkedError,
    EngineLoopError,
    EngineNotRunningError,
    Terminated,
)
from engine.executors.background import dispatching
from engine.executors.limiter import Limiter
from engine.executors.loops import Loops
from engine.executors.thread import ThreadPool
from engine.handles import RunHandle, outcome, outcome_of_run
from engine.hooks import Hook, name_of, transition_hooks
from engine.ids import new_prefix
from engine.placement import create, current_run, perform_in_place, submit
from engine.registry import delist, enlist
from engine.runs import (
    FlowRun,
    Remembered,
    RunRecord,
    TaskRun,
    Transition,
    remembered,
    view,
)
from engine.shutdown import Shutdown, ShutdownReport, all_runs
from engine.states import State, StateType
from engine.statistics import EngineStatistics
from engine.subscription import Subscription
from engine.termination import Termination

if TYPE_CHECKING:
    from types import TracebackType

    from engine.actors.run import RunActor
    from engine.dispatch.base import Wake
    from engine.recording import Recording

P = ParamSpec("P")
R = TypeVar("R")


BODY_THREADS: Final = 40
TROUBLED: Final = "cannot write its journal"
"""An engine's condition while it takes no new runs for that."""


class Engine:
    """Runs flows and tasks, and reports every state they pass through.

    Enter it with ``async with`` on asyncio or trio, or with ``with`` in sync code; it
    owns what is started in it until the block ends. Leaving the block takes no new
    runs, waits up to *shutdown_grace* seconds for the live ones, cancels the rest,
    waits for the hooks, and keeps a `shutdown_report`. Leaving it by an exception or a
    cancellation cancels at once. Both are bounded in time.

    An engine is an ordinary object: many can be entered in one process, one after or
    beside the other, but each only once.

    Args:
        journal: Where transitions are kept beyond the process, and the hooks they owe:
            a URL such as ``"sqlite:///path"``, or an `engine.journal.SQLiteJournal`;
            None keeps none. With one, entering delivers what lost processes owed, and
            nobody outside is told of a step (no hook, no caller of a run that has no
            parent) before it is on disk.
        max_concurrency: How many runs without live children execute at once; further
            ones wait in Pending. None is no limit.
        hook_timeout: Seconds a hook may take, unless its `Hook` says otherwise.
        hook_concurrency: How many runs' hooks are served at once on each loop.
        shutdown_grace: Seconds that live runs get to end by themselves at shutdown,
            and again to stop after being cancelled.
        history: How many records of ended runs are kept.
        signals: Whether SIGTERM ends the live runs as Crashed, cause ``terminated``,
            and then the process. Main thread only.
        on_transition: Hooks that see every transition of every run; each is called
            with a `Transition`.

    Raises:
        ValueError: An argument is out of its range.
        HookDefinitionError: An *on_transition* hook cannot be called with a transition.
    """

    def __init__(
        self,
        journal: Any = None,
        max_concurrency: int | None = None,
        hook_timeout: float = 60.0,
        hook_concurrency: int = 100,
        shutdown_grace: float = 10.0,
        history: int = 1000,
        signals: bool = False,
        on_transition: Iterable[Callable[[Transition], Any] | Hook] = (),
    ) -> None:
        check = Checker("class", "Engine")
        if max_concurrency is not None:
            check.count("max_concurrency", max_concurrency, 1)
        check.count("hook_concurrency", hook_concurrency, 1)
        check.count("history", history, 0)
        check.seconds("hook_timeout", hook_timeout, zero=False)
        check.seconds("shutdown_grace", shutdown_grace, zero=True)
        self.hook_timeout = hook_timeout
        self.lock: Any = RLock()
        self.prefix = new_prefix()
        self.next_number = itertools.count(1).__next__
        self.live: dict[Any, None] = {}
        # How many of the runs in a thread were given up, by thread.
        self.abandoned: Counter[int | None] = Counter()
        own_hooks = transition_hooks(on_transition)
        self.broadcast = Broadcast(self.lock, Transition, owes_always=bool(own_hooks))
        self.supervisor = Supervisor(self.fail)
        self.hooks = HookActor(
            self.lock,
            self.supervisor,
            timeout=hook_timeout,
            concurrency=hook_concurrency,
            on_transition=own_hooks,
            summon=self._summon,
        )
        self.broadcast.on_owed = self.hooks.take
        self.threads = ThreadPool("engine-body", BODY_THREADS, self.lock)
        self.hook_threads = ThreadPool(
            "engine-hook", hook_concurrency + BODY_THREADS, self.lock
        )
        self.loops = Loops(self.hook_threads)
        self.caller, self.holder, self.worker = (
            CallerDispatcher(
                lambda run: self.loops.at(run.site),
                self.threads,
                self.hook_threads,
                in_place=in_place,
                holds_loop=holds_loop,
            )
            for in_place, holds_loop in ((True, False), (True, True), (False, False))
        )
        self.limiter = None if max_concurrency is None else Limiter(max_concurrency)
        self.shutdown_report: ShutdownReport | None = None
        self._grace = shutdown_grace
        self._history: deque[Remembered] = deque(maxlen=history)
        self._ended = 0
        self._drained: list[Wake] = []
        self.condition = "has not been entered"
        self.is_forked = False
        self._is_shared = True
        self._failure: EngineFailedError | None = None
        self._stack = AsyncExitStack()
        self.termination = Termination(self) if signals else None
        self.recording: Recording | None = None
        if journal is not None:
            # Only now: an engine without a journal does not pay for the import.
            from engine.recording import Recording

            self.recording = Recording(self, journal, own_hooks)

    @classmethod
    def for_one_call(cls) -> Self:
        """Make an engine that only what is called in its block can find."""
        engine = cls()
        engine._is_shared = False
        return engine

    async def __aenter__(self) -> Self:
        backend = running_backend()
        if backend is None:
            problem = "needs a running event loop of asyncio or trio"
            raise EngineLoopError("async with Engine()", problem)
        if backend == "trio":
            from engine.dispatch.trio import protect

            protect(Mailbox.send, create, submit)
        self._open()
        try:
            self._scope = self._stack.enter_context(anyio.CancelScope())
            home = await self._stack.enter_async_context(
                dispatching(backend, self.hook_threads)
            )
            self.loops.settle_at(home, backend)
            if self.recording is not None:
                await self.recording.open(home)
            if self.termination is not None:
                self.termination.listen()
        except BaseException as error:
            self._close()
            await self._stack.__aexit__(*exc_details(error))
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        home = self.loops.home
        assert home is not None
        shutdown = Shutdown(self, home, self._grace)
        with self.lock:
            self.condition = "is shutting down"
        report = await shutdown.run(at_once=error is not None)
        if self.loops.has_background:
            job = self.hook_threads.start(self.loops.stop)
            await home.wait_shielded(job.subscribe)
        if self.recording is not None:
            await self.recording.close(home)
        self._close(report)
        given = error if shutdown.cancellation is None else shutdown.cancellation
        swallowed = await self._stack.__aexit__(*exc_details(given))
        if self._failure is not None:
            raise self._failure
        if self._is_terminated:
            raise Terminated
        if shutdown.cancellation is not None and not swallowed:
            raise shutdown.cancellation
        return swallowed

    def __enter__(self) -> Self:
        backend = running_backend()
        if backend is not None:
            if self._is_shared:
                problem = "would block the event loop: use 'async with' there"
                raise EngineLoopError("with Engine()", problem)
            self.loops.backend = backend
        self._open()
        try:
            if self.recording is not None:
                drive(self.recording.open(self.caller))
            if self.termination is not None:
                self.termination.listen()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutdown = Shutdown(self, self.caller, self._grace)
        with self.lock:
            self.condition = "is shutting down"
        report = None
        try:
            report = drive(shutdown.run(at_once=error is not None))
            self.loops.stop()
            if self.recording is not None:
                drive(self.recording.close(self.caller))
        finally:
            # A second Ctrl-C leaves the rest undone, and no engine that calls may find.
            self._close(report)
        if self._failure is not None:
            raise self._failure
        if self._is_terminated and not isinstance(error, Terminated):
            raise Terminated
        if shutdown.cancellation is not None and error is None:
            raise shutdown.cancellation

    @overload
    async def run(
        self,
        fn: Definition[P, Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...
    @overload
    async def run(
        self, fn: Definition[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    async def run(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a flow or task attached to the caller, and give its value.

        The run follows the caller's scope: when that is cancelled, so is the run, with
        cause ``host``, and the cancellation goes on. A sync body runs in a worker
        thread.

        Args:
            fn: A flow or task.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Raises:
            CancelledRun: The run was cancelled through its handle, or by shutdown.
            Exception: What the run raised.
        """
        definition = check_definition(fn, "run")
        parent = current_run(self)
        self.check_takes_runs(parent)
        if definition.is_async:
            return outcome_of_run(
                await perform_in_place(
                    self, definition, args, kwargs, parent=parent, wait_for=None
                )
            )
        return outcome(
            await follow(submit(self, definition, args, kwargs, parent=parent))
        )

    @overload
    def start(
        self,
        fn: Definition[P, Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> RunHandle[R]: ...
    @overload
    def start(
        self, fn: Definition[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> RunHandle[R]: ...
    def start(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Start a run that this engine owns, whatever becomes of the caller.

        Works from any thread. The run is Pending when this returns; cancelling the
        caller does not cancel it.

        Args:
            fn: A flow or task.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Returns:
            A handle that outlives the run.

        Raises:
            EngineNotRunningError: The engine is not entered, or is shutting down.
        """
        return submit(self, check_definition(fn, "start"), args, kwargs, parent=None)

    @overload
    def subscribe(
        self, buffer: int = 1024, overflow: Literal["block", "fail"] = "block"
    ) -> Subscription[Transition]: ...
    @overload
    def subscribe(
        self, buffer: int = 1024, *, overflow: Literal["drop_oldest"]
    ) -> Subscription[Transition | Gap]: ...
    def subscribe(self, buffer: int = 1024, overflow: Overflow = "block") -> Any:
        """Subscribe to every transition from now on, in order.

        Use it as ``async with engine.subscribe() as transitions`` and read it with
        ``async for``; it ends when the engine closes.

        Args:
            buffer: How many transitions may wait to be read.
            overflow: What happens when they are more: ``block`` makes the runs wait, so
                that nothing is lost; ``drop_oldest`` drops the oldest and puts a `Gap`
                that counts them in their place; ``fail`` cuts the reader off with
                `SubscriberOverflow`.
        """
        Checker("method", "Engine.subscribe").count("buffer", buffer, 1)
        if overflow not in ("block", "drop_oldest", "fail"):
            choices = "'block', 'drop_oldest' or 'fail'"
            raise ValueError(f"overflow must be {choices}, got {overflow!r}")
        return Subscription(self.broadcast, buffer, overflow)

    def runs(
        self, *, name: str | None = None, state_type: StateType | str | None = None
    ) -> list[FlowRun | TaskRun | RunRecord]:
        """Return the live runs, parents first, then the records of ended ones.

        Args:
            name: Only runs of the flow or task with this name; None is all.
            state_type: Only runs in a state of this type; None is all.

        Raises:
            ValueError: *state_type* is no type of state.
        """
        if state_type is not None:
            state_type = StateType(state_type)
        with self.lock:
            live = [
                view(run)
                for run in all_runs(self.live)
                if name in (None, run.definition.name)
                and state_type in (None, run.state_type)
            ]
            ended = [
                record
                for record in map(RunRecord, self._history)
                if name in (None, record.definition_name)
                and state_type in (None, record.state_type)
            ]
        return [*live, *ended]

    def handles(self) -> list[RunHandle[Any]]:
        """Return handles of all live runs, parents first."""
        with self.lock:
            return [RunHandle(run) for run in all_runs(self.live)]

    def statistics(self) -> EngineStatistics:
        """Return how the engine is doing."""
        with self.lock:
            return EngineStatistics(
                live_runs=len(all_runs(self.live)),
                ended_runs=self._ended,
                transitions=self.broadcast.sequence,
                hooks=self.hooks.statistics(),
                buffers=tuple(b.statistics() for b in self.broadcast.buffers),
                threads=self.threads.threads + self.hook_threads.threads,
                abandoned_threads=self.count_abandoned_threads(),
                waiting_runs=self.limiter.waiting if self.limiter else 0,
                journal=self.recording.statistics() if self.recording else None,
            )

    def count_abandoned_threads(self) -> int:
        """Return how many threads hang in a body or hook that was given up."""
        bodies = sum(1 for runs in self.abandoned.values() if runs)
        return bodies + self.hook_threads.abandoned

    # What the actors and their placement ask of it.

    def check_takes_runs(self, parent: RunActor | None) -> None:
        """Refuse a run that this engine cannot take now.

        Raises:
            EngineForkedError: This process is a fork of the one that entered it.
            JournalError: It has a journal that cannot be written now.
            EngineNotRunningError: It is not entered, or is shutting down and the run is
                no child of a live one.
        """
        if self.condition != RUNS:
            if self.condition == "was forked":
                raise EngineForkedError
            if self.condition == TROUBLED and self.recording is not None:
                raise self.recording.problem() or EngineNotRunningError(TROUBLED)
            if parent is None or self.condition == "is closed":
                raise EngineNotRunningError(self.condition)

    def run_ended(self, run: RunActor) -> None:
        """Take note of a run that entered its terminal state; with the lock held."""
        self._ended += 1
        self._history.append(remembered(run))
        if self.limiter is not None:
            self.limiter.release(run)
        if not self.live and self._drained:
            waiters, self._drained = self._drained, []
            for wake in waiters:
                wake()

    def subscribe_drained(self, wake: Wake) -> bool:
        """Have *wake* called when no run is live; False if none is."""
        with self.lock:
            if not self.live:
                return False
            self._drained.append(wake)
            return True

    @property
    def is_closed(self) -> bool:
        """Whether its block has ended."""
        return self.condition == "is closed"

    def is_usable_here(self, on_loop: bool) -> bool:
        """Whether an unrelated call in this thread, perhaps on a loop, can use it."""
        home = self.loops.home
        return not on_loop or (home is not None and home.is_current())

    def _summon(self, run: RunActor) -> bool:
        """Find a server for a run's owed hooks; False leaves them to its own thread."""
        on, lane = run.dispatcher, run.lane
        assert lane is not None
        if on is None:
            on = self.loops.started(run.site)  # its body never began
        if on is not None and on.can_interrupt:
            self.hooks.enqueue(on, lane)
        elif run.driver == get_ident():
            return False
        else:
            self.hooks.enqueue(self.worker, lane)
        return True

    def fail(self, failure: EngineFailedError) -> None:
        """Give up: cancel the block, whose exit raises *failure*."""
        self._failure = failure
        if self.loops.home is not None:
            self.loops.home.call_soon(self.cancel_block)

    def cancel_block(self) -> None:
        """Cancel the ``async with`` block; on its loop."""
        self._scope.cancel()

    @property
    def _is_terminated(self) -> bool:
        return self.termination is not None and self.termination.has_come

    def _open(self) -> None:
        if self.condition != "has not been entered":
            raise EngineNotRunningError(f"{self.condition} and cannot be entered again")
        self.condition = RUNS
        if self._is_shared:
            self._scope_token = SCOPE.set(self)
        enlist(self, is_shared=self._is_shared)

    def _close(self, report: ShutdownReport | None = None) -> None:
        delist(self)
        self.condition = "is closed"
        self.shutdown_report = report
        self.broadcast.close()
        self.threads.close()
        self.hook_threads.close()
        if self.termination is not None:
            self.termination.close()
        if self._is_shared:
            with suppress(ValueError):  # left in another context than it was entered in
                SCOPE.reset(self._scope_token)

    def was_forked(self) -> None:
        """Refuse everything from now on: this is a forked child."""
        self.is_forked = True
        self.lock._at_fork_reinit()  # who holds it may be a thread that is not here
        FLIGHTS.was_forked()
        self.condition = "was forked"
        if self.recording is not None:
            self.recording.was_forked()
        if self.termination is not None:
            self.termination.close()  # whoever ends the child means the child

    def hold_intake(self, troubled: bool) -> None:
        """Refuse new runs while the journal cannot be written; with the lock held."""
        if self.condition in (RUNS, TROUBLED):
            self.condition = TROUBLED if troubled else RUNS


async def follow(handle: RunHandle[R]) -> State[R]:
    """Wait for a run, and cancel it when the caller is cancelled."""
    actor = handle._actor
    waiter = loop_waiter()
    try:
        return await handle.join()
    except BaseException:
        actor.send(m.CancelRequested("host"))
        await waiter.wait_shielded(actor.subscribe_settled)
        raise


def check_definition(fn: Any, call: str) -> Definition[..., Any]:
    """Return *fn* if it is a flow or task.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(fn, Definition):
        return fn
    text = f"engine.{call}() takes a flow or a task, got {type(fn).__name__}"
    raise TypeError(f"{text} {name_of(fn)!r}: decorate it with @flow or @task")
