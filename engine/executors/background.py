"""An event loop in a daemon thread, for work that has no other loop to run on.

It comes into being when a sync run first needs one: for an async hook, a deadline, or
an async task that it submitted.
"""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from engine.dispatch.asyncio import AsyncioDispatcher

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from engine.dispatch.here import Backend
    from engine.dispatch.trio import TrioDispatcher
    from engine.executors.thread import ThreadPool


@asynccontextmanager
async def dispatching(
    backend: Backend, hook_threads: ThreadPool
) -> AsyncGenerator[AsyncioDispatcher | TrioDispatcher]:
    """Give a dispatcher for the running loop; its tasks end before the block does."""
    if backend == "asyncio":
        dispatcher = AsyncioDispatcher(hook_threads)
        try:
            yield dispatcher
        finally:
            await dispatcher.aclose()
    else:
        from engine.dispatch.trio import open_dispatcher

        async with open_dispatcher(hook_threads) as trio_dispatcher:
            yield trio_dispatcher


class BackgroundLoop:
    """A loop of the given kind in a daemon thread, until it is stopped."""

    def __init__(self, backend: Backend, hook_threads: ThreadPool) -> None:
        self._backend: Backend = backend
        self._hook_threads = hook_threads
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._dispatcher: Any = None
        self._stop: Any = None
        self._thread = threading.Thread(
            target=self._run, name="engine-loop", daemon=True
        )

    def start(self) -> Any:
        """Start the loop and return its dispatcher."""
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error
        return self._dispatcher

    def stop(self, timeout: float) -> None:
        """End the loop; wait for its thread for at most *timeout* seconds."""
        if self._thread.ident is None:
            return  # who wanted to start it was interrupted
        if self._ready.wait(timeout) and self._error is None:
            self._dispatcher.call_soon(self._stop.set)
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            anyio.run(self._serve, backend=self._backend)
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        async with dispatching(self._backend, self._hook_threads) as dispatcher:
            self._dispatcher = dispatcher
            self._stop = anyio.Event()
            self._ready.set()
            await self._stop.wait()
