"""The cases of ``engine bench``: what they measure, and how it is judged."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from support import output_of

from engine.bench import alone, clock, living
from engine.bench.cases import CASES, Case, named
from engine.bench.exceptions import BenchError
from engine.bench.fresh import answer
from engine.bench.measure import (
    InTurn,
    Round,
    Sample,
    Setting,
    microseconds,
    microseconds_over_base,
    ratio_to_base,
)
from engine.bench.results import Limit, Result

SETTING = Setting(runs=20, rounds=2, idle_seconds=0.02)
ROUNDS = [
    Round(Sample(1.0), Sample(base), Sample(case))
    for base, case in ((1.0, 2.0), (10.0, 30.0), (1.0, 9.0))
]


@pytest.fixture(autouse=True)
def few_are_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "WEIGHED", 20)


def quietly(_: str) -> None:
    """Show no progress."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_case_gives_figures_on_each_loop(case: Case) -> None:
    """Whatever a case has figures of, they are finite and make sense."""
    results = list(case.results(SETTING, quietly))
    wanted = ["asyncio", "trio"] if case.needs_loop else [None]
    assert list(dict.fromkeys(result.loop for result in results)) == wanted
    for result in results:
        facts = result.as_json()
        costs = ("us_a_run", "loop_us", "ratio", "base_us", "transitions_a_second")
        figures = [facts[name] for name in costs if facts[name] is not None]
        assert all(math.isfinite(figure) and figure > 0 for figure in figures)
        assert math.isfinite(result.figure)
        assert result.case == case.name
        assert result.rounds == 2


@pytest.mark.parametrize("name", ["fanout", "hook"])
def test_a_live_run_weighs_more_than_the_task_in_it(name: str) -> None:
    """The bytes of a run contain those of a bare task, and of little else."""
    for result in named([name])[0].results(SETTING, quietly):
        assert result.bytes_a_live_run is not None
        assert result.loop_bytes is not None
        assert 100 < result.loop_bytes < result.bytes_a_live_run < 20_000


def test_ratios_are_of_each_round() -> None:
    """A round that was slow as a whole moves the median of ratios by nothing."""
    assert ratio_to_base(ROUNDS, 1) == 3.0
    assert microseconds_over_base(ROUNDS, 2) == pytest.approx(4e6)
    assert microseconds(ROUNDS, 3) == pytest.approx(3e6)


def test_the_limit_is_kept_up_to_itself() -> None:
    """What is equal to the limit meets it, what is above does not."""

    def met(figure: float, limit: Limit | None) -> bool | None:
        return Result(
            case="a", title="a", loop=None, rounds=1, figure=figure, limit=limit
        ).is_met

    assert met(2.0, Limit(2.0, "x"))
    assert met(2.01, Limit(2.0, "x")) is False
    assert met(2.0, None) is None


def test_all_are_measured_in_turn() -> None:
    """Bare loop, baseline and case follow each other, after a round of warming up."""
    seen: list[str] = []

    def party(name: str) -> Callable[[str, int], Sample]:
        def measure(loop: str, runs: int) -> Sample:
            assert (loop, runs) == ("trio", 10)
            seen.append(name)
            return Sample(1.0, 3)

        return measure

    case = InTurn(
        name="a",
        title="a",
        measure=party("case"),
        bare=party("bare"),
        base=party("base"),
        share=0.5,
    )
    setting = Setting(runs=20, rounds=2, loops=("trio",))
    [result] = case.results(setting, quietly)
    assert seen == ["bare", "base", "case"] * 3
    assert result.runs == 10
    assert result.transitions_a_second == 3.0


def test_a_cancellation_that_is_not_one_is_no_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A finaliser that does not run, or a run that is not Cancelled, is an error."""

    class Careless(living.Crowd):
        async def member(self, number: int) -> None:
            try:
                await super().member(number)
            finally:
                self.finalised -= number == 3

    monkeypatch.setattr(living, "Crowd", Careless)
    with pytest.raises(BenchError, match="19 of 20 finalisers"):
        living.cancel("asyncio", 20)


def test_the_clock_is_the_one_asked_for() -> None:
    """The processor's clock stands still while the process sleeps; the wall's not."""
    with clock.clock("cpu"):
        began, wall = clock.now(), time.perf_counter()
        while time.perf_counter() == wall:
            pass
        assert clock.now() < time.perf_counter()
        assert clock.now() - began < 1
        assert abs(clock.now() - time.process_time()) < 1
    assert abs(clock.now() - time.perf_counter()) < 1


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_wake_ups_are_seen(loop: str) -> None:
    """What ticks beside an idle engine is counted."""

    async def ticking(counter: Any) -> int:
        async def tick() -> None:
            for _ in range(10_000):
                await anyio.sleep(0.001)

        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            woken = await alone.wake_ups(0.2, counter)
            group.cancel_scope.cancel()
        return woken

    assert alone.counted(ticking, loop) > 5


def test_the_peak_of_memory_is_this_process_s() -> None:
    """The peak rises with what is allocated, and does not fall."""
    before = alone.peak_memory()
    if before is None:
        pytest.skip("this system does not tell")
    block = bytearray(b"x") * (before + 2**24)
    risen = alone.peak_memory()
    assert risen is not None
    assert risen >= len(block)
    del block
    gc.collect()
    fallen = alone.peak_memory()
    assert fallen is not None
    assert fallen > risen - 2**20  # the kernel counts in batches


@pytest.mark.parametrize("function", ["streaming", "idling"])
def test_functions_of_other_processes_work_in_this_one(function: str) -> None:
    """What a fresh process is asked for is an ordinary function."""
    given = {"streaming": ("asyncio", 5, 50, "cpu"), "idling": ("trio", 0.01)}
    said = alone.FUNCTIONS[function](*given[function])
    assert all(value is None or value >= 0 for value in said.values())


def test_a_process_that_fails_says_why() -> None:
    """The last line of what it complains of is in the error."""
    with pytest.raises(BenchError, match=r"a job failed.*ZeroDivisionError"):
        answer("a job", "-c", "1 / 0")


def test_importing_the_engine_imports_no_benchmark() -> None:
    """Neither the library nor the command line's parser loads the package."""
    loaded = output_of(
        "import engine, engine.cli.bench, sys; print('engine.bench' in sys.modules)"
    )
    assert loaded == ["False"]
