"""How long after a run's process is killed does its first hook begin?

``python -m engine run`` is asked as a whole, imports aside: the kill comes when the
supervisor has imported what a recovery needs, and the flow's module imports nothing
more. From the kill to the hook's first line: the death is noticed, the supervisor
forks, the journal is locked and opened, the run moved to Crashed on disk, the flow's
module loaded, the attempt written down, the hook called.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio

from engine import flow

KILLS = 100
WARM_UP_SECONDS = 1.5
PIPE = "JOURNAL_RECOVERY_PIPE"
"""Names the pipe in which hooks report."""


def tell(*_: Any) -> None:
    began = time.monotonic()
    with open(os.environ[PIPE], "w") as pipe:
        print(os.getpid(), began, file=pipe)


@flow(on_running=[tell], on_crashed=[tell])
async def endless() -> None:
    await anyio.sleep_forever()


def heard(pipe: Path) -> tuple[int, float]:
    """Return which process a hook began in, and when."""
    pid, began = pipe.read_text().split()
    return int(pid), float(began)


def once(folder: Path, loop: str) -> float:
    """Return the seconds from a death to the first hook."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    command = (
        *(sys.executable, "-m", "engine", "run", f"{__file__}:endless"),
        *("--journal", str(folder / "journal.db"), "--loop", loop),
    )
    environment = {**os.environ, PIPE: str(pipe)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, **quiet) as run:
        child, _ = heard(pipe)
        time.sleep(WARM_UP_SECONDS)
        killed = time.monotonic()
        os.kill(child, signal.SIGKILL)
        recovery, began = heard(pipe)
    assert recovery != child
    assert run.returncode == 128 + signal.SIGKILL
    return began - killed


def main() -> None:
    for loop in ("asyncio", "trio"):
        times = []
        for _ in range(KILLS):
            with tempfile.TemporaryDirectory() as folder:
                times.append(once(Path(folder), loop))
        times.sort()
        middle, late = times[KILLS // 2], times[int(KILLS * 0.99) - 1]
        print(
            f"{loop}: from a death to the first hook, {KILLS} kills: median"
            f" {middle * 1e3:.1f} ms, 99th percentile {late * 1e3:.1f} ms, the longest"
            f" {times[-1] * 1e3:.1f} ms"
        )


if __name__ == "__main__":
    main()
