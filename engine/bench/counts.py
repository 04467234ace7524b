"""What repeats: counts of what a fan-out does, and the ratio of processor time.

Seconds depend on the machine and on who else uses it. How many bytecodes and calls a
run executes, and how many objects a live one keeps, are the same each time. What they
do not see, time inside of C code, the ratio to the bare loop does: of the processor's
time, in many short turns, whose median moves by a few hundredths on a busy machine.
"""

from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from engine.bench import fanout
from engine.bench.clock import clock
from engine.bench.living import Live, bare_crowd, engine_crowd, of_one_more
from engine.bench.measure import Measure, collected

TIMED_RUNS: Final = 1_000
TIMED_ROUNDS: Final = 40
COUNTED_RUNS: Final = 300

# From Python 3.12 on.
MONITORING: Final[Any] = getattr(sys, "monitoring", None)
TOOL: Final = 4  # one that no debugger, coverage or profiler uses by convention


class Counter:
    """Counts by being called."""

    def __init__(self) -> None:
        self.count = 0


@contextmanager
def bytecodes() -> Generator[Counter]:
    """Count the bytecodes that are executed in the block."""
    counter = Counter()
    if MONITORING is None:
        with traced(counter):
            yield counter
        return

    def note(*_: Any) -> None:
        counter.count += 1

    events = MONITORING.events
    MONITORING.use_tool_id(TOOL, "engine bench")
    MONITORING.register_callback(TOOL, events.INSTRUCTION, note)
    MONITORING.set_events(TOOL, events.INSTRUCTION)
    try:
        yield counter
    finally:
        MONITORING.set_events(TOOL, events.NO_EVENTS)
        MONITORING.free_tool_id(TOOL)


@contextmanager
def traced(counter: Counter) -> Generator[None]:
    """Do so on Python 3.11; from 3.12 on, tracing misses some of them."""

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event == "call":
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        elif event == "opcode":
            counter.count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def calls() -> Generator[Counter]:
    """Count the calls, of Python's functions and of C's, in the block."""
    counter = Counter()

    def note(_: FrameType, event: str, __: Any) -> None:
        if event in ("call", "c_call"):
            counter.count += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield counter
    finally:
        sys.setprofile(before)


def a_run(counting: Callable[[], Any], measure: Measure, loop: str) -> float:
    """Return how many one more run counts."""

    def count(runs: int) -> int:
        with counting() as counter:
            measure(loop, runs)
        return int(counter.count)

    few = count(COUNTED_RUNS)
    return (count(3 * COUNTED_RUNS) - few) / (2 * COUNTED_RUNS)


def blocks() -> int:
    """Return how many blocks of memory are in use."""
    gc.collect()
    return sys.getallocatedblocks()


def tracked() -> int:
    """Return how many objects the garbage collector has to walk."""
    gc.collect()
    return len(gc.get_objects())


def live(weigh: Callable[[], int], crowd: Live, loop: str) -> float:
    """Return how many one more live run has."""
    return of_one_more(crowd, loop, weigh, 3 * COUNTED_RUNS, COUNTED_RUNS)


def seconds_ratio(measure: Measure, bare: Measure, loop: str) -> float:
    """Return the processor's time of a run, in that of a bare task."""
    with clock("cpu"):
        for one in (bare, measure):
            one(loop, TIMED_RUNS)
        rounds = [
            [collected(one, loop, TIMED_RUNS).seconds for one in (bare, measure)]
            for _ in range(TIMED_ROUNDS)
        ]
    return statistics.median(case / base for base, case in rounds)


def ratios(loop: str) -> dict[str, float]:
    """Return what a run of the fan-out costs in bare tasks, by what is counted."""
    return {
        "seconds": seconds_ratio(fanout.submit, fanout.bare, loop),
        "bytecodes": a_run(bytecodes, fanout.submit, loop)
        / a_run(bytecodes, fanout.bare, loop),
        "calls": a_run(calls, fanout.submit, loop) / a_run(calls, fanout.bare, loop),
        "blocks": live(blocks, engine_crowd, loop) / live(blocks, bare_crowd, loop),
        "tracked": live(tracked, engine_crowd, loop) / live(tracked, bare_crowd, loop),
    }
