"""Fanning out to many runs of a task that does nothing, beside as many bare tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import anyio
import trio

from engine.bench.clock import now
from engine.bench.loops import run_on
from engine.bench.measure import Measure, Sample
from engine.flows import flow
from engine.host import Engine
from engine.tasks import task

STREAM_LIMIT: Final = 1000

Around = Callable[[Engine], AbstractAsyncContextManager[Any]]


async def nothing(number: int) -> int:
    """Return what was given: the body of every run."""
    return number


async def told(task: Any, run: Any, state: Any) -> None:
    """Be a hook that does nothing."""


work = task(nothing)
hooked_work = task(on_completion=[told])(nothing)


async def bare_on_asyncio(runs: int) -> Sample:
    """Make bare tasks and wait for each."""
    began = now()
    for running in [asyncio.create_task(nothing(i)) for i in range(runs)]:
        await running
    return Sample(now() - began)


async def bare_on_trio(runs: int) -> Sample:
    """Start bare tasks in a nursery and wait for it."""
    began = now()
    async with trio.open_nursery() as nursery:
        for i in range(runs):
            nursery.start_soon(nothing, i)
    return Sample(now() - began)


def bare(loop: str, runs: int) -> Sample:
    """Fan out to bare tasks of the loop."""
    fan_out = bare_on_trio if loop == "trio" else bare_on_asyncio
    return run_on(loop, fan_out, runs)


@flow
async def submit_all(work: Any, runs: int) -> float:
    """Submit all, then wait for each; return the seconds."""
    began = now()
    for handle in [work.submit(i) for i in range(runs)]:
        await handle
    return now() - began


@flow
async def stream_all(work: Any, runs: int) -> float:
    """Stream all; return the seconds."""
    began = now()
    async for _ in work.stream(range(runs), limit=STREAM_LIMIT):
        pass
    return now() - began


def in_engine(flow: Any, work: Any, around: Around | None = None) -> Measure:
    """Return what measures a flow in an engine of its own.

    Args:
        flow: Takes the task and how many runs to make; returns the seconds.
        work: The task.
        around: What else is there while the flow runs.
    """

    async def run(runs: int) -> Sample:
        async with Engine() as engine, (around or nullcontext)(engine):
            seconds = await flow(work, runs)
            return Sample(seconds, engine.statistics().transitions)

    return lambda loop, runs: run_on(loop, run, runs)


submit: Final = in_engine(submit_all, work)
submit_with_hook: Final = in_engine(submit_all, hooked_work)
stream: Final = in_engine(stream_all, work)


@asynccontextmanager
async def readers(engine: Engine, *, count: int) -> AsyncGenerator[None]:
    """Have every transition read by so many subscribers as it happens."""

    async def read(transitions: Any) -> None:
        async with transitions:
            async for _ in transitions:
                pass

    # Room for all transitions: this is about publishing and reading, not about waiting.
    subscriptions = [engine.subscribe(10**9) for _ in range(count)]
    async with anyio.create_task_group() as group:
        for subscription in subscriptions:
            group.start_soon(read, subscription)
        await anyio.lowlevel.checkpoint()
        yield
        group.cancel_scope.cancel()


@asynccontextmanager
async def deaf(engine: Engine) -> AsyncGenerator[None]:
    """Have a subscriber that never reads; its buffer drops the oldest."""
    async with engine.subscribe(overflow="drop_oldest"):
        yield


def with_readers(count: int) -> Measure:
    """Return what measures the fan-out while *count* subscribers read."""
    return in_engine(submit_all, work, partial(readers, count=count))


with_deaf_subscriber: Final = in_engine(submit_all, work, deaf)


def with_journal(durability: str) -> Measure:
    """Return what measures the fan-out with a journal, until all of it is written."""

    async def run(journal: Any, runs: int) -> Sample:
        began = 0.0
        async with Engine(journal=journal) as engine:
            began = now()
            await submit_all(work, runs)
            transitions = engine.statistics().transitions
        return Sample(now() - began, transitions)

    def measure(loop: str, runs: int) -> Sample:
        from engine.journal import SQLiteJournal

        with TemporaryDirectory() as folder:
            path = Path(folder, "journal.db")
            journal = SQLiteJournal(path, durability=durability)  # type: ignore[arg-type]
            return run_on(loop, run, journal, runs)

    return measure


def without_journal(loop: str, runs: int) -> Sample:
    """Measure the same, closing included, without a journal."""

    async def run() -> Sample:
        async with Engine() as engine:
            began = now()
            await submit_all(work, runs)
            transitions = engine.statistics().transitions
        return Sample(now() - began, transitions)

    return run_on(loop, run)
