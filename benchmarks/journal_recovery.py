"""How long after a run's process is killed does its first hook begin?

The supervisor of ``python -m engine run`` is asked, whose recovery has everything
imported, the flow's module included. From the kill to the hook's first line: the death
is noticed, the journal locked and opened, the run moved to Crashed on disk, the attempt
written down, the hook called.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

from engine import Engine, flow
from engine.cli.watch import needs_recovery, recover_in_fork, warm_up

KILLS = 200
READ, WRITE = os.pipe()


def tell(*_: Any) -> None:
    os.write(WRITE, f"{time.monotonic()}\n".encode())


@flow(on_running=[tell], on_crashed=[tell])
async def endless() -> None:
    await anyio.sleep_forever()


async def run(journal: Path) -> None:
    async with Engine(journal=f"sqlite:///{journal}"):
        await endless()


def heard() -> float:
    return float(os.read(READ, 100).split()[0])


def once(journal: Path, loop: str) -> float:
    """Return the seconds from a death to the first hook."""
    pid = os.fork()
    if pid == 0:
        anyio.run(run, journal, backend=loop)
        os._exit(0)
    heard()
    time.sleep(0.005)  # let the outcome of on_running be written
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert needs_recovery(str(journal))
    assert recover_in_fork(str(journal), loop) == 0
    return heard() - killed


def main() -> None:
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    for loop in ("asyncio", "trio"):
        warm_up(loop)
        with tempfile.TemporaryDirectory() as folder:
            times = sorted(once(Path(folder, f"{i}.db"), loop) for i in range(KILLS))
        middle, late = times[KILLS // 2], times[int(KILLS * 0.99)]
        print(
            f"{loop}: from a death to the first hook, {KILLS} kills: median"
            f" {middle * 1e3:.1f} ms, 99th percentile {late * 1e3:.1f} ms"
        )


if __name__ == "__main__":
    main()
