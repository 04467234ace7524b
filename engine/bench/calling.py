"""Calling tasks one by one: awaited, called, and handed to threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from engine.bench.clock import now
from engine.bench.fanout import in_engine, nothing, submit_all, work
from engine.bench.loops import run_on
from engine.bench.measure import Measure, Sample
from engine.flows import flow
from engine.host import BODY_THREADS, Engine
from engine.tasks import task


def nothing_sync(number: int) -> int:
    """Return what was given."""
    return number


sync_work = task(nothing_sync)


@flow
async def await_each(work: Any, runs: int) -> float:
    """Await the task so many times; return the seconds."""
    began = now()
    for i in range(runs):
        await work(i)
    return now() - began


awaited: Final = in_engine(await_each, work)


async def await_each_bare(runs: int) -> Sample:
    """Await the bare function so many times."""
    began = now()
    for i in range(runs):
        await nothing(i)
    return Sample(now() - began)


def awaited_bare(loop: str, runs: int) -> Sample:
    """Await the bare function on a loop."""
    return run_on(loop, await_each_bare, runs)


@flow
def call_each(work: Any, runs: int) -> float:
    """Call the task so many times; return the seconds."""
    began = now()
    for i in range(runs):
        work(i)
    return now() - began


@flow
def submit_each(work: Any, runs: int) -> float:
    """Submit all, then block for each; return the seconds."""
    began = now()
    for handle in [work.submit(i) for i in range(runs)]:
        handle.result()
    return now() - began


def in_plain_thread(flow: Any) -> Measure:
    """Return what measures a sync flow without any loop."""

    def measure(_: str, runs: int) -> Sample:
        with Engine() as engine:
            seconds = flow(sync_work, runs)
            return Sample(seconds, engine.statistics().transitions)

    return measure


called: Final = in_plain_thread(call_each)
threads_from_thread: Final = in_plain_thread(submit_each)
threads_from_loop: Final = in_engine(submit_all, sync_work)


def called_bare(_: str, runs: int) -> Sample:
    """Call the bare function so many times."""
    began = now()
    for i in range(runs):
        nothing_sync(i)
    return Sample(now() - began)


def thread_pool(_: str, runs: int) -> Sample:
    """Submit to a bare pool with as many threads as an engine has."""
    with ThreadPoolExecutor(BODY_THREADS) as pool:
        began = now()
        for future in [pool.submit(nothing_sync, i) for i in range(runs)]:
            future.result()
        return Sample(now() - began)
