"""One method for sync and for async code: it does its work, or gives what to await.

Blocks wait for files and sockets. Sync code waits in its own thread; async code gets a
coroutine whose waiting is done in a worker thread, so that no loop is ever held. The
coroutine starts at its ``await``: one that is dropped has done nothing, and Python's
own ``RuntimeWarning`` names the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import anyio.to_thread
from anyio.lowlevel import RunVar

from engine.context import run_of_this_thread
from engine.dispatch.caller import CallerDispatcher
from engine.dispatch.here import running_backend

T = TypeVar("T")

THREADS: Final = 20
"""How many calls of blocks wait at once, for each loop. Not taken from anyio's common
40 threads: a webhook that answers slowly would use up those of the whole program."""

_limiter: RunVar[anyio.CapacityLimiter] = RunVar("engine_blocks_limiter")


def in_async_code() -> bool:
    """Whether the caller can await.

    It can if an event loop runs in its thread, unless the loop is being held by a sync
    flow or task that was called right there. That run's own thread tells it from its
    async hooks, which run on another loop meanwhile; what the loop is to the run tells
    it from code on a loop that the run has started.
    """
    if running_backend() is None:
        return False
    run = run_of_this_thread()
    if run is None:
        return True
    on = run.dispatcher
    return not (isinstance(on, CallerDispatcher) and on.holds_loop)


def do(call: str, work: Callable[[], T], *, abandon: bool) -> Any:
    """Do *work* now, or return what does it when awaited.

    Args:
        call: What the user wrote, such as ``String.load('x')``, for warnings.
        work: Blocks; runs in this thread or in a worker thread, with a copy of the
            caller's context.
        abandon: Whether a cancelled caller goes on at once and leaves the thread to
            end alone. Right where the wait may be long and an unknown outcome is
            nothing new, as with a request; wrong for a short write to the store, of
            which the caller should know that it is over.

    Returns:
        The result in sync code, a coroutine for it in async code.
    """
    if not in_async_code():
        return work()
    coroutine: Any = in_thread(work, abandon=abandon)
    coroutine.__qualname__ = call
    return coroutine


async def in_thread(work: Callable[[], T], *, abandon: bool = False) -> T:
    """Do *work* in a worker thread; see `do`."""
    return await anyio.to_thread.run_sync(
        work, abandon_on_cancel=abandon, limiter=_loop_limiter()
    )


def _loop_limiter() -> anyio.CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(THREADS)
        _limiter.set(limiter)
        return limiter
