"""What the dispatchers of both loops share: calling hooks."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from contextvars import Context
from typing import TYPE_CHECKING, Any

import anyio

from engine.exceptions import HookTimeout

if TYPE_CHECKING:
    from engine.actors.lane import Lane
    from engine.actors.run import RunActor
    from engine.dispatch.base import Subscribe
    from engine.executors.thread import ThreadPool
    from engine.hooks import Hook


class HookCaller:
    """Calls hooks on a loop: async ones there, sync ones in daemon threads."""

    def __init__(self, hook_threads: ThreadPool) -> None:
        self._hook_threads = hook_threads

    if TYPE_CHECKING:

        async def wait(self, subscribe: Subscribe) -> None:
            """Wait until what was subscribed to happens."""

    async def wait_for_lane(self, lane: Lane) -> None:
        """Wait until a run's owed hooks are done; this loop's servers do them."""
        await self.wait(lane.subscribe_idle)

    async def wait_within(self, subscribe: Subscribe, seconds: float) -> bool:
        """Wait like `wait`, for a time; whether it happened."""
        with anyio.move_on_after(seconds) as scope:
            await self.wait(subscribe)
        return not scope.cancelled_caught

    async def resolve(self, run: RunActor, awaitable: Awaitable[Any]) -> Any:
        """Await something of the user's for *run*."""
        return await awaitable

    def shield(self) -> AbstractContextManager[Any]:
        """Return a block that cancellations of what surrounds it do not reach."""
        return anyio.CancelScope(shield=True)

    async def call_hook(
        self, run: RunActor, hook: Hook, args: tuple[Any, ...], timeout: float
    ) -> None:
        """Call a hook in a copy of the context of *run* and await what it returns.

        Raises:
            HookTimeout: It did not end in time.
        """
        context = run.hook_context()
        if hook.is_async:
            result = context.run(hook.fn, *args)
        else:
            result = await self._call_in_thread(context, hook, args, timeout)
        if hook.is_async or inspect.isawaitable(result):
            await self.await_hook(context, hook, result, timeout)

    if TYPE_CHECKING:

        async def await_hook(
            self, context: Context, hook: Hook, result: Awaitable[Any], timeout: float
        ) -> None:
            """Await what a hook returned, in its context and time."""

    async def _call_in_thread(
        self, context: Context, hook: Hook, args: tuple[Any, ...], timeout: float
    ) -> Any:
        job = self._hook_threads.start(context.run, hook.fn, *args)
        with anyio.move_on_after(timeout):
            await self.wait(job.subscribe)
        if not job.is_done and job.abandon():
            raise HookTimeout(hook.name, timeout)
        return job.result()
