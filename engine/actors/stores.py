"""Calling stores of results from where runs are driven, without holding a loop."""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.dispatch.base import Dispatcher
    from engine.executors.job import Job
    from engine.host import Engine
    from engine.results.store import ResultRecord, ResultStore


def needs_thread(store: ResultStore, on: Dispatcher) -> bool:
    """Whether a call of *store* would hold the loop that *on* waits on."""
    return on.can_interrupt and store.is_blocking


def in_thread(engine: Engine, call: Callable[..., Any], *args: Any) -> Job:
    """Make a call that blocks in a thread; return what to wait for."""
    return engine.hook_threads.start(copy_context().run, call, *args)


async def read_result(
    engine: Engine, on: Dispatcher, store: ResultStore, key: str
) -> ResultRecord | None:
    """Return the record of a key that may be used; None if there is none."""
    if needs_thread(store, on):
        job = in_thread(engine, store.read, key)
        await on.wait(job.subscribe)
        record: ResultRecord | None = job.result()
    else:
        record = store.read(key)
    return None if record is None or record.is_expired else record
