"""The recorder: every transition of an engine, and what became of every hook.

It is one more subscriber of the engine, with a buffer that nothing limits and nobody
reads while the runs go on. So it loses nothing and changes nothing: no run waits for
it, as it would for a hook, and no task is woken by it.
"""

from __future__ import annotations

import sys
import threading
from difflib import SequenceMatcher
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from engine.actors.broadcast import Buffer
from engine.definition import Definition
from engine.dispatch.here import loop_waiter
from engine.executors.thread import block
from engine.handles import RunHandle
from engine.runs import Transition
from engine.states import TERMINAL
from engine.testing.selection import described, is_meant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from engine.actors.broadcast import Broadcast, Entry
    from engine.dispatch.base import Wake
    from engine.hooks import HookKind, HookOutcome, HookStatus
    from engine.host import Engine
    from engine.states import StateType
    from engine.testing.selection import Which

__all__ = ["Recorder", "record"]


def record(engine: Engine) -> Recorder:
    """Begin to record an engine's transitions and hook outcomes.

    Use it as ``with record(engine) as recorder``, in sync and async code alike, or keep
    what it returns: it then records until the engine is closed. What was recorded can
    be read at any time, also after that.

    Args:
        engine: An engine, entered or yet to be.

    Returns:
        The recorder, which has begun. It keeps all runs it has seen, with their
        arguments and results, so let go of it before you count what is left of them.
    """
    return Recorder(engine)


class Recorder:
    """What an engine did, from the moment on when this was made; see `record`."""

    def __init__(self, engine: Engine) -> None:
        self._tape = Tape(engine.broadcast)
        engine.broadcast.attach(self._tape)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Record nothing more; what was recorded stays."""
        self._tape.close()

    def transitions(self, which: Which | None = None) -> list[Transition]:
        """Return the transitions so far, in the order in which they happened.

        Args:
            which: Only those of these runs; None is all.
        """
        return [t for t in self._tape.read() if is_meant(which, t.actor)]

    def runs(self, which: Which | None = None) -> list[RunHandle[Any]]:
        """Return handles of the runs so far, in the order in which they were made.

        Args:
            which: Only these runs; None is all.
        """
        actors = dict.fromkeys(t.actor for t in self.transitions(which))
        return [RunHandle(actor) for actor in actors]

    def states(self, which: Which) -> list[str]:
        """Return the names of the states that one run has entered so far, in order.

        Args:
            which: The run. Of a flow or task with several, take one from `runs`.

        Raises:
            LookupError: No run was recorded that is meant, or more than one.
        """
        runs = self.runs(which)
        if len(runs) != 1:
            raise LookupError(
                f"{len(runs)} runs were recorded where {described(which)} was asked"
                f" for: recorder.runs() has the handles of {self._names(runs)}"
            )
        return [t.state.name for t in self.transitions(runs[0])]

    def hooks(
        self,
        which: Which | None = None,
        *,
        kind: HookKind | None = None,
        status: HookStatus | None = None,
    ) -> list[HookOutcome]:
        """Return what became of the hooks that have ended so far.

        They stand in the order of the transitions that owed them, and those of one
        transition in the order in which they were called.

        Args:
            which: Only hooks of these runs; None is all.
            kind: Only hooks of this kind, such as ``"on_failure"``; None is all.
            status: Only those that ended so, such as ``"delivered"``; None is all.
        """
        outcomes = [
            outcome
            for run in self.runs(which)
            for outcome in run.hook_outcomes
            if kind in (None, outcome.kind) and status in (None, outcome.status)
        ]
        return sorted(outcomes, key=lambda outcome: outcome.sequence)

    def assert_states(self, which: Which, expected: Iterable[str]) -> None:
        """Check that runs have entered these states, in this order, and no other.

        Args:
            which: The runs: each of them is checked, and there has to be one.
            expected: Names of states, such as ``["Pending", "Running", "Completed"]``.

        Raises:
            AssertionError: A run went another way; the message shows where.
        """
        __tracebackhide__ = True
        expected = list(expected)
        runs = self.runs(which)
        if not runs:
            seen = self._names(self.runs())
            raise AssertionError(f"{described(which)} was never recorded, only {seen}")
        for run in runs:
            transitions = self.transitions(run)
            if [t.state.name for t in transitions] != expected:
                difference = compare(expected, transitions)
                raise AssertionError(
                    f"run {run.name!r} went another way than expected"
                    f" (- is missing, + is too much):\n{difference}"
                )

    async def wait_for(self, which: Which, state: str | StateType) -> Transition:
        """Wait until a run enters a state; at once when one already has.

        Its hooks may be yet to come; wait for them with the handle's ``join``. There is
        no time limit but what is around it, such as ``anyio.fail_after``.

        Args:
            which: The run, or what it will be a run of.
            state: Name of the state, or its type.

        Returns:
            The first such transition.

        Raises:
            AssertionError: It cannot happen any more: the one run that is meant has
                ended, or the recorder has.
        """
        __tracebackhide__ = True
        wait = Sighting(self._tape, which, state)
        await loop_waiter().wait(wait.subscribe, wait.unsubscribe)
        return wait.result()

    def wait_for_blocking(
        self, which: Which, state: str | StateType, timeout: float = 10.0
    ) -> Transition:
        """Block until a run enters a state, as `wait_for` does; for sync code.

        Args:
            which: The run, or what it will be a run of.
            state: Name of the state, or its type.
            timeout: Seconds to wait at most.

        Raises:
            AssertionError: It cannot happen any more, or did not happen in time.
        """
        __tracebackhide__ = True
        wait = Sighting(self._tape, which, state)
        seen = threading.Event()
        if wait.subscribe(seen.set) and not block(seen, timeout):
            wait.unsubscribe(seen.set)
        return wait.result()

    @staticmethod
    def _names(runs: Iterable[RunHandle[Any]]) -> str:
        return ", ".join(repr(run.name) for run in runs) or "nothing"


class Tape(Buffer):
    """A subscriber's buffer that keeps everything, and tells who waits for it."""

    __slots__ = ("_lock", "_transitions", "sightings")

    def __init__(self, broadcast: Broadcast) -> None:
        super().__init__(broadcast, sys.maxsize, "fail")
        self._lock = broadcast.lock
        self._transitions: list[Transition] = []
        self.sightings: dict[Sighting, Wake] = {}

    def put(self, entry: Entry) -> None:
        """Keep a transition."""
        transition = Transition(*entry)
        self._transitions.append(transition)
        for sighting in tuple(self.sightings):
            if sighting.decides(transition):
                self.sightings.pop(sighting)()

    def read(self) -> Sequence[Transition]:
        """Return everything so far."""
        with self._lock:
            return tuple(self._transitions)

    def close(self) -> None:
        """Keep nothing more; nobody need wait any longer."""
        with self._lock:
            super().close()
            while self.sightings:
                self.sightings.popitem()[1]()

    def await_sighting(self, sighting: Sighting, wake: Wake) -> bool:
        """Have *wake* called when *sighting* is decided; False if it is."""
        with self._lock:
            if any(map(sighting.decides, self._transitions)) or self.closed:
                return False
            self.sightings[sighting] = wake
            return True

    def forget(self, sighting: Sighting) -> None:
        """Wait for it no more."""
        with self._lock:
            self.sightings.pop(sighting, None)


class Sighting:
    """A wait for one of some runs to enter a state."""

    def __init__(self, tape: Tape, which: Which, state: str | StateType) -> None:
        self._tape = tape
        self._which = which
        self._state = state
        self._seen: Transition | None = None
        self.subscribe = partial(tape.await_sighting, self)

    def decides(self, transition: Transition) -> bool:
        """Whether a transition ends the wait: it is the one, or the run's last."""
        if not is_meant(self._which, transition.actor):
            return False
        state = transition.state
        if self._state in (state.name, state.type):
            self._seen = transition
            return True
        # A name or a definition may get further runs; a handle or a run is this one.
        may_come = isinstance(self._which, str | Definition)
        return not may_come and state.type in TERMINAL

    def unsubscribe(self, _: Wake) -> None:
        """Wait no more."""
        self._tape.forget(self)

    def result(self) -> Transition:
        """Return the transition that was waited for.

        Raises:
            AssertionError: It has not happened.
        """
        if self._seen is not None:
            return self._seen
        seen = [t for t in self._tape.read() if is_meant(self._which, t.actor)]
        states = ", ".join(t.state.name for t in seen) or "nothing"
        raise AssertionError(
            f"{described(self._which)} did not enter {self._state!r}, only: {states}"
        )


def compare(expected: Sequence[str], transitions: Sequence[Transition]) -> str:
    """Return a line for each state: as expected, missing (-) or too much (+)."""
    actual = [t.state.name for t in transitions]
    lines: list[str] = []
    matcher = SequenceMatcher(None, expected, actual, autojunk=False)
    for kind, i, i_end, j, j_end in matcher.get_opcodes():
        if kind == "equal":
            lines += [f"    {name}" for name in expected[i:i_end]]
        else:
            lines += [f"  - {name}" for name in expected[i:i_end]]
            lines += [f"  + {t.state}" for t in transitions[j:j_end]]
    return "\n".join(lines)
