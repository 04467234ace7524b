"""Dispatching on an asyncio event loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel

from engine.actors import messages as m
from engine.dispatch.context import InContext
from engine.dispatch.interrupter import Interrupter
from engine.dispatch.loop import HookCaller
from engine.dispatch.starter import Starter
from engine.exceptions import HookTimeout

if TYPE_CHECKING:
    from engine.actors.run import RunActor
    from engine.dispatch.base import Perform, Subscribe, Wake
    from engine.executors.thread import ThreadPool
    from engine.hooks import Hook


STUBBORN_SECONDS: Final = 1.0
"""How long a hook may go on after it was cancelled, until it is cancelled again."""


class AsyncioWaiter:
    """Waits on the asyncio loop of the thread that made it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.thread_id = get_ident()

    async def wait(
        self, subscribe: Subscribe, unsubscribe: Callable[[Wake], None] | None = None
    ) -> None:
        """Wait until what was subscribed to happens."""
        future = self.loop.create_future()
        wake = partial(self._wake, future)
        if not subscribe(wake):
            return
        try:
            await future
        except BaseException:
            if unsubscribe is not None:
                unsubscribe(wake)
            raise

    async def wait_shielded(self, subscribe: Subscribe) -> BaseException | None:
        """Wait like `wait`, through cancellations; return one that came meanwhile."""
        future = self.loop.create_future()
        cancellation: BaseException | None = None
        if not subscribe(partial(self._wake, future)):
            return None
        # The scope keeps anyio's cancellations off, which come again and again; the
        # task's own come once.
        with anyio.CancelScope(shield=True):
            while not future.done():
                try:
                    await asyncio.wait((future,))
                except asyncio.CancelledError as error:
                    cancellation = error
        return cancellation

    def _wake(self, future: asyncio.Future[None]) -> None:
        if get_ident() != self.thread_id:
            self.call_soon(self._wake, future)
        elif not future.done():
            future.set_result(None)

    def call_soon(self, call: Callable[..., Any], *args: Any) -> None:
        """Have *call* called on the loop, from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            self.loop.call_soon_threadsafe(call, *args)


class AsyncioDispatcher(AsyncioWaiter, HookCaller, Starter, Interrupter):
    """Drives runs as tasks of one asyncio loop.

    A run is interrupted with its task's own ``cancel()``: once, at the body's current
    await, as asyncio code expects. When the body is over an interruption of ours is
    taken back (``uncancel()``), as `asyncio.timeout` does it, so that only requests of
    the host itself go on.
    """

    backend = "asyncio"
    can_interrupt = True
    expose = None

    def __init__(self, hook_threads: ThreadPool) -> None:
        AsyncioWaiter.__init__(self)
        HookCaller.__init__(self, hook_threads)
        Starter.__init__(self)
        Interrupter.__init__(self)
        self._is_closing = False
        self._started: list[RunActor] = []  # lately
        # asyncio keeps only weak references to suspended tasks.
        self._tasks: set[asyncio.Task[Any]] = set()

    def is_current(self) -> bool:
        """Whether the caller runs on this loop."""
        return asyncio._get_running_loop() is self.loop

    def wake_at_signals(self) -> Callable[[], object]:
        """Have SIGTERM wake the loop when it waits; return what ends that.

        asyncio's own receivers of signals do so, and some loops always. Where nothing
        does, a receiver that does nothing is enough.
        """
        already = signal.set_wakeup_fd(-1)
        if already != -1:
            signal.set_wakeup_fd(already, warn_on_full_buffer=False)
            return lambda: None
        try:
            self.loop.add_signal_handler(signal.SIGTERM, lambda: None)
        except NotImplementedError:  # on Windows, where nobody sends it
            return lambda: None
        return partial(self.loop.remove_signal_handler, signal.SIGTERM)

    def next_turn(self, call: Callable[[], None]) -> None:
        """Have *call* called in the loop's next turn; on its thread."""
        self.loop.call_soon(call, context=Context())

    def start(self, context: Context | None, perform: Perform, run: RunActor) -> None:
        """Make a task that performs *run*, in *context* or in a copy of this."""
        # It needs no reference here: the loop has one until the task first runs, and
        # from then on the run has.
        self.loop.create_task(perform(run, self), context=context)
        if not self._started:
            self.next_turn(self._check_started)
        self._started.append(run)

    def _check_started(self, earlier: Sequence[RunActor] = ()) -> None:
        """Cancel runs whose tasks somebody cancelled before their first step.

        asyncio executes nothing of such a task, so nobody else will ever know.
        """
        for run in earlier:
            if run.dispatcher is None:
                run.send(m.CancelRequested("host"))
        started, self._started = self._started, []
        if started:
            # Once more, behind the first step of each.
            self.next_turn(partial(self._check_started, started))

    def spawn_service(
        self, perform: Callable[..., Coroutine[Any, Any, Any]], *args: Any
    ) -> None:
        """Start a task that nobody else refers to, from any thread."""
        if get_ident() != self.thread_id:
            self.call_soon(self.spawn_service, perform, *args)
            return
        begun = False

        async def service() -> None:
            nonlocal begun
            begun = True
            await perform(*args)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not begun and not self._is_closing:
                # Cancelled by somebody before its first step: others rely on it.
                self.spawn_service(perform, *args)

        task = self.loop.create_task(service())
        self._tasks.add(task)
        task.add_done_callback(ended)

    def enter(self, run: RunActor) -> None:
        """Make *run* interruptible: its body begins in the current task."""
        run.host = task = asyncio.current_task(self.loop)
        run.baseline = task.cancelling() if task is not None else 0
        run.interrupted_itself = False

    def leave(self, run: RunActor, error: BaseException | None) -> BaseException | None:
        """End what `enter` began; return what is left of the body's *error*."""
        run.host = None
        return error

    async def withdraw(self, run: RunActor, in_place: bool) -> BaseException | None:
        """Take back interruptions that the body did not use up.

        A request that the body made of itself may be yet to be raised, and would hit
        whatever the host awaits next. The host's own may have become one with ours,
        and then has to be raised anew: the scope it belongs to knows its own by sight.
        A task of ours is in nobody's scope.
        """
        task = asyncio.current_task(self.loop)
        assert task is not None
        if run.interrupted_itself:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        while run.interrupts:
            run.interrupts -= 1
            task.uncancel()
        if in_place:
            try:
                await anyio.lowlevel.checkpoint_if_cancelled()
            except asyncio.CancelledError as error:
                return error
        return asyncio.CancelledError() if task.cancelling() > run.baseline else None

    def is_cancelled(self, run: RunActor, error: BaseException | None) -> bool:
        """Whether somebody else cancels the task that *run* is driven in."""
        task = asyncio.current_task(self.loop)
        return task is not None and task.cancelling() > run.baseline

    def contain(self) -> bool:
        """Take back what a hook did to the server's task; False if that is stopped."""
        task = asyncio.current_task()
        while task is not None and task.cancelling() and not self._is_closing:
            task.uncancel()
        return not self._is_closing

    def cancel(self, run: RunActor, host: asyncio.Task[Any] | None) -> None:
        """Cancel the task that executes a body, if it still does; on its thread."""
        if host is None or run.host is not host:
            return
        run.interrupts += 1
        host.cancel()
        if host is asyncio.current_task(self.loop):
            run.interrupted_itself = True

    async def await_hook(
        self, context: Context, hook: Hook, result: Awaitable[Any], timeout: float
    ) -> None:
        """Await what a hook returned, in its context and time.

        Raises:
            HookTimeout: It did not end in time.
        """
        stopper = Stopper(self.loop, timeout)
        try:
            await InContext(context, result, stopper.start)
        except asyncio.CancelledError:
            if not stopper.fired:
                raise
        finally:
            stopper.cancel()
        if stopper.fired:
            raise HookTimeout(hook.name, timeout)

    async def sleep(self, run: RunActor, seconds: float) -> None:
        """Wait for a time."""
        await asyncio.sleep(seconds)

    def call_later(
        self, run: RunActor, seconds: float, call: Callable[[], None]
    ) -> Callable[[], None]:
        """Have *call* called after a time, from any thread; return a way to cancel.

        In an empty context: the loop keeps a cancelled timer until its time has come,
        and the caller's context would keep the run as long.
        """
        if get_ident() == self.thread_id:
            return self.loop.call_later(seconds, call, context=Context()).cancel
        timers: list[asyncio.TimerHandle] = []
        cancelled = False

        def schedule() -> None:
            if not cancelled:
                timer = self.loop.call_later(seconds, call, context=Context())
                timers.append(timer)

        def cancel() -> None:
            nonlocal cancelled
            cancelled = True
            for timer in timers:
                self.call_soon(timer.cancel)

        self.call_soon(schedule)
        return cancel

    async def aclose(self) -> None:
        """Cancel what is left of the engine's own tasks, and wait for them to end."""
        self._is_closing = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)


class Stopper:
    """Cancels the current task when its time is up, again and again if it goes on.

    `asyncio.timeout` would do it once, and costs a timer also for what never waits.
    """

    __slots__ = ("_loop", "_task", "_timeout", "_timer", "fired")

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        self._loop = loop
        self._timeout = timeout
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.fired = 0

    def start(self) -> None:
        """Begin to count the time."""
        self._task = asyncio.current_task(self._loop)
        self._start_timer(self._timeout)

    def cancel(self) -> None:
        """Stop, and take back what was not used."""
        if self._timer is None or self._task is None:
            return  # the hook never waited
        self._timer.cancel()
        for _ in range(self.fired):
            self._task.uncancel()

    def _fire(self) -> None:
        assert self._task is not None
        self.fired += 1
        self._task.cancel()
        self._start_timer(STUBBORN_SECONDS)

    def _start_timer(self, seconds: float) -> None:
        # In an empty context, see AsyncioDispatcher.call_later.
        self._timer = self._loop.call_later(seconds, self._fire, context=Context())
