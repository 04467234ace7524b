"""The same job on others, each in a process of its own, beside this library."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs

from engine.bench.exceptions import BenchError
from engine.bench.fresh import surroundings
from engine.bench.measure import Progress, Setting
from engine.bench.peers.catalogue import BY_NAME, ENGINE, OURSELVES, Peer
from engine.bench.report import aligned, number

RUNNER: Final = Path(__file__).with_name("runner.py")
PATIENCE: Final = 300.0
"""Seconds that a peer gets for all of it, its start included."""

COLUMNS: Final = ("peer", "version", "runs", "µs/run", "x engine", "what it does")


@attrs.frozen(kw_only=True)
class Comparison:
    """How a peer did the job.

    Attributes:
        peer: Its name.
        job: What it was asked to do.
        version: Its version; None for ourselves, and for one that is not installed.
        runs: How many runs each round made.
        us_a_run: Microseconds a run, the median of the rounds.
        ratio: How many times as long as this library's, with as many runs.
        problem: Why there are no figures, if there are none.
    """

    peer: str
    job: str
    version: str | None = None
    runs: int
    us_a_run: float | None = None
    ratio: float | None = None
    problem: str | None = None


def chosen(names: str) -> list[Peer]:
    """Read names with commas between them.

    Raises:
        BenchError: One of them is nobody's.
    """
    peers = []
    for name in filter(None, map(str.strip, names.split(","))):
        if name not in BY_NAME:
            raise BenchError(f"peer {name!r}", f"is none of {', '.join(BY_NAME)}")
        peers.append(BY_NAME[name])
    return peers


def compare(
    peers: Sequence[Peer], python: str, setting: Setting, progress: Progress
) -> Iterator[Comparison]:
    """Have ourselves and then the peers do the job.

    Args:
        peers: Whom to compare with.
        python: The Python that they are installed in.
        setting: How many runs and rounds.
        progress: Told who is at it.
    """
    ours: dict[int, Comparison] = {}

    def engine(runs: int) -> Comparison:
        if runs not in ours:
            progress(f"{ENGINE.name}, {runs:,} runs")
            ours[runs] = do_job(ENGINE, sys.executable, runs, setting.rounds)
        return ours[runs]

    for peer in (*OURSELVES, *peers):
        runs = min(setting.runs, peer.most_runs)
        our = engine(runs)
        progress(f"{peer.name}, {runs:,} runs")
        where = python if peer.install else sys.executable
        found = our if peer is ENGINE else do_job(peer, where, runs, setting.rounds)
        if found.us_a_run is not None and our.us_a_run is not None:
            found = attrs.evolve(found, ratio=found.us_a_run / our.us_a_run)
        yield found


def do_job(peer: Peer, python: str, runs: int, rounds: int) -> Comparison:
    """Have one do the job in a process of its own."""
    blank = Comparison(peer=peer.name, job=peer.job, runs=runs)
    command = [python, str(RUNNER), peer.module, str(runs), str(rounds)]
    try:
        said = last_line(command, is_ours=peer.install is None)
    except BenchError as error:
        return attrs.evolve(blank, problem=error.problem)
    if "missing" in said:
        how = f"{said['missing']} is not installed: {peer.install}"
        return attrs.evolve(blank, problem=how)
    us = statistics.median(said["seconds"]) / runs * 1e6
    return attrs.evolve(blank, version=said["version"], us_a_run=us)


def last_line(command: Sequence[str], *, is_ours: bool) -> dict[str, Any]:
    """Run a command and read the JSON that it prints last.

    Raises:
        BenchError: It failed, or took too long.
    """
    environment = surroundings()
    if not is_ours:
        # What is on our path was not installed for their Python.
        environment.pop("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(RUNNER.parent), environment.get("PYTHONPATH")])
    )
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise BenchError(command[0], f"cannot be run: {error.strerror}") from None
    with process:
        try:
            out, noise = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise BenchError(command[0], f"took more than {PATIENCE:g} s") from None
        finally:
            end_session(process)
    if process.returncode:
        last = (noise.strip().splitlines() or [f"code {process.returncode}"])[-1]
        raise BenchError(command[0], f"failed: {last}")
    said: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return said


def end_session(process: subprocess.Popen[str]) -> None:
    """Leave no servers and workers of a peer behind, however it ended."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Lay the comparisons out in columns."""
    rows = [
        [
            one.peer,
            one.version or "-",
            f"{one.runs:,}",
            number(one.us_a_run, 1),
            number(one.ratio, 2),
            one.problem or one.job,
        ]
        for one in comparisons
    ]
    return aligned(COLUMNS, rows, {"peer", "version", "what it does"})
