"""Watching over a child: what it is told when it should stop, and what follows its end.

The supervisor runs none of the user's code. When the child is gone another process,
which stands by already, recovers the journal, so that hooks begin within milliseconds.
A hook that kills that one too is quarantined after a few.

It escalates by time, not by count: signals that are sent faster than they are delivered
merge into one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

from engine.cli.standby import Standby, recover_elsewhere, warm_up

MOST_RECOVERIES: Final = 20
"""How many recoveries may die one after another before the supervisor gives up."""

KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)
"""Windows has no stronger signal than the one that already kills there."""

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
            (grace, KILL, "killing the process"),
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
            recovery = None if journal is None else Recovery(journal, loop)
            code = self._watch(child)
            if recovery is not None:
                recovery.follow(child.pid, code)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if code < 0:
            return INTERRUPTED - code
        if self._stopped_by is not None and code == INTERRUPTED + signal.SIGTERM:
            return INTERRUPTED + self._stopped_by
        return code

    def _watch(self, child: subprocess.Popen[Any]) -> int:
        # Only now: a process with threads is no good to be forked.
        waiter = threading.Thread(target=self._wait, args=(child,), daemon=True)
        waiter.start()
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


class Recovery:
    """What follows the child's end.

    Args:
        journal: The journal's file.
        loop: On which kind of loop to recover.
    """

    def __init__(self, journal: str, loop: str) -> None:
        self._journal = journal
        self._loop = loop
        self._standby: Standby | None = None
        if hasattr(os, "fork"):
            warm_up(loop)
            self._standby = Standby(journal, loop)

    def follow(self, child: int, code: int) -> None:
        """Recover if the child has left something to do, until it is done.

        Args:
            child: Its process id.
            code: How the child ended. Of one that was killed nobody has to look into
                the journal first.
        """
        if not Path(self._journal).exists() or (
            code >= 0 and not needs_recovery(self._journal, child, code)
        ):
            if self._standby is not None:
                self._standby.dismiss()
            return
        for _ in range(MOST_RECOVERIES):
            if self._recover() >= 0:
                return
        text = f"giving up after {MOST_RECOVERIES} recoveries that were killed"
        print(f"python -m engine run: {text}", file=sys.stderr, flush=True)

    def _recover(self) -> int:
        if not hasattr(os, "fork"):  # pragma: no cover - Windows
            return recover_elsewhere(self._journal, self._loop)
        standby = self._standby or Standby(self._journal, self._loop)
        self._standby = None
        return standby.recover()


def ignore_interrupts() -> None:
    """Leave SIGINT to the supervisor; the child takes it back when it is ready."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def needs_recovery(journal: str, child: int, code: int) -> bool:
    """Whether a child that was not killed has left anything to do for a recovery."""
    from engine.cli.child import REFUSED
    from engine.journal.exceptions import JournalError
    from engine.journal.reader import reading

    try:
        with reading(journal) as reader:
            # One that refuses, perhaps since somebody else has the journal, has said
            # why. It has the code of a body that exits so, but never wrote anything.
            if code == REFUSED and all(o["pid"] != child for o in reader.owners()):
                return False
            return reader.needs_recovery()
    except JournalError:
        return code != REFUSED  # whatever it is, the recovery will say
