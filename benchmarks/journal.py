"""What does a journal cost, and how fast is it written?

One flow fans out to tasks, without a journal and with one, in turn in one process; then
as many runs without a parent, each of which waits for the disk. Ratios are medians of
pairs; the processor's time tells what the clock's cannot on a machine that is busy.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import anyio

from engine import Engine, flow, task
from engine.journal import SQLiteJournal

TASKS = 20_000
PAIRS = 7


class Took(NamedTuple):
    """What one fan-out took, in seconds."""

    until_done: float
    until_written: float
    processor: float
    transitions: int


@task
async def work(number: int) -> int:
    return number


@flow
async def fan_out(tasks: int) -> int:
    handles = await work.map(range(tasks))
    return len(handles)


async def in_one_flow(engine: Engine) -> None:
    await fan_out(TASKS)


async def without_a_parent(engine: Engine) -> None:
    handles = [engine.start(work, number) for number in range(TASKS)]
    for handle in handles:
        await handle


async def measure(
    journal: SQLiteJournal | None, run: Callable[[Engine], Awaitable[None]]
) -> Took:
    async with Engine(journal=journal) as engine:
        began, processor = time.perf_counter(), time.process_time()
        await run(engine)
        done = time.perf_counter()
        transitions = engine.statistics().transitions
    written = time.perf_counter()
    took = time.process_time() - processor
    return Took(done - began, written - began, took, transitions)


def pair(
    durability: str, run: Callable[[Engine], Awaitable[None]]
) -> tuple[Took, Took]:
    with tempfile.TemporaryDirectory() as folder:
        journal = SQLiteJournal(Path(folder, "journal.db"), durability=durability)
        return anyio.run(measure, None, run), anyio.run(measure, journal, run)


def report(durability: str, run: Callable[[Engine], Awaitable[None]]) -> None:
    pairs = [pair(durability, run) for _ in range(PAIRS)]
    ratio = statistics.median(b.until_done / a.until_done for a, b in pairs)
    processor = statistics.median(b.processor / a.processor for a, b in pairs)
    without = statistics.median(a.until_done for a, _ in pairs)
    speed = statistics.median(b.transitions / b.until_written for _, b in pairs)
    print(
        f"{run.__name__.replace('_', ' ')}, {durability}: {without:.3f} s without,"
        f" {ratio:.2f}x with ({processor:.2f}x the processor's time),"
        f" {speed:,.0f} transitions/s on disk"
    )


def main() -> None:
    print(f"{TASKS:,} tasks, medians of {PAIRS} pairs")
    for run in (in_one_flow, without_a_parent):
        for durability in ("full", "normal", "off"):
            report(durability, run)


if __name__ == "__main__":
    main()
