"""Cases that need processes of their own."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

from engine.bench.fresh import apart, seconds_to_import
from engine.bench.measure import Progress, Setting
from engine.bench.results import Limit, Result

DEPENDENCIES: Final = "anyio, attrs, structlog"


@attrs.frozen(kw_only=True)
class Apart:
    """A case whose every round is in a process of its own.

    Attributes:
        name: What it is called on the command line.
        title: What it is called in the table.
        sample: Measures one round; told the loop and the setting.
        summarise: Makes the results of the rounds.
        needs_loop: Whether it is measured on each loop.
        most_rounds: How many rounds are enough, whatever is asked for.
    """

    name: str
    title: str
    sample: Callable[[str, Setting], dict[str, Any]]
    summarise: Callable[[Apart, str | None, Setting, list[Any]], Iterable[Result]]
    needs_loop: bool = True
    most_rounds: int = 100

    def results(self, setting: Setting, progress: Progress) -> Iterable[Result]:
        """Measure on each loop; see `InTurn.results`."""
        rounds = min(setting.rounds, self.most_rounds)
        for loop in setting.loops if self.needs_loop else (None,):
            samples: list[dict[str, Any]] = []
            try:
                for number in range(rounds):
                    of = f"round {number + 1} of {rounds}"
                    progress(f"{self.title}, {loop or 'no loop'}: {of}")
                    samples.append(self.sample(loop or "", setting))
            except BaseException:
                if samples:
                    yield from self.summarise(self, loop, setting, samples)
                raise
            yield from self.summarise(self, loop, setting, samples)


def sample_stream(loop: str, setting: Setting) -> dict[str, Any]:
    """Stream a tenth of the runs and ten times the runs."""
    given: dict[str, Any] = apart(
        "streaming", loop, *few_and_many(setting), setting.clock
    )
    return given


def few_and_many(setting: Setting) -> tuple[int, int]:
    """Return how many items the short and the long stream have."""
    return max(1, setting.runs // 10), setting.runs * 10


def summarise_stream(
    case: Apart, loop: str | None, setting: Setting, samples: list[Any]
) -> Iterable[Result]:
    """Compare the cost of an item, and give the growth of memory."""
    few, many = few_and_many(setting)
    seconds = statistics.median(s["many"] for s in samples)
    yield Result(
        case=case.name,
        title=case.title,
        loop=loop,
        runs=many,
        rounds=len(samples),
        us_a_run=seconds * 1e6,
        base=f"one of {few:,}",
        base_us=statistics.median(s["few"] for s in samples) * 1e6,
        transitions_a_second=samples[0]["transitions"] / (seconds * many),
        figure=statistics.median(s["many"] / s["few"] for s in samples),
        limit=Limit(1.2, "x", f"one of {few:,}"),
    )
    if samples[0]["growth"] is not None:
        yield Result(
            case=case.name,
            title="… its growth of peak memory",
            loop=loop,
            runs=many,
            rounds=len(samples),
            figure=max(s["growth"] for s in samples) / 1e6,
            limit=Limit(80, "MB"),
        )


def sample_imports(_: str, __: Setting) -> dict[str, Any]:
    """Import the engine, and what it depends on."""
    seconds_to_import("engine")  # compiles what was not, and has the files cached
    return {
        "engine": seconds_to_import("engine"),
        "base": seconds_to_import(DEPENDENCIES),
    }


def summarise_imports(
    case: Apart, loop: str | None, _: Setting, samples: list[Any]
) -> Iterable[Result]:
    """Compare the times."""
    yield Result(
        case=case.name,
        title=case.title,
        loop=loop,
        runs=1,
        rounds=len(samples),
        us_a_run=statistics.median(s["engine"] for s in samples) * 1e6,
        base=DEPENDENCIES,
        base_us=statistics.median(s["base"] for s in samples) * 1e6,
        figure=statistics.median(s["engine"] / s["base"] for s in samples),
        limit=Limit(2.0, "x", DEPENDENCIES),
    )


def sample_idling(loop: str, setting: Setting) -> dict[str, Any]:
    """Watch an idle engine."""
    given: dict[str, Any] = apart("idling", loop, setting.idle_seconds)
    return given


def summarise_idling(
    case: Apart, loop: str | None, setting: Setting, samples: list[Any]
) -> Iterable[Result]:
    """Count the wake-ups a second that the bare loop does not have."""
    more = statistics.median(max(0, s["engine"] - s["bare"]) for s in samples)
    yield Result(
        case=case.name,
        title=case.title,
        loop=loop,
        rounds=len(samples),
        figure=more / setting.idle_seconds,
        limit=Limit(0, "wake-ups", "the bare loop's"),
    )


LONG_STREAM: Final = Apart(
    name="stream-long",
    title="a long stream(limit=1000)",
    sample=sample_stream,
    summarise=summarise_stream,
    most_rounds=2,  # a million items on each loop
)
IMPORT: Final = Apart(
    name="import",
    title="import engine",
    sample=sample_imports,
    summarise=summarise_imports,
    needs_loop=False,
)
IDLE: Final = Apart(
    name="idle",
    title="an idle engine",
    sample=sample_idling,
    summarise=summarise_idling,
)
