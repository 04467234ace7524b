"""Trials: a scenario is run again and again, with a fault at each of its checkpoints.

So a test proves that the clean-up holds wherever the fault strikes, not only where its
author thought of.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

import anyio

from engine.host import Engine
from engine.testing.faults import cancel_at, crash_at
from engine.testing.recorder import Recorder, record
from engine.testing.selection import described

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.handles import RunHandle
    from engine.hooks import HookOutcome
    from engine.testing.faults import Fault
    from engine.testing.selection import Which

__all__ = ["Trial", "Trials", "each_cancellation", "each_crash"]


def each_cancellation(
    scenario: Callable[[Engine], Any],
    which: Which | None = None,
    *,
    make_engine: Callable[[], Engine] = Engine,
) -> Trials:
    """Run a scenario once for each checkpoint, and cancel the run that is at it.

    Use it with ``async for`` and an async scenario, or ``for`` and a sync one::

        async def scenario(engine):
            await engine.run(crawl, urls)

        async for trial in each_cancellation(scenario, crawl):
            assert trial.states[-2:] == ["Cancelling", "Cancelled"]
            assert_clean(trial.engine)

    It ends after the trial in which no run came to its checkpoint. A body that goes on
    until it is cancelled has checkpoints without end: break out of the loop.

    Args:
        scenario: Called with an entered engine, a new one for each trial, which is
            closed before the trial is given. What it raises is the trial's `error`.
        which: What to count the checkpoints of (see `engine.testing.faults`); None is
            every run of the scenario.
        make_engine: Makes each trial's engine.

    Returns:
        An iterator over the trials. It raises `AssertionError` when not even the first
        checkpoint was reached, and what the scenario raised without any fault.
    """
    return Trials(scenario, which, cancel_at, make_engine)


def each_crash(
    scenario: Callable[[Engine], Any],
    which: Which | None = None,
    *,
    error: BaseException | type[BaseException] = SystemExit,
    make_engine: Callable[[], Engine] = Engine,
) -> Trials:
    """Run a scenario once for each checkpoint, and raise an error in the body at it.

    Works like `each_cancellation`.

    Args:
        scenario: Called with an entered engine, a new one for each trial.
        which: What to count the checkpoints of; None is every run of the scenario.
        error: What to raise. An ordinary exception shows how a run fails or retries.
        make_engine: Makes each trial's engine.

    Returns:
        An iterator over the trials.
    """
    return Trials(scenario, which, partial(crash_at, error=error), make_engine)


class Trial:
    """One run of a scenario, with one fault; nothing about it was checked.

    Attributes:
        engine: The trial's engine, closed by now.
        recorder: Every transition and hook outcome of it.
        fault: The fault.
        value: What the scenario returned; None if it raised.
        error: What the scenario raised; None if it returned.
    """

    def __init__(self, engine: Engine, fault: Fault) -> None:
        self.engine = engine
        self.recorder: Recorder = record(engine)
        self.fault = fault
        self.value: Any = None
        self.error: BaseException | None = None

    @property
    def checkpoint(self) -> int:
        """The checkpoint that was hit, counted from 0."""
        return self.fault.checkpoint

    @property
    def run(self) -> RunHandle[Any]:
        """The run that was hit."""
        assert self.fault.run is not None
        return self.fault.run

    @property
    def states(self) -> list[str]:
        """Names of the states that this run went through."""
        return self.recorder.states(self.run)

    @property
    def hooks(self) -> list[HookOutcome]:
        """What became of this run's hooks."""
        return self.recorder.hooks(self.run)

    def __repr__(self) -> str:
        hit = self.fault.run
        where = "nothing hit" if hit is None else f"{hit.name!r} hit"
        return f"<Trial {self.checkpoint}: {where}>"


class Trials:
    """The trials of one scenario, one for each of its checkpoints, in order."""

    def __init__(
        self,
        scenario: Callable[[Engine], Any],
        which: Which | None,
        make_fault: Callable[[Engine, Which | None, int], Fault],
        make_engine: Callable[[], Engine],
    ) -> None:
        self._scenario = scenario
        self._which = which
        self._make_fault = make_fault
        self._make_engine = make_engine
        self._next = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Trial:
        trial = self._trial()
        with trial.fault:
            async with trial.engine:
                try:
                    trial.value = await self._scenario(trial.engine)
                except anyio.get_cancelled_exc_class():
                    raise  # it is the test itself that is being cancelled
                except BaseException as error:
                    trial.error = error
        if not self._was_hit(trial):
            raise StopAsyncIteration
        return trial

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Trial:
        trial = self._trial()
        with trial.fault, trial.engine:
            try:
                trial.value = self._scenario(trial.engine)
            except BaseException as error:
                trial.error = error
        if not self._was_hit(trial):
            raise StopIteration
        return trial

    def _trial(self) -> Trial:
        engine = self._make_engine()
        return Trial(engine, self._make_fault(engine, self._which, self._next))

    def _was_hit(self, trial: Trial) -> bool:
        if trial.fault.run is not None:
            self._next += 1
            return True
        if trial.error is not None:
            raise trial.error
        if trial.checkpoint == 0:
            which = described(self._which)
            raise AssertionError(f"{which} never came to a checkpoint in the scenario")
        return False
