"""Recovering in a process that waits for it: a fork of the supervisor.

It is made as long as all is well, and has done by then what takes long: everything of
ours is imported, a loop runs, and an engine was entered in it once, so that a fork's
memory is its own where a recovery writes to it. What is left are a few milliseconds.

A hook that kills the recovery too kills the fork, not the supervisor.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import traceback

from engine.exceptions import EngineError

LOCK_SECONDS = 5.0
"""How long to wait for the journal's lock: a dying process may take a moment to drop
it."""


class Standby:
    """A process that will recover a journal when it is told to.

    Args:
        journal: The journal's file.
        loop: On which kind of loop.
    """

    def __init__(self, journal: str, loop: str) -> None:
        read, self._write = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._write)
            os._exit(stand_by(journal, loop, read))
        os.close(read)

    def recover(self) -> int:
        """Recover; return how that ended, negative for a signal."""
        os.write(self._write, b"!")
        return self._wait()

    def dismiss(self) -> None:
        """Do without it."""
        self._wait()

    def _wait(self) -> int:
        os.close(self._write)
        _, status = os.waitpid(self._pid, 0)
        return os.waitstatus_to_exitcode(status)


def stand_by(journal: str, loop: str, told: int) -> int:
    """Recover when a byte can be read from *told*, not at its end; return a code."""
    import anyio

    from engine.cli.recover import recover
    from engine.host import Engine
    from engine.journal.sqlite import SQLiteJournal

    async def wait_and_recover() -> None:
        async with Engine():
            pass
        # Nothing else is on this loop; and when the supervisor dies, the pipe ends.
        if os.read(told, 1):
            await recover(SQLiteJournal(journal, wait=LOCK_SECONDS))

    # What a terminal sends to everybody is the supervisor's to understand.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        anyio.run(wait_and_recover, backend=loop)
        return 0
    except EngineError as error:
        print(f"python -m engine run: {error}", file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def warm_up(loop: str) -> None:
    """Import what a recovery needs, by entering an engine.

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


def recover_elsewhere(journal: str, loop: str) -> int:
    """Recover where there is no fork; return the exit code."""
    command = (sys.executable, "-m", "engine", "redeliver", "--journal", journal)
    return subprocess.call((*command, "--fate", "failed", "--loop", loop))
