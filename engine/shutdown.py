"""Closing an engine: stop intake, drain, cancel, hooks, report; always bounded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import attrs

from engine.actors import messages as m
from engine.actors.family import Kin
from engine.logging import log

if TYPE_CHECKING:
    from engine.actors.hook import HookStatistics
    from engine.actors.run import RunActor
    from engine.dispatch.base import Dispatcher, Subscribe
    from engine.host import Engine


STOP_SECONDS = 1.0
"""Seconds that cancelled runs get at least: a grace of 0 means not to drain."""

HOOK_MARGIN = 2.0
"""Seconds that hooks get beyond the longest time one of them may take."""


@attrs.frozen(kw_only=True)
class ShutdownReport:
    """How an engine's shutdown went.

    Attributes:
        drained: Runs that were live when it began and ended by themselves.
        cancelled: Runs that had to be cancelled.
        abandoned: Runs that did not stop even so and were given up as Crashed.
        hooks: What became of every hook the engine ever owed.
        abandoned_threads: Threads whose sync body or hook still hangs.
        seconds: How long the shutdown took.
    """

    drained: int
    cancelled: int
    abandoned: int
    hooks: HookStatistics
    abandoned_threads: int
    seconds: float


class Shutdown:
    """One engine's shutdown."""

    def __init__(self, engine: Engine, here: Dispatcher, grace: float) -> None:
        self._engine = engine
        self._here = here
        self._grace = grace
        self.cancellation: BaseException | None = None

    async def run(self, *, at_once: bool) -> ShutdownReport:
        """Go through the phases.

        A cancellation that arrives meanwhile ends the phase it hits, is kept in
        `cancellation`, and makes the rest go at once.

        Args:
            at_once: Skip the draining and cancel what is live.
        """
        engine, began = self._engine, time.monotonic()
        before = len(all_runs(engine.live))
        if not at_once:
            await self._wait(engine.subscribe_drained, self._grace)
        left = all_runs(engine.live)
        for run in tuple(engine.live):
            run.send(m.CancelRequested("shutdown"))
        if left:
            grace = max(self._grace, STOP_SECONDS)
            await self._wait_shielded(engine.subscribe_drained, grace)
        stuck = give_up_runs(engine)
        await self._wait_shielded(
            engine.hooks.subscribe_idle, engine.hook_timeout + HOOK_MARGIN
        )
        engine.hooks.close()
        return ShutdownReport(
            drained=before - len(left) if before > len(left) else 0,
            cancelled=len(left) - stuck,
            abandoned=stuck,
            hooks=engine.hooks.statistics(),
            abandoned_threads=engine.count_abandoned_threads(),
            seconds=time.monotonic() - began,
        )

    async def _wait(self, subscribe: Subscribe, seconds: float) -> None:
        try:
            await self._here.wait_within(subscribe, seconds)
        except BaseException as error:
            self.cancellation = error

    async def _wait_shielded(self, subscribe: Subscribe, seconds: float) -> None:
        with self._here.shield():
            await self._wait(subscribe, seconds)


def all_runs(runs: dict[Any, Any]) -> list[RunActor]:
    """Return the given runs and all that live below them, parents first."""
    found: list[Any] = []
    for run in tuple(runs):
        if not isinstance(run, Kin):
            continue  # a stream's feed
        found.append(run)
        if run.children:
            found.extend(all_runs(run.children))
    return found


def give_up_runs(engine: Engine) -> int:
    """End what could not be stopped, children before parents; return how many."""
    given_up = 0
    text = "The body did not stop within the engine's shutdown grace."
    for run in reversed(all_runs(engine.live)):
        if run.is_over:
            continue  # it had stopped, and waited only for a child that was given up
        given_up += 1
        log.error("run_abandoned", run_id=run.id, run=run.name, seconds=run.elapsed())
        run.send(m.Lost("abandoned", text, None))
    return given_up
