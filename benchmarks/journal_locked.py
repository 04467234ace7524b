"""How late does the loop get while another process holds the journal's file locked?

New runs are refused all the while. Beside it a bare loop in a process of its own beats
at the same pace: what it is late by is the machine's doing, not ours.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import structlog

from engine import Engine, flow
from engine.journal import JournalError

SECONDS = 30
BEAT = 0.005


@flow
async def nothing() -> None:
    pass


class Ticker:
    """Beats, and keeps how late each beat was."""

    def __init__(self) -> None:
        self.lags: list[float] = []

    async def run(self) -> None:
        while True:
            due = time.perf_counter() + BEAT
            await anyio.sleep(BEAT)
            self.lags.append(time.perf_counter() - due)

    def report(self, name: str) -> str:
        lags = sorted(self.lags)
        middle, late = lags[len(lags) // 2], lags[int(len(lags) * 0.99)]
        later = lags[int(len(lags) * 0.999)]
        return (
            f"{name}: {len(lags):,} beats, late by {middle * 1e3:.2f} ms (median),"
            f" {late * 1e3:.2f} (99 %), {later * 1e3:.2f} (99.9 %),"
            f" {lags[-1] * 1e3:.2f} (most)"
        )


async def beat_alone(seconds: float) -> None:
    ticker = Ticker()
    print("beating", flush=True)
    with anyio.move_on_after(seconds):
        await ticker.run()
    print(ticker.report("a bare loop"), flush=True)


def hold(path: str) -> None:
    """Keep the file locked, in a process of its own."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=9)
    connection.execute("BEGIN IMMEDIATE")
    print("held", flush=True)
    time.sleep(SECONDS)
    connection.execute("ROLLBACK")


async def refuse(engine: Engine, times: list[float]) -> None:
    """Start a run every other beat; note how long each took to be refused."""
    while True:
        began = time.perf_counter()
        try:
            await engine.start(nothing)
        except JournalError:
            times.append(time.perf_counter() - began)
        await anyio.sleep(BEAT * 2)


async def locked(path: str) -> None:
    ticker = Ticker()
    refused: list[float] = []
    async with Engine(journal=f"sqlite:///{path}") as engine:
        await nothing()
        command = (sys.executable, __file__, "hold", path)
        async with (
            await anyio.open_process(command) as holder,
            anyio.create_task_group() as tasks,
        ):
            assert holder.stdout is not None
            await holder.stdout.receive()
            tasks.start_soon(ticker.run)
            tasks.start_soon(refuse, engine, refused)
            await holder.wait()
            tasks.cancel_scope.cancel()
        await anyio.sleep(0.2)
        await nothing()
    print(
        f"{ticker.report('locked')}; {len(refused):,} runs were refused, the slowest"
        f" after {max(refused) * 1e3:.1f} ms"
    )


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    for loop in ("asyncio", "trio"):
        print(f"{loop}, {SECONDS} s:")
        command = (sys.executable, __file__, "beat", loop)
        with (
            tempfile.TemporaryDirectory() as folder,
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bare,
        ):
            assert bare.stdout is not None
            bare.stdout.readline()
            anyio.run(locked, str(Path(folder, "journal.db")), backend=loop)
            print(bare.stdout.read(), end="")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["hold", path]:
            hold(path)
        case ["beat", loop]:
            anyio.run(beat_alone, SECONDS, backend=loop)
        case _:
            main()
