"""SIGKILL at every system call by which the journal changes its files.

strace delivers it at the n-th such call of a thread. By default some of the points are
tried; ``ENGINE_TEST_SYSCALLS=all`` tries each.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from journal_history import Nursery, Verdict, check_file

CALLS = "pwrite64,fsync,fdatasync,ftruncate,unlink"
ALL = os.environ.get("ENGINE_TEST_SYSCALLS") == "all"
ROUNDS = 2
SOME = 7
"""Which points are tried by default: every so many."""


def strace_works() -> bool:
    """Whether strace is there and may trace."""
    strace = shutil.which("strace")
    if strace is None:
        return False
    probe = (strace, "-qq", "-o", os.devnull, "-e", "trace=none", "true")
    return subprocess.run(probe, check=False, capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.skipif(
        not strace_works(), reason="strace is missing, or may not trace"
    ),
    pytest.mark.timeout(1200 if ALL else 120),
]


def killed_at(pid: int, call: int) -> AbstractContextManager[None]:
    """Have a stopped process go on, to be killed at a thread's *call*-th change."""
    return injected(pid, f"{CALLS}:signal=KILL:when={call}")


@contextmanager
def injected(pid: int, fault: str) -> Iterator[None]:
    """Have a stopped process go on with a fault in its system calls."""
    wait_for_status(pid, "State", "T")
    strace = subprocess.Popen(
        (
            *("strace", "-f", "-qq", "-o", os.devnull, "-p", str(pid)),
            *("-e", f"trace={CALLS}", "-e", f"inject={fault}"),
        ),
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_status(pid, "TracerPid", str(strace.pid))
        os.kill(pid, signal.SIGCONT)
        yield
    finally:
        strace.terminate()
        strace.wait(10)


def wait_for_status(pid: int, field: str, value: str) -> None:
    """Wait until the kernel says so of a process; there is nothing to wait on."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, found = line.partition(":")
            if name == field and found.split()[0] == value:
                return
        time.sleep(0.001)
    raise AssertionError(f"process {pid} never had {field} {value}")


def points() -> Iterator[int]:
    """Yield the calls at which to kill."""
    call = 1
    while True:
        yield call
        call += 1 if ALL else SOME


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_kill_at_any_change_of_the_files(loop: str, tmp_path: Path) -> None:
    """Wherever the working process dies, what it owed is delivered, in order."""
    tried = 0
    with Nursery() as nursery:
        for call in points():
            journal = tmp_path / f"{call}.db"
            before = len(nursery.lines)
            pid = nursery.start("work-stopped", loop, journal, ROUNDS)
            with killed_at(pid, call):
                code = nursery.wait_for_end(pid)
            recovery = nursery.start("recover", loop, journal)
            assert nursery.wait_for_end(recovery) == 0, (call, nursery.errors[-20:])
            Verdict(nursery.lines[before:]).check()
            check_file(journal)
            if code == 0:
                break  # the process makes fewer changes than that
            tried += 1
    print(f"{loop}: killed at {tried} points")
    assert tried > 5


def test_a_kill_at_any_change_of_a_recovery(tmp_path: Path) -> None:
    """Wherever the recovering process dies, the next recovery finishes its work."""
    tried = 0
    with Nursery() as nursery:
        for call in points():
            journal = tmp_path / f"{call}.db"
            before = len(nursery.lines)
            pid = nursery.start("work-stopped", "asyncio", journal, ROUNDS)
            with killed_at(pid, 40):
                nursery.wait_for_end(pid)
            pid = nursery.start("recover-stopped", "asyncio", journal)
            with killed_at(pid, call):
                code = nursery.wait_for_end(pid)
            recovery = nursery.start("recover", "asyncio", journal)
            assert nursery.wait_for_end(recovery) == 0, (call, nursery.errors[-20:])
            Verdict(nursery.lines[before:]).check()
            check_file(journal)
            if code == 0:
                break
            tried += 1
    print(f"recovery: killed at {tried} points")
    assert tried > 3


@pytest.mark.parametrize(
    ("fault", "passes"),
    [
        ("pwrite64:error=ENOSPC:when=60..75", True),
        ("pwrite64:error=EIO:when=60..75", True),
        ("fdatasync:error=EIO:when=30", False),
    ],
    ids=["no-space", "write-error", "sync-error"],
)
def test_errors_of_the_disk(fault: str, passes: bool, tmp_path: Path) -> None:
    """What was acknowledged is not lost; it goes on, but for a failed sync."""
    journal = tmp_path / "journal.db"
    with Nursery() as nursery:
        pid = nursery.start("work-stopped", "asyncio", journal, 40)
        with injected(pid, fault):
            assert nursery.wait_for_end(pid) == 0, "".join(nursery.errors[-30:])
        recovery = nursery.start("recover", "asyncio", journal)
        assert nursery.wait_for_end(recovery) == 0, nursery.errors[-20:]
        verdict = Verdict(nursery.lines)
        log = "".join(nursery.errors)
    verdict.check()
    check_file(journal)
    assert ("journal_recovered" in log) is passes
    assert ("journal_given_up" in log) is not passes
    told = {line[2] for line in nursery.lines if line[1] == "refused"}
    assert passes or told == {"JournalBroken"}
