"""Measuring in turn.

The machine's slow moments spoil figures that are taken one after the other. So what is
compared is measured in turn, in one process: the bare loop, the baseline, the case,
then all of them again. Each round gives a ratio of its own, and the median of those is
what counts: what slows a whole round down leaves its ratio as it was.
"""

from __future__ import annotations

import gc
import signal
import statistics
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any, Final

import attrs

from engine.bench import clock
from engine.bench.results import Limit, Result

LOOPS: Final = ("asyncio", "trio")


@attrs.frozen
class Sample:
    """How long so many runs took, in seconds, and what they published meanwhile."""

    seconds: float
    transitions: int = 0


Measure = Callable[[str, int], Sample]
"""Opens the loop that it is told, makes so many runs, and says how long they took."""

Progress = Callable[[str], None]


@attrs.frozen(kw_only=True)
class Setting:
    """How a case is measured.

    Attributes:
        runs: How many runs each measurement makes.
        rounds: How often all are measured.
        loops: On which loops.
        clock: By which clock.
        idle_seconds: For how long an idle engine is watched.
    """

    runs: int = 100_000
    rounds: int = 5
    loops: tuple[str, ...] = LOOPS
    clock: clock.Name = "wall"
    idle_seconds: float = 1.0


@attrs.frozen
class Round:
    """What was measured in one turn."""

    loop: Sample
    base: Sample
    case: Sample


Judge = Callable[[Iterable[Round], int], float]
"""Makes the figure that is held against a limit, of the rounds and the runs in each."""


def ratio_to_base(rounds: Iterable[Round], runs: int) -> float:
    """How many times as long as the baseline it takes."""
    return statistics.median(r.case.seconds / r.base.seconds for r in rounds)


def microseconds_over_base(rounds: Iterable[Round], runs: int) -> float:
    """How much longer than the baseline each run takes."""
    over = statistics.median(r.case.seconds - r.base.seconds for r in rounds)
    return over / runs * 1e6


def microseconds(rounds: Iterable[Round], runs: int) -> float:
    """How long each run takes."""
    return statistics.median(r.case.seconds for r in rounds) / runs * 1e6


@attrs.frozen(kw_only=True)
class InTurn:
    """A case that is measured in turn with the bare loop and with its baseline.

    Attributes:
        name: What it is called on the command line.
        title: What it is called in the table.
        measure: Makes the runs.
        bare: Makes as many bare tasks of the loop.
        base: What its limit compares it with; None is the bare loop.
        base_title: What that is called.
        judge: Makes the figure that is held against the limit.
        limit: What that may be; None is no limit.
        needs_loop: False for what is measured without a loop; the bare tasks that it
            stands beside are asyncio's then.
        share: What part of the runs that are asked for it makes; for slow ones.
        live_bytes: Measures the memory of a live run and of a live bare task.
    """

    name: str
    title: str
    measure: Measure
    bare: Measure
    base: Measure | None = None
    base_title: str = "the bare loop"
    judge: Judge = ratio_to_base
    limit: Limit | None = None
    needs_loop: bool = True
    share: float = 1.0
    live_bytes: Callable[[str], tuple[float, float]] | None = None

    def results(self, setting: Setting, progress: Progress) -> Iterable[Result]:
        """Measure on each loop.

        What an interruption cuts short gives the rounds that were complete.
        """
        for loop in setting.loops if self.needs_loop else (None,):
            rounds: list[Round] = []
            try:
                with clock.clock(setting.clock):
                    self._measure(loop, setting, rounds, progress)
            except BaseException:
                if rounds:
                    yield self._summary(loop, setting, rounds)
                raise
            summary = self._summary(loop, setting, rounds)
            if self.live_bytes is not None:
                progress(f"{self.title}, {loop}: weighing live runs")
                live, bare = self.live_bytes(loop or LOOPS[0])
                summary = attrs.evolve(summary, bytes_a_live_run=live, loop_bytes=bare)
            yield summary

    def _runs(self, setting: Setting) -> int:
        return max(1, round(setting.runs * self.share))

    def _measure(
        self,
        loop: str | None,
        setting: Setting,
        rounds: list[Round],
        progress: Progress,
    ) -> None:
        runs, on = self._runs(setting), loop or LOOPS[0]
        for number in range(setting.rounds + 1):
            of = f"round {number} of {setting.rounds}" if number else "warming up"
            progress(f"{self.title}, {loop or 'no loop'}: {of}")
            bare = collected(self.bare, on, runs)
            base = bare if self.base is None else collected(self.base, on, runs)
            case = collected(self.measure, on, runs)
            if number:
                rounds.append(Round(bare, base, case))

    def _summary(
        self, loop: str | None, setting: Setting, rounds: list[Round]
    ) -> Result:
        runs = self._runs(setting)
        seconds = statistics.median(r.case.seconds for r in rounds)
        return Result(
            case=self.name,
            title=self.title,
            loop=loop,
            runs=runs,
            rounds=len(rounds),
            us_a_run=seconds / runs * 1e6,
            loop_us=statistics.median(r.loop.seconds for r in rounds) / runs * 1e6,
            ratio=statistics.median(r.case.seconds / r.loop.seconds for r in rounds),
            base=self.base_title,
            base_us=statistics.median(r.base.seconds for r in rounds) / runs * 1e6,
            transitions_a_second=rounds[0].case.transitions / seconds or None,
            figure=self.judge(rounds, runs),
            limit=self.limit,
        )


def collected(measure: Measure, loop: str, runs: int) -> Sample:
    """Measure, after what others left was collected."""
    with interruption_held():
        gc.collect()
    return measure(loop, runs)


@contextmanager
def interruption_held() -> Generator[None]:
    """Let a KeyboardInterrupt wait for the end of the block.

    One that strikes in a finaliser, as the collector calls them, is lost.
    """
    if current_thread() is not main_thread():
        yield
        return
    held: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda *given: held.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held and callable(before):
        before(*held[0])
