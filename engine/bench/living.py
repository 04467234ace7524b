"""Runs that live until they are cancelled: what they weigh, and how fast they end."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import anyio
import trio

from engine.bench.clock import now
from engine.bench.exceptions import BenchError
from engine.bench.fanout import told
from engine.bench.loops import run_on
from engine.bench.measure import Sample
from engine.dispatch.here import running_backend
from engine.flows import flow
from engine.host import Engine
from engine.states import StateType
from engine.tasks import task

WEIGHED: Final = 2_000
"""How many runs are alive while their memory is measured."""


class Crowd:
    """Bodies that wait for ever, counted as they begin and as they are finalised."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.begun = 0
        self.finalised = 0
        self.is_complete = anyio.Event()
        on_trio = running_backend() == "trio"
        self._wait = trio.sleep_forever if on_trio else wait_for_ever

    async def member(self, number: int) -> None:
        """Live until cancelled."""
        self.begun += 1
        if self.begun == self.size:
            self.is_complete.set()
        try:
            await self._wait()
        finally:
            self.finalised += 1


async def wait_for_ever() -> None:
    """Wait on asyncio, at the price of one future."""
    await asyncio.get_running_loop().create_future()


@flow
async def keep_alive(member: Any, size: int, handles: list[Any]) -> None:
    """Submit all members and wait for them."""
    handles += [member.submit(i) for i in range(size)]
    for handle in handles:
        await handle


WhenAlive = Callable[[], Any]


async def engine_crowd(
    crowd: Crowd, when_alive: WhenAlive, hooks: Any = ()
) -> tuple[Any, float]:
    """Have the crowd live in a flow and cancel it.

    Returns:
        What *when_alive* said when all lived, and the seconds that cancelling took.

    Raises:
        BenchError: Not all were cancelled, or not all finalisers ran.
    """
    member = task(crowd.member).with_options(on_completion=hooks)
    handles: list[Any] = []
    async with Engine() as engine:
        handle = engine.start(keep_alive, member, crowd.size, handles)
        await crowd.is_complete.wait()
        said = when_alive()
        began = now()
        handle.cancel()
        await handle.join()
        seconds = now() - began
    ends = [one.state.type for one in [handle, *handles]]
    cancelled = ends.count(StateType.CANCELLED)
    if cancelled != crowd.size + 1 or crowd.finalised != crowd.size:
        problem = (
            f"left {cancelled} of {crowd.size + 1} runs Cancelled, with"
            f" {crowd.finalised} of {crowd.size} finalisers run"
        )
        raise BenchError("cancelling a flow", problem)
    return said, seconds


async def bare_crowd(crowd: Crowd, when_alive: WhenAlive) -> tuple[Any, float]:
    """Have the crowd live in bare tasks of the loop and cancel them."""
    if running_backend() == "trio":
        async with trio.open_nursery() as nursery:
            for i in range(crowd.size):
                nursery.start_soon(crowd.member, i)
            await crowd.is_complete.wait()
            said = when_alive()
            began = now()
            nursery.cancel_scope.cancel()
        return said, now() - began
    tasks = [asyncio.create_task(crowd.member(i)) for i in range(crowd.size)]
    await crowd.is_complete.wait()
    said = when_alive()
    began = now()
    for one in tasks:
        one.cancel()
    for one in tasks:
        with suppress(asyncio.CancelledError):
            await one
    return said, now() - began


Live = Callable[[Crowd, WhenAlive], Awaitable[tuple[Any, float]]]


def cancelling(live: Live, loop: str, runs: int) -> Sample:
    """Measure how long it takes to cancel so many."""

    async def run() -> Sample:
        _, seconds = await live(Crowd(runs), int)
        return Sample(seconds)

    return run_on(loop, run)


cancel: Final = partial(cancelling, engine_crowd)
cancel_bare: Final = partial(cancelling, bare_crowd)


def of_one_more(
    live: Live, loop: str, weigh: Callable[[], int], many: int, few: int
) -> float:
    """Return what one more of them adds to what *weigh* says while they live."""

    async def run(size: int) -> int:
        said, _ = await live(Crowd(size), weigh)
        return int(said)

    run_on(loop, run, 1)  # what is made once
    weights = [run_on(loop, run, size) for size in (few, many)]
    return (weights[1] - weights[0]) / (many - few)


def bytes_of_one(live: Live, loop: str) -> float:
    """Return the memory that one more of them takes, by Python's own account."""

    def weigh() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        return of_one_more(live, loop, weigh, WEIGHED, WEIGHED // 10)
    finally:
        tracemalloc.stop()


def bytes_a_live_run(loop: str) -> tuple[float, float]:
    """Return what a live run of a task takes, and what a bare task does."""
    return bytes_of_one(engine_crowd, loop), bytes_of_one(bare_crowd, loop)


def bytes_with_hook(loop: str) -> tuple[float, float]:
    """Return the same for a task with a hook."""
    live = partial(engine_crowd, hooks=[told])
    return bytes_of_one(live, loop), bytes_of_one(bare_crowd, loop)
