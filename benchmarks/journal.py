"""What does a journal cost, and how fast is it written?

One flow fans out to tasks, without a journal and with one of each durability, in turn;
then as many runs without a parent, each of which waits for the disk.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import anyio

from engine import Engine, flow, task
from engine.journal import SQLiteJournal

TASKS = 20_000
ROUNDS = 3
LIMIT = 1000


@task
async def work(number: int) -> int:
    return number


@flow
async def fan_out(tasks: int) -> int:
    handles = await work.map(range(tasks))
    return len(handles)


async def in_a_flow(journal: SQLiteJournal | None) -> tuple[float, float, int]:
    """Return the seconds until the flow was done, until all was written, and what."""
    began = time.perf_counter()
    async with Engine(journal=journal) as engine:
        opened = time.perf_counter()
        await fan_out(TASKS)
        done = time.perf_counter()
        transitions = engine.statistics().transitions
    del began
    return done - opened, time.perf_counter() - opened, transitions


async def alone(journal: SQLiteJournal | None) -> tuple[float, float, int]:
    """The same for runs that have no parent."""
    async with Engine(journal=journal) as engine:
        opened = time.perf_counter()
        handles = [engine.start(work, number) for number in range(TASKS)]
        for handle in handles:
            await handle
        done = time.perf_counter()
        transitions = engine.statistics().transitions
    return done - opened, time.perf_counter() - opened, transitions


def main() -> None:
    print(f"{TASKS:,} tasks, best of {ROUNDS}")
    for name, run in (("in one flow", in_a_flow), ("without a parent", alone)):
        base = 0.0
        for durability in (None, "off", "normal", "full"):
            results = []
            for _ in range(ROUNDS):
                with tempfile.TemporaryDirectory() as folder:
                    journal = None
                    if durability is not None:
                        path = Path(folder, "journal.db")
                        journal = SQLiteJournal(path, durability=durability)
                    results.append(anyio.run(run, journal))
            done, written, transitions = min(results)
            base = base or done
            line = f"{name}, journal {durability or 'none':6}: {done:6.3f} s"
            if durability is not None:
                line += f" ({done / base:4.2f}x), {transitions / written:9,.0f}"
                line += " transitions/s on disk"
            print(line)


if __name__ == "__main__":
    main()
