"""Dispatching on an asyncio event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

import anyio

from engine.dispatch.loop import HookCaller

if TYPE_CHECKING:
    from engine.actors.run import RunActor
    from engine.dispatch.base import Subscribe, Wake
    from engine.executors.thread import ThreadPool


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


class AsyncioDispatcher(AsyncioWaiter, HookCaller):
    """Drives runs as tasks of one asyncio loop.

    A run is interrupted with its task's own ``cancel()``: once, at the body's current
    await, as asyncio code expects. When the body is over an interruption of ours is
    taken back (``uncancel()``), as `asyncio.timeout` does it, so that only requests of
    the host itself go on.
    """

    backend = "asyncio"
    can_interrupt = True

    def __init__(self, hook_threads: ThreadPool) -> None:
        AsyncioWaiter.__init__(self)
        HookCaller.__init__(self, hook_threads)
        # asyncio keeps only weak references to suspended tasks.
        self._tasks: set[asyncio.Task[Any]] = set()

    def is_current(self) -> bool:
        """Whether the caller runs on this loop."""
        return asyncio._get_running_loop() is self.loop

    def spawn(
        self, perform: Callable[..., Coroutine[Any, Any, Any]], *args: Any
    ) -> None:
        """Start a task for ``perform(*args)`` in the caller's context, from any thread."""
        if get_ident() == self.thread_id:
            # A run's own task needs no reference here: the loop has one until it first
            # runs, and from then on the run has.
            self.loop.create_task(perform(*args))
        else:
            start = partial(self.spawn, perform, *args)
            self.loop.call_soon_threadsafe(start, context=copy_context())

    def spawn_service(
        self, perform: Callable[..., Coroutine[Any, Any, Any]], *args: Any
    ) -> None:
        """Start a task that nobody else refers to, from any thread."""
        if get_ident() == self.thread_id:
            task = self.loop.create_task(perform(*args))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self.call_soon(self.spawn_service, perform, *args)

    def enter(self, run: RunActor) -> None:
        """Make *run* interruptible: its body begins in the current task."""
        run.host = task = asyncio.current_task()
        run.baseline = task.cancelling() if task is not None else 0

    def leave(self, run: RunActor, error: BaseException | None) -> BaseException | None:
        """End what `enter` began; return what is left of the body's *error*."""
        run.host = None
        return error

    async def withdraw(self, run: RunActor) -> BaseException | None:
        """Take back interruptions that the body did not use up.

        A request made while the task itself was running is yet to be raised, and would
        hit whatever the host awaits next. One of the host's own may arrive with it: it
        is returned.
        """
        task = asyncio.current_task()
        cancellation: BaseException | None = None
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError as error:
            cancellation = error
        while run.interrupts:
            run.interrupts -= 1
            if task is not None:
                task.uncancel()
        return cancellation

    def is_cancelled(self, run: RunActor, error: BaseException | None) -> bool:
        """Whether somebody else cancels the task that *run* is driven in."""
        task = asyncio.current_task()
        return task is not None and task.cancelling() > run.baseline

    def interrupt(self, run: RunActor) -> None:
        """Stop the body of *run*, from any thread."""
        if get_ident() == self.thread_id:
            run.host.cancel()
        else:
            self.call_soon(self._interrupt_task, run, run.host)

    def _interrupt_task(self, run: RunActor, task: asyncio.Task[Any]) -> None:
        if run.host is task:
            task.cancel()

    async def sleep(self, run: RunActor, seconds: float) -> None:
        """Wait for a time."""
        await asyncio.sleep(seconds)

    def call_later(
        self, run: RunActor, seconds: float, call: Callable[[], None]
    ) -> Callable[[], None]:
        """Have *call* called after a time, from any thread; return what cancels that.

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
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
