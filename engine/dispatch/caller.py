"""Dispatching on the calling thread: nothing suspends, waits block.

A sync flow or task is driven by one ``send(None)`` in the thread that called it, so
signals, debuggers and thread-bound clients work, and no loop and no thread is needed.
What really needs a loop (an async hook, a deadline, an async child) is given to the
engine's loop for the run, which may be one in the background.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.exceptions import HookTimeout
from engine.executors.job import Job
from engine.executors.thread import block

if TYPE_CHECKING:
    from engine.actors.lane import Lane
    from engine.actors.run import RunActor
    from engine.dispatch.base import Subscribe, Wake
    from engine.dispatch.loop import HookCaller
    from engine.executors.thread import Call, Lose, ThreadPool
    from engine.hooks import Hook


class CallerDispatcher:
    """Drives runs on whichever thread calls `drive`.

    Attributes:
        in_place: Whether sync hooks are called in the driving thread itself, which is
            the user's. Else they get a thread of their own, where a hang can be left
            behind.
        holds_loop: Whether an event loop runs in the driving thread, and is held as
            long as a run is driven.
    """

    can_interrupt = False
    expose = None

    def __init__(
        self,
        loop_of: Callable[[RunActor], Any],
        threads: ThreadPool,
        hook_threads: ThreadPool,
        *,
        in_place: bool,
        holds_loop: bool = False,
    ) -> None:
        self._loop_of = loop_of
        self._threads = threads
        self._hook_threads = hook_threads
        self.in_place = in_place
        self.holds_loop = holds_loop

    def is_current(self) -> bool:
        """Any thread will do."""
        return True

    def spawn_service(
        self, perform: Callable[..., Coroutine[Any, Any, Any]], *args: Any
    ) -> None:
        """Drive ``perform(*args)``, which does not raise, in a hook thread."""
        self._hook_threads.submit(*self._service(perform, args))

    def _service(
        self, perform: Callable[..., Coroutine[Any, Any, Any]], args: tuple[Any, ...]
    ) -> tuple[Call, Lose]:
        ended = False

        def serve() -> None:
            nonlocal ended
            drive(perform(*args))
            ended = True

        def lose(error: BaseException) -> None:
            # Others rely on it; but the thread may have died right after.
            if not ended:  # pragma: no branch
                self._hook_threads.put_back(*self._service(perform, args))

        return serve, lose

    def enter(self, run: RunActor) -> None:
        """Note that the body begins."""
        run.host = True
        run.driver = threading.get_ident()

    def leave(self, run: RunActor, error: BaseException | None) -> BaseException | None:
        """Note that the body is over, maybe long after its run was given up."""
        with run.engine.lock:
            run.host = None
            if run.interrupts:
                run.interrupts = 0
                run.engine.abandoned[run.driver] -= 1
        return error

    async def withdraw(self, run: RunActor, in_place: bool) -> BaseException | None:
        """Nothing to take back: a thread cannot be interrupted."""
        return None

    def contain(self) -> bool:
        """Nothing to take back: a hook can do nothing to its thread."""
        return True

    def is_cancelled(self, run: RunActor, error: BaseException | None) -> bool:
        """A thread is never cancelled from outside."""
        return False

    def interrupt(self, run: RunActor) -> None:
        """Give the body up: its thread is abandoned, and another takes its place."""
        run.interrupts += 1
        run.engine.abandoned[run.driver] += 1
        if not self.in_place:
            self._threads.abandon(run.driver)

    async def wait(
        self, subscribe: Subscribe, unsubscribe: Callable[[Wake], None] | None = None
    ) -> None:
        """Block until what was subscribed to happens."""
        event = threading.Event()
        if not subscribe(event.set):
            return
        try:
            block(event)
        except BaseException:
            if unsubscribe is not None:
                unsubscribe(event.set)
            raise

    async def wait_shielded(self, subscribe: Subscribe) -> BaseException | None:
        """Wait like `wait`, through Ctrl-C; return the interrupt if there was one."""
        event = threading.Event()
        interrupt: BaseException | None = None
        if not subscribe(event.set):
            return None
        while not event.is_set():
            try:
                block(event)
            except KeyboardInterrupt as error:
                if interrupt is not None:
                    raise  # asked for twice: somebody means it
                interrupt = error
        return interrupt

    async def wait_for_lane(self, lane: Lane) -> None:
        """Serve the run's owed hooks in this thread, or wait for who does."""
        hooks = lane.run.engine.hooks
        while not lane.is_idle:
            if hooks.claim(lane):
                serve = partial(hooks.serve, lane, self)
                await lane.run.engine.supervisor.watch_once("hook actor", serve)
                del serve
            else:
                await self.wait(partial(hooks.attend, lane))
        del lane  # see engine.tracebacks

    async def wait_within(self, subscribe: Subscribe, seconds: float) -> bool:
        """Wait like `wait`, for a time; whether it happened."""
        event = threading.Event()
        if not subscribe(event.set):
            return True
        return block(event, seconds)

    async def sleep(self, run: RunActor, seconds: float) -> None:
        """Block for a time, or until *run* is over."""
        wakes_at = time.monotonic() + seconds
        if run.lane is not None:
            await self.wait_for_lane(run.lane)
        event = threading.Event()
        if run.subscribe_settled(event.set):
            try:
                block(event, wakes_at - time.monotonic())
            finally:
                run.unsubscribe_settled(event.set)

    def call_later(
        self, run: RunActor, seconds: float, call: Callable[[], None]
    ) -> Callable[[], None]:
        """Have *call* called after a time by the run's loop."""
        cancel: Callable[[], None] = self._loop_of(run).call_later(run, seconds, call)
        return cancel

    def shield(self) -> AbstractContextManager[Any]:
        """Nothing to keep off: a thread is not cancelled."""
        return nullcontext()

    async def call_hook(
        self, run: RunActor, hook: Hook, args: tuple[Any, ...], timeout: float
    ) -> None:
        """Call a hook in a copy of the context of *run* and await what it returns.

        An async hook runs on the run's loop. A sync one that hangs in the user's own
        thread cannot be left behind: it has timed out when it comes back too late.

        Raises:
            HookTimeout: It did not end in time.
        """
        context = run.hook_context()
        if self.in_place or hook.is_async:
            began = time.monotonic()
            result = context.run(hook.fn, *args)
            if time.monotonic() - began > timeout:
                raise HookTimeout(hook.name, timeout)
        else:
            result = await self._call_in_thread(
                hook, timeout, context.run, hook.fn, *args
            )
        if inspect.isawaitable(result):
            loop: HookCaller = self._loop_of(run)
            await self.resolve(run, loop.await_hook(context, hook, result, timeout))

    async def _call_in_thread(
        self, hook: Hook, timeout: float, fn: Callable[..., Any], *args: Any
    ) -> Any:
        job = Job(self._hook_threads, fn, args)
        event = threading.Event()
        job.subscribe(event.set)
        try:
            self._hook_threads.submit(job, job.lose)
            block(event, timeout)
        except BaseException:
            job.abandon()  # what is said to have failed must not be called later
            raise
        if not job.is_done and job.abandon():
            raise HookTimeout(hook.name, timeout)
        return job.result()

    async def resolve(self, run: RunActor, awaitable: Awaitable[Any]) -> Any:
        """Await something of the user's on the run's loop, and block until then."""
        loop = self._loop_of(run)
        event = threading.Event()
        results: list[Any] = []
        errors: list[BaseException] = []

        async def report() -> None:
            try:
                results.append(await awaitable)
            except BaseException as error:
                errors.append(error)
            finally:
                event.set()

        loop.spawn_service(report)
        block(event)
        if errors:
            raise errors[0]
        return results[0]


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never suspends, and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("a coroutine suspended on the calling thread")
