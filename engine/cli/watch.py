"""Watching over a child: what it is told when it should stop, and what follows its end.

The supervisor runs none of the user's code as long as the child lives. When the child
is gone it recovers the journal in a fork of itself, which has imported everything of
ours by then, so that hooks begin within milliseconds; one that kills the recovery too
kills the fork, not the supervisor, and is quarantined after a few.

It escalates by time, not by count: signals that are sent faster than they are delivered
merge into one.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

MOST_RECOVERIES: Final = 20
"""How many recoveries may die one after another before the supervisor gives up."""

INTERRUPTED: Final = 128
"""What shells add to the number of the signal that ended a process."""


class Watch:
    """One child and its supervision.

    Args:
        command: How to start the child.
        drain: Seconds from the first signal to cancelling.
        grace: Seconds from cancelling to killing.
    """

    def __init__(self, command: Sequence[str], *, drain: float, grace: float) -> None:
        self._command = command
        self._steps = [
            (0.0, None, "waiting for the run to end"),
            (drain, signal.SIGTERM, "cancelling the run"),
            (grace, signal.SIGKILL, "killing the process"),
        ]
        self._news: SimpleQueue[int | None] = SimpleQueue()
        self._stopped_by: int | None = None
        self._next_step_at: float | None = None

    def run(self, journal: str | None, loop: str) -> int:
        """Run the child to its end and recover what it leaves; return the exit code."""
        before = {
            number: signal.signal(number, lambda number, _: self._news.put(number))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            # A terminal's Ctrl-C reaches the child as well, maybe before it is ready.
            deafen = None if os.name == "nt" else ignore_interrupts
            child = subprocess.Popen(self._command, preexec_fn=deafen)
            code = self._watch(child, None if journal is None else loop)
            if journal is not None and needs_recovery(journal):
                recover(journal, loop)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if code < 0:
            return INTERRUPTED - code
        if self._stopped_by is not None and code == INTERRUPTED + signal.SIGTERM:
            return INTERRUPTED + self._stopped_by
        return code

    def _watch(self, child: subprocess.Popen[Any], loop: str | None) -> int:
        waiter = threading.Thread(target=self._wait, args=(child,), daemon=True)
        waiter.start()
        if loop is not None:
            warm_up(loop)
        while True:
            number = self._hear()
            if number is None:
                waiter.join()
                return int(child.returncode)
            if number and self._stopped_by is None:
                self._stopped_by = number
                self._next_step_at = time.monotonic()
            self._escalate(child)

    def _wait(self, child: subprocess.Popen[Any]) -> None:
        child.wait()
        self._news.put(None)

    def _hear(self) -> int | None:
        """Return the next signal, None for the child's end, 0 when a step is due."""
        at = self._next_step_at
        try:
            timeout = None if at is None else max(0.0, at - time.monotonic())
            return self._news.get(timeout=timeout)
        except Empty:
            return 0

    def _escalate(self, child: subprocess.Popen[Any]) -> None:
        if self._next_step_at is None or time.monotonic() < self._next_step_at:
            return
        _, number, text = self._steps.pop(0)
        print(f"python -m engine run: {text}", file=sys.stderr, flush=True)
        if number is not None:
            child.send_signal(number)
        following = self._steps[0][0] if self._steps else None
        self._next_step_at = None if following is None else time.monotonic() + following


def ignore_interrupts() -> None:
    """Leave SIGINT to the supervisor; the child takes it back when it is ready."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def warm_up(loop: str) -> None:
    """Import what a recovery needs while there is time for it, by entering an engine.

    The loops' libraries import a good deal only when they first run.
    """
    import anyio

    from engine.host import Engine

    for module in ("engine.cli.recover", "engine.recording"):
        importlib.import_module(module)

    async def enter() -> None:
        async with Engine():
            pass

    anyio.run(enter, backend=loop)


def needs_recovery(journal: str) -> bool:
    """Whether there is anything to do for a recovery."""
    from engine.journal.exceptions import JournalError
    from engine.journal.reader import reading

    if not Path(journal).exists():
        return False
    try:
        with reading(journal) as reader:
            return reader.needs_recovery()
    except JournalError:
        return True  # whatever it is, the recovery will say


def recover(journal: str, loop: str) -> None:
    """Recover until a recovery lives to its end."""
    for _ in range(MOST_RECOVERIES):
        if recover_in_fork(journal, loop) >= 0:
            return
    text = f"giving up after {MOST_RECOVERIES} recoveries that were killed"
    print(f"python -m engine run: {text}", file=sys.stderr, flush=True)


def recover_in_fork(journal: str, loop: str) -> int:
    """Recover in a process of its own; return how it ended, negative for a signal."""
    if not hasattr(os, "fork"):  # pragma: no cover - Windows
        command = (sys.executable, "-m", "engine", "redeliver", "--journal", journal)
        return subprocess.call((*command, "--fate", "failed", "--loop", loop))
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os._exit(recover_here(journal, loop))
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def recover_here(journal: str, loop: str) -> int:
    """Recover; return the exit code. The lock may take its holder a moment to drop."""
    from engine.cli.recover import recover_now
    from engine.journal.sqlite import SQLiteJournal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        recover_now(SQLiteJournal(journal, wait=5.0), loop)
        return 0
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
