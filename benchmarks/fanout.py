"""What does a run cost beside a bare task of the event loop?

Each case makes many runs of a task that does nothing, and is measured in turn with as
many bare tasks of the same loop that do the same nothing: a pair, then the next pair,
all in one process, with the garbage collector on. Opening the loop and the engine is
not timed. Printed are the medians of the pairs, in microseconds a run, the median of
the pairs' ratios, which a slow moment of the machine spoils least, and the transitions
published in a second of the case's median.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import attrs
import trio

from engine import Engine, flow, task

RUNS = 20_000
PAIRS = 5
STREAM_LIMIT = 1000
# Room for all transitions: this is about publishing and reading, not about waiting.
SUBSCRIBER_BUFFER = 1_000_000


@attrs.frozen
class Measurement:
    """How long so many runs took, and how many transitions they made."""

    seconds: float
    transitions: int = 0


Case = Callable[[int], Awaitable[Measurement]]


async def nothing(number: int) -> int:
    return number


async def told(task: Any, run: Any, state: Any) -> None:
    pass


work = task(nothing)
hooked_work = task(on_completion=[told])(nothing)


@task
def sync_work(number: int) -> int:
    return number


async def bare_asyncio(runs: int) -> Measurement:
    began = time.perf_counter()
    for running in [asyncio.create_task(nothing(i)) for i in range(runs)]:
        await running
    return Measurement(time.perf_counter() - began)


async def bare_trio(runs: int) -> Measurement:
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for i in range(runs):
            nursery.start_soon(nothing, i)
    return Measurement(time.perf_counter() - began)


BARE: dict[str, Case] = {"asyncio": bare_asyncio, "trio": bare_trio}


@flow
async def submit_all(work: Any, runs: int) -> float:
    began = time.perf_counter()
    for handle in [work.submit(i) for i in range(runs)]:
        await handle
    return time.perf_counter() - began


@flow
async def await_each(work: Any, runs: int) -> float:
    began = time.perf_counter()
    for i in range(runs):
        await work(i)
    return time.perf_counter() - began


@flow
async def stream_all(work: Any, runs: int) -> float:
    began = time.perf_counter()
    async for _ in work.stream(range(runs), limit=STREAM_LIMIT):
        pass
    return time.perf_counter() - began


@flow
def call_each(work: Any, runs: int) -> float:
    began = time.perf_counter()
    for i in range(runs):
        work(i)
    return time.perf_counter() - began


async def in_engine(flow: Any, work: Any, runs: int) -> Measurement:
    async with Engine() as engine:
        seconds = await flow(work, runs)
        return Measurement(seconds, engine.statistics().transitions)


async def with_subscriber(runs: int) -> Measurement:
    async with Engine() as engine, reading(engine):
        seconds = await submit_all(work, runs)
        return Measurement(seconds, engine.statistics().transitions)


@asynccontextmanager
async def reading(engine: Engine) -> AsyncIterator[None]:
    """Have every transition read as it happens."""

    async def read() -> None:
        async with engine.subscribe(SUBSCRIBER_BUFFER) as transitions:
            async for _ in transitions:
                pass

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.lowlevel.checkpoint()
        yield
        group.cancel_scope.cancel()


def on_this_thread(runs: int) -> Measurement:
    with Engine() as engine:
        seconds = call_each(sync_work, runs)
        return Measurement(seconds, engine.statistics().transitions)


ON_A_LOOP: dict[str, Case] = {
    "submit": partial(in_engine, submit_all, work),
    "submit, one async hook": partial(in_engine, submit_all, hooked_work),
    "submit, one live subscriber": with_subscriber,
    f"stream(limit={STREAM_LIMIT})": partial(in_engine, stream_all, work),
    "awaited in place": partial(in_engine, await_each, work),
}


@attrs.frozen
class Result:
    """One case, and the bare tasks of a loop that were measured in turn with it."""

    beside: str
    case: str
    runs: int
    us_a_run: float
    bare_us: float
    ratio_of_medians: float
    median_of_ratios: float
    transitions_a_second: float


def compare(
    case: str, runs: int, measure: Callable[[], Measurement], *, beside: str
) -> Result:
    """Measure a case and bare tasks of a loop in turn, and sum the pairs up."""
    print(f"{case}, beside {beside} …", file=sys.stderr)
    bare = partial(anyio.run, BARE[beside], runs, backend=beside)
    pairs: list[tuple[Measurement, Measurement]] = []
    for call in (bare, measure):  # a first time that does not count
        call()
    for _ in range(PAIRS):
        gc.collect()
        first = bare()
        gc.collect()
        pairs.append((first, measure()))
    bare_seconds = statistics.median(b.seconds for b, _ in pairs)
    seconds = statistics.median(m.seconds for _, m in pairs)
    return Result(
        beside=beside,
        case=case,
        runs=runs,
        us_a_run=seconds / runs * 1e6,
        bare_us=bare_seconds / runs * 1e6,
        ratio_of_medians=seconds / bare_seconds,
        median_of_ratios=statistics.median(m.seconds / b.seconds for b, m in pairs),
        transitions_a_second=pairs[0][1].transitions / seconds,
    )


def results(runs: int) -> list[Result]:
    """Measure every case; each says on stderr that it has begun."""
    found = [
        compare(case, runs, partial(anyio.run, fn, runs, backend=loop), beside=loop)
        for loop in BARE
        for case, fn in ON_A_LOOP.items()
    ]
    no_loop = partial(on_this_thread, runs)
    found.append(compare("sync task in a sync flow", runs, no_loop, beside="asyncio"))
    return found


def table(found: list[Result]) -> str:
    lines = [
        f"{'':28} {'':7} {'µs':>8} {'bare task':>9} {'ratio of':>9} {'median':>9}"
        f" {'transitions':>12}",
        f"{'case':28} {'beside':7} {'a run':>8} {'µs':>9} {'medians':>9}"
        f" {'of ratios':>9} {'a second':>12}",
    ]
    lines += [
        f"{r.case:28} {r.beside:7} {r.us_a_run:8.2f} {r.bare_us:9.2f}"
        f" {r.ratio_of_medians:9.2f} {r.median_of_ratios:9.2f}"
        f" {r.transitions_a_second:12,.0f}"
        for r in found
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=RUNS, help="runs in each case")
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error(f"--runs must be >= 1, got {options.runs}")
    found = results(options.runs)
    if options.json:
        print(json.dumps([attrs.asdict(result) for result in found], indent=2))
    else:
        print(f"{options.runs:,} runs, medians of {PAIRS} pairs")
        print(table(found))


if __name__ == "__main__":
    main()
