"""What is done to a run from outside of it, at the moment that its row says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.hooks import KINDS

from .stage import Stage
from .tools import PATIENCE, Flag


class Conductor:
    """Waits for the moment and acts; in a thread of its own.

    Args:
        stage: The case.
        call_soon: Calls a function on the caller's loop; None without one.
    """

    def __init__(
        self, stage: Stage, call_soon: Callable[[Callable[[], Any]], Any] | None
    ) -> None:
        self._stage, self._path = stage, stage.path
        # A body that holds the loop leaves acting to other threads.
        self._call_soon = None if stage.case.blocks_caller else call_soon

    def conduct(self) -> None:
        """Do what there is to do."""
        stage = self._stage
        try:
            stage.watch.is_there.block()
            self._await_moment()
            if stage.handle is not None:
                self._act()
                self._see_the_end(stage.handle)
        finally:
            stage.opened.set()
            stage.released.set()
            stage.unblocked.set()

    def _await_moment(self) -> None:
        stage, moment = self._stage, self._path.at
        if moment in ("body", *KINDS):
            stage.entered.block()
        else:
            stage.watch.await_state(moment)
            stage.handle = stage.handle or stage.watch.find("subject")

    def _act(self) -> None:
        act, stage = self._path.then, self._stage
        if act is None:
            return
        if self._call_soon is None:
            act(stage)
        else:
            done = Flag()
            self._call_soon(lambda: (act(stage), done.set()))
            done.block()
        if self._path.at == "on_running":
            # The hook holds up only what it has to, or the body could begin.
            stage.watch.await_state("Cancelling")

    def _see_the_end(self, handle: Any) -> None:
        """See that the run ends although its sync body does not."""
        stage = self._stage
        stage.opened.set()
        stage.was_published_on_time = handle.wait(PATIENCE).is_final()
        counted = stage.engine.statistics().abandoned_threads
        stage.abandoned_threads = counted, stage.blocked_threads
