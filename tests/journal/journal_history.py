"""What the workers told, and whether it may have happened."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

WORKER = Path(__file__).with_name("journal_worker.py")
ROOT = WORKER.parents[2]


class Nursery:
    """The worker program, which forks a process for each round, and what all tell."""

    def __init__(self, *, wrapper: tuple[str, ...] = ()) -> None:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.lines: list[list[str]] = []
        self._news: SimpleQueue[list[str]] = SimpleQueue()
        self._process = subprocess.Popen(
            [*wrapper, sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.errors: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._read_errors, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def start(self, job: str, loop: str, journal: Path, rounds: int = 10**6) -> int:
        """Have a process forked; return its pid."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{job} {loop} {journal} {rounds}\n")
        self._process.stdin.flush()
        return int(self.wait_for("forked")[2])

    def wait_for(self, word: str, pid: int | None = None) -> list[str]:
        """Wait until a line with *word* comes; return it."""
        deadline = time.monotonic() + 60
        while True:
            try:
                line = self._news.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise AssertionError(
                    f"no {word!r} came: {''.join(self.errors[-30:])}"
                ) from None
            if line[1] == word and pid in (None, int(line[0])):
                return line

    def wait_for_end(self, pid: int) -> int:
        """Wait until a process has ended; return its exit code."""
        while True:
            line = self.wait_for("ended")
            if int(line[2]) == pid:
                return int(line[3])

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            line = text.split()
            if len(line) < 2 or not line[0].isdigit():
                self.errors.append(text)  # what the library logs
                continue
            self.lines.append(line)
            self._news.put(line)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self.errors.extend(self._process.stderr)


class Verdict:
    """What is wrong with a history; nothing is, if all lists are empty."""

    def __init__(self, lines: list[list[str]]) -> None:
        self.lost: list[str] = []
        self.misordered: list[str] = []
        self.repeated: list[str] = []
        self.lied: list[str] = []
        self.repeats = 0
        self.deliveries = 0
        self.runs = 0
        bodies: set[str] = set()
        ends: dict[str, str] = {}
        deliveries: dict[str, list[tuple[str, int, str]]] = defaultdict(list)
        for pid, word, *rest in lines:
            if word == "body":
                bodies.add(rest[0])
                if not any("on_running" in hook for *_, hook in deliveries[rest[0]]):
                    self.misordered.append(f"{rest[0]}: body before on_running")
            elif word == "acknowledged":
                ends[rest[0]] = rest[1]
            elif word == "hook":
                deliveries[rest[0]].append((pid, int(rest[1]), rest[2]))
        self.runs = len(bodies)
        for run in bodies | set(ends):
            self._judge(run, deliveries[run], ends.get(run))

    def _judge(
        self, run: str, deliveries: list[tuple[str, int, str]], end: str | None
    ) -> None:
        self.deliveries += len(deliveries)
        first: dict[tuple[int, int], str] = {}
        repeats: dict[str, int] = defaultdict(int)
        for pid, sequence, hook in deliveries:
            position = int(hook.partition("[")[2].partition("]")[0])
            if (sequence, position) in first:
                repeats[pid] += 1
            else:
                first[sequence, position] = hook
        if list(first) != sorted(first):
            self.misordered.append(f"{run}: {deliveries}")
        self.repeats += sum(repeats.values())
        # Each process repeats what its predecessor may not have finished: one hook.
        if any(count > 1 for count in repeats.values()):
            self.repeated.append(f"{run}: {deliveries}")
        kinds = [hook.partition("[")[0] for hook in first.values()]
        terminal = [kind for kind in kinds if kind != "on_running"]
        if kinds.count("on_running") != 1 or len(terminal) != 2:
            self.lost.append(f"{run}, which ended {end}: {deliveries}")
        elif len(set(terminal)) > 1:
            self.lied.append(f"{run} ended twice: {deliveries}")
        elif end is not None and terminal[0] != HOOK_OF[end]:
            self.lied.append(f"{run} was told to have ended {end}: {deliveries}")

    def check(self) -> None:
        """Raise if anything is wrong."""
        assert not self.lost, (len(self.lost), self.lost[:3])
        assert not self.misordered, (len(self.misordered), self.misordered[:3])
        assert not self.lied, (len(self.lied), self.lied[:3])
        assert not self.repeated, (len(self.repeated), self.repeated[:3])


HOOK_OF = {
    "Completed": "on_completion",
    "Failed": "on_failure",
    "Crashed": "on_crashed",
}


def check_file(journal: Path) -> None:
    """Check that the file is sound, and that nothing in it is left open."""
    db = sqlite3.connect(journal)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute(
        "SELECT count(*) FROM runs WHERE ended_at IS NULL"
    ).fetchone() == (0,)
    fates = dict(db.execute("SELECT fate, count(*) FROM hooks GROUP BY fate"))
    db.close()
    assert set(fates) <= {"delivered"}, fates
