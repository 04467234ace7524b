"""The program that the fault tests kill: flows and tasks that own up to all they do.

What happened is written to a pipe, one short line at a time, and read by the test: a
killed process cannot take back what it has written, and nothing of what is judged comes
from the journal under test.

As a program it is a nursery: it imports once, and forks a process for each round.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import anyio
import anyio.lowlevel
import structlog

from engine import Engine, flow, runtime, task
from engine.journal import JournalError, SQLiteJournal

CHILDREN = 2


def tell(*words: object) -> None:
    """Write a line of the history; short enough to be written as one piece."""
    line = " ".join(map(str, (os.getpid(), *words)))
    os.write(1, f"{line}\n".encode())


def told(*_: Any) -> None:
    """A hook that tells its delivery key."""
    key = runtime.delivery.key
    assert key is not None
    tell("hook", *key)


async def told_later(*_: Any) -> None:
    """An async hook that tells its delivery key."""
    await anyio.lowlevel.checkpoint()
    told()


HOOKS: dict[str, Any] = {
    "on_running": [told],
    "on_completion": [told_later, told],
    "on_failure": [told, told_later],
    "on_crashed": [told_later, told],
}


@task(**HOOKS)
async def child(number: int) -> int:
    tell("body", runtime.task_run.id)
    await anyio.lowlevel.checkpoint()
    if number % 5 == 4:
        raise ValueError(number)
    return number


@task(**HOOKS)
def sync_child(number: int) -> int:
    tell("body", runtime.task_run.id)
    return number


@flow(**HOOKS)
async def parent(number: int) -> int:
    tell("body", runtime.flow_run.id)
    handles = [child.submit(number + i) for i in range(CHILDREN)]
    handles.append(sync_child.submit(number))
    for handle in handles:
        await handle.join()
    return number


async def work(path: str, rounds: int) -> None:
    """Run flows, *rounds* at most, two at a time, and tell how each ended."""
    async with Engine(
        journal=SQLiteJournal(path, wait=10.0, quarantine_after=1000)
    ) as engine:
        tell("entered")
        for number in range(rounds):
            try:
                handles = [engine.start(parent, number + i) for i in range(2)]
            except JournalError as error:
                tell("refused", type(error).__name__)
                await anyio.sleep(0.01)
                continue
            for handle in handles:
                tell("submitted", handle.id)
            for handle in handles:
                state = await handle.join()
                if isinstance(state.data, JournalError):
                    tell("refused", type(state.data).__name__)
                else:
                    tell("acknowledged", handle.id, state.name)
    tell("left")


async def recover(path: str) -> None:
    """Deliver what is owed, and nothing else."""
    from engine.cli.recover import recover as recover_journal

    await recover_journal(SQLiteJournal(path, wait=10.0, quarantine_after=1000))
    tell("recovered")


def serve() -> None:
    """Fork a process for each line of the standard input: a job, a loop, a journal.

    A job that ends in ``-stopped`` waits for SIGCONT before it begins.
    """
    for line in sys.stdin:
        job, loop, path, rounds = line.split()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                if job.endswith("-stopped"):
                    os.kill(os.getpid(), signal.SIGSTOP)
                if job.startswith("work"):
                    anyio.run(work, path, int(rounds), backend=loop)
                else:
                    anyio.run(recover, path, backend=loop)
                code = 0
            finally:
                os._exit(code)
        tell("forked", pid)
        _, status = os.waitpid(pid, 0)
        tell("ended", pid, os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    import trio  # noqa: F401 - imported before the forks, which get it for nothing

    import engine.recording
    import engine.recovery  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not among the history: a process that is killed leaves half a line of its log.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    serve()
