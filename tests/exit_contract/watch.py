"""Watches an engine: every transition, and that terminal states absorb."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import anyio

from engine import Engine, RunHandle, Transition

from .observation import definition_name
from .tools import PATIENCE, Flag, drive

UNREAD = 10_000
"""Size of the subscriptions, which are mostly read at the end."""


class Watch:
    """What is noted of an engine from outside.

    Attributes:
        engine: The engine; None until there is one.
        is_there: Raised when there is.
        transitions: What has been read so far.
        has_absorbed: Whether all runs that had ended have stayed as they were.
    """

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.is_there = Flag()
        self.transitions: list[Transition] = []
        self.has_absorbed = True

    def begin(self, engine: Engine) -> Engine:
        """Watch an engine from before it is entered."""
        self.engine = engine
        self._tape = engine.subscribe(buffer=UNREAD, overflow="fail")
        self._cues = engine.subscribe(buffer=UNREAD, overflow="fail")
        self.is_there.set()
        return engine

    @contextmanager
    def any_for_one_call(self) -> Iterator[None]:
        """Watch the engine that a call outside of any opens for itself."""
        make = Engine.for_one_call

        def for_one_call() -> Engine:
            return self.begin(make())

        with mock.patch.object(Engine, "for_one_call", for_one_call):
            yield

    def await_state(self, name: str) -> None:
        """Block until the subject has entered the state of this name."""
        anyio.run(self._await_state, name)

    async def _await_state(self, name: str) -> None:
        with anyio.fail_after(PATIENCE):
            async for step in self._cues:
                if definition_name(step) == "subject" and step.state.name == name:
                    return

    def read(self) -> None:
        """Read what was published, and send once more to every run that has ended."""
        for _ in range(self._tape.statistics().buffered):
            self.transitions.append(drive(self._tape.__anext__()))
        for step in self.transitions:
            if step.state.is_final():
                handle: RunHandle[Any] = RunHandle(step.actor)
                handle.cancel(reason="too late")
                self.has_absorbed &= handle.state is step.state

    def steps(self, name: str) -> list[Transition]:
        """Return the transitions of the first run of a flow or task."""
        steps = [t for t in self.transitions if definition_name(t) == name]
        return [t for t in steps if t.run.id == steps[0].run.id]

    def find(self, name: str) -> RunHandle[Any] | None:
        """Return the handle of a live run of the flow or task with this name."""
        live = self.engine.handles()
        return next((h for h in live if definition_name(h) == name), None)
