"""Dispatching on a trio event loop."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import Context, copy_context
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

import trio

from engine.dispatch.context import InContext
from engine.dispatch.interrupter import Interrupter
from engine.dispatch.loop import HookCaller
from engine.dispatch.scopes import Scopes, enter, leave
from engine.dispatch.starter import Starter
from engine.dispatch.turns import RUNS_A_TURN
from engine.exceptions import HookTimeout

if TYPE_CHECKING:
    from engine.actors.run import RunActor
    from engine.dispatch.base import Perform, Subscribe, Wake
    from engine.executors.thread import ThreadPool
    from engine.hooks import Hook


class TrioWaiter:
    """Waits on the trio loop of the thread that made it."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self.thread_id = get_ident()

    async def wait(
        self, subscribe: Subscribe, unsubscribe: Callable[[Wake], None] | None = None
    ) -> None:
        """Wait until what was subscribed to happens."""
        event = trio.Event()
        wake = partial(self._wake, event)
        if not subscribe(wake):
            return
        try:
            await event.wait()
        except BaseException:
            if unsubscribe is not None:
                unsubscribe(wake)
            raise

    async def wait_shielded(self, subscribe: Subscribe) -> BaseException | None:
        """Wait like `wait`, through cancellations, which the next checkpoint raises."""
        with trio.CancelScope(shield=True):
            await self.wait(subscribe)
        return None

    def _wake(self, event: trio.Event) -> None:
        if get_ident() == self.thread_id:
            event.set()
        else:
            self.call_soon(event.set)

    def call_soon(self, call: Callable[..., Any], *args: Any) -> None:
        """Have *call* called on the loop, from any thread."""
        with suppress(trio.RunFinishedError):  # nobody waits there any more
            self._token.run_sync_soon(call, *args)


@trio.lowlevel.disable_ki_protection
async def expose(body: Awaitable[Any]) -> Any:
    """Await a body that Ctrl-C may interrupt, in a task that is protected from it."""
    return await body


class TrioDispatcher(TrioWaiter, HookCaller, Starter, Interrupter):
    """Drives runs in tasks of one trio nursery, each body in a cancel scope.

    What never waits shares a task, and the scope too as long as nobody cancels it.
    """

    backend = "trio"
    can_interrupt = True
    expose = staticmethod(expose)

    def __init__(self, hook_threads: ThreadPool, nursery: trio.Nursery) -> None:
        TrioWaiter.__init__(self)
        HookCaller.__init__(self, hook_threads)
        Starter.__init__(self)
        Interrupter.__init__(self)
        self._nursery = nursery
        # Those whose turn has come, as `Starter` has those that wait for theirs.
        self._due: deque[Any] = deque()
        self._shares_tasks = True
        # Of the tasks that make one call after the other.
        self._scopes: dict[trio.lowlevel.Task, Scopes] = {}

    def is_current(self) -> bool:
        """Whether the caller runs on this loop."""
        if get_ident() != self.thread_id or not trio.lowlevel.in_trio_run():
            return False
        return trio.lowlevel.current_trio_token() is self._token

    def wake_at_signals(self) -> Callable[[], object]:
        """Trio sees to that itself."""
        return lambda: None

    def next_turn(self, call: Callable[[], None]) -> None:
        """Have *call* called in the loop's next turn; on its thread."""
        # Where a Ctrl-C is not raised, since runs would get lost with it.
        self.call_soon(call)

    def start(self, context: Context | None, perform: Perform, run: RunActor) -> None:
        """Have a task perform *run*, in *context* or in a copy of this."""
        context = context or copy_context()
        if not 0 < len(self._due) < 3 * RUNS_A_TURN:
            self._due = deque((perform, run, context))
            # In an empty context: the caller's would keep the caller's run.
            Context().run(self._nursery.start_soon, self._perform_all, self._due)
        elif self._shares_tasks:
            self._due += (perform, run, context)
        else:
            self._start_task(perform, run, context)

    async def _perform_all(self, due: deque[Any]) -> None:
        """Perform runs, one after the other, as long as none of them has to wait.

        A task costs as much as all the rest of a run. One whose body ends without ever
        giving the loop its turn needs none of its own. Where bodies do wait, only the
        first of each turn comes here, to see whether they still do.
        """
        waits = False

        def keep() -> None:
            # This task is from now on the task of the run that has to wait.
            nonlocal waits
            waits, self._shares_tasks = True, False
            self._start_tasks(due)

        task = trio.lowlevel.current_task()
        try:
            with self._reused_scopes(task):
                while due:
                    await self._next(due, task, keep)
        finally:
            self._start_tasks(due)
        self._shares_tasks = self._shares_tasks or not waits

    def _next(
        self, due: deque[Any], task: trio.lowlevel.Task, keep: Callable[[], None]
    ) -> InContext:
        """Return what performs the next run; it alone keeps it."""
        perform, run, context = due.popleft(), due.popleft(), due.popleft()
        task.name = run.definition.name
        return InContext(context, perform(run, self), keep)

    def _start_tasks(self, due: deque[Any]) -> None:
        while due:
            self._start_task(due.popleft(), due.popleft(), due.popleft())

    def _start_task(self, perform: Perform, run: RunActor, context: Context) -> None:
        start = self._nursery.start_soon
        name = run.definition.name  # else one is made for each task
        context.run(start, self._perform, perform(run, self), name=name)  # type: ignore[arg-type]

    async def _perform(self, run: Coroutine[Any, Any, Any]) -> None:
        await run

    def spawn_service(
        self, perform: Callable[..., Coroutine[Any, Any, Any]], *args: Any
    ) -> None:
        """Start a task in the caller's context, from any thread."""
        start = self._nursery.start_soon
        if get_ident() == self.thread_id:
            start(self._serve, perform, *args)
        else:
            self.call_soon(copy_context().run, self._start_late, perform, *args)

    def _start_late(self, *args: Any) -> None:
        # What is raised here ends the whole of trio.
        with suppress(RuntimeError):  # the nursery is closed: nobody waits any more
            self._nursery.start_soon(self._serve, *args)

    async def _serve(
        self, perform: Callable[..., Coroutine[Any, Any, Any]], *args: Any
    ) -> None:
        with self._reused_scopes(trio.lowlevel.current_task()):
            await perform(*args)

    @contextmanager
    def _reused_scopes(self, task: trio.lowlevel.Task) -> Generator[None]:
        """Have the calls of the current task use one scope after the other."""
        self._scopes[task] = scopes = Scopes(task)
        try:
            yield
        finally:
            del self._scopes[task]
            scopes.close()

    def enter(self, run: RunActor) -> None:
        """Make *run* interruptible: its body begins in a cancel scope."""
        run.host = self._enter_scope()

    def leave(self, run: RunActor, error: BaseException | None) -> BaseException | None:
        """End what `enter` began; return what is left of the body's *error*."""
        scope, run.host = run.host, None
        return self._leave_scope(scope, error)

    def _enter_scope(self) -> trio.CancelScope:
        scopes = self._scopes.get(trio.lowlevel.current_task())
        return enter() if scopes is None else scopes.enter()

    def _leave_scope(
        self, scope: trio.CancelScope, error: BaseException | None
    ) -> BaseException | None:
        scopes = self._scopes.get(trio.lowlevel.current_task())
        return leave(scope, error) if scopes is None else scopes.leave(scope, error)

    async def withdraw(self, run: RunActor, in_place: bool) -> BaseException | None:
        """Nothing to take back: a scope's cancellation ends with the scope."""
        run.interrupts = 0
        return None

    def is_cancelled(self, run: RunActor, error: BaseException | None) -> bool:
        """Whether somebody else cancels a scope that *run* is driven in."""
        return error is not None and self._is_in_cancelled_scope()

    def contain(self) -> bool:
        """Nothing to take back from a hook; False if the nursery is stopped."""
        return not self._is_in_cancelled_scope()

    def _is_in_cancelled_scope(self) -> bool:
        return trio.current_effective_deadline() == -math.inf

    def cancel(self, run: RunActor, host: trio.CancelScope | None) -> None:
        """Cancel the scope of a body, if it still is; on its thread."""
        if host is not None and run.host is host:  # else it may be another run's now
            host.cancel()

    async def await_hook(
        self, context: Context, hook: Hook, result: Awaitable[Any], timeout: float
    ) -> None:
        """Await what a hook returned, in its context and time."""
        scope = self._enter_scope()
        error: BaseException | None = None

        def start() -> None:
            scope.deadline = trio.current_time() + timeout

        try:
            await InContext(context, result, start)
        except BaseException as caught:
            error = caught
        error = self._leave_scope(scope, error)
        try:
            if error is not None:
                raise error
        finally:
            del error  # see engine.tracebacks
        if scope.cancelled_caught:
            raise HookTimeout(hook.name, timeout)

    async def sleep(self, run: RunActor, seconds: float) -> None:
        """Wait for a time."""
        await trio.sleep(seconds)

    def call_later(
        self, run: RunActor, seconds: float, call: Callable[[], None]
    ) -> Callable[[], None]:
        """Have *call* called after a time, from any thread; return a way to cancel."""
        scope = trio.CancelScope()

        async def timer() -> None:
            with scope:
                await trio.sleep(seconds)
                call()

        self.spawn_service(timer)
        if get_ident() == self.thread_id:
            return scope.cancel
        return partial(self.call_soon, scope.cancel)


def protect(*functions: Callable[..., Any]) -> None:
    """Keep Ctrl-C out of functions that must not be left half done.

    Trio raises KeyboardInterrupt wherever the main thread is; where it is protected, at
    the main task's next checkpoint. It marks the code, so a call costs no more.
    """
    for function in functions:
        trio.lowlevel.enable_ki_protection(function)


# Tasks of the engine: an interrupt that is raised in one, outside of bodies, would take
# all of them along. The main task gets it instead.
protect(TrioDispatcher._perform_all, TrioDispatcher._perform, TrioDispatcher._serve)


@asynccontextmanager
async def open_dispatcher(hook_threads: ThreadPool) -> AsyncGenerator[TrioDispatcher]:
    """Give a dispatcher whose tasks end before the block does.

    A cancellation of the block does not reach them: whoever opened it tells the runs
    first, so that they end as cancelled by the one who asked.
    """
    ready, over, closed = trio.Event(), trio.Event(), trio.Event()
    dispatchers: list[TrioDispatcher] = []

    async def keep() -> None:
        try:
            async with trio.open_nursery() as nursery:
                dispatchers.append(TrioDispatcher(hook_threads, nursery))
                ready.set()
                await over.wait()
                nursery.cancel_scope.cancel()
        finally:
            closed.set()

    # Not a nursery of the block's own task: that would be cancelled together with the
    # block, and would wrap what the block raises into a group.
    trio.lowlevel.spawn_system_task(keep)
    with trio.CancelScope(shield=True):
        await ready.wait()
    try:
        yield dispatchers[0]
    finally:
        over.set()
        with trio.CancelScope(shield=True):
            await closed.wait()
