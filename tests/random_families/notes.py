"""What is noted while a program is performed, for the rules to look at."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from exit_contract.invariants import hooks_due

from engine import Engine, RunHandle, Transition
from engine.states import State
from engine.testing import record

from .programs import Child, Plan

Steps = list[Transition]


class Call(NamedTuple):
    """A call of a hook, made or due.

    Attributes:
        kind: The list that the hook was registered in.
        number: Which of all hooks of its plan it is.
        how: What the plan has it do.
        state: The state that owes it.
    """

    kind: str
    number: int
    how: str
    state: State[Any]


class Notes:
    """What anybody can see of one performance.

    Attributes:
        engine: The engine of all runs.
        recorder: What it did.
        children: What the runs were made of, by the names of their plans.
        calls: By run, the calls of its hooks.
        begun: By run, how often its body began.
        ends: By run, how its bodies ended: ``returned`` or ``raised``, and what.
        cancelled: The runs that were cancelled through their handles.
        acts: What was done from outside.
        wrong: What was seen to be wrong on the way.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.recorder = record(engine)
        self.children: dict[str, Child] = {}
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self.begun: dict[str, int] = defaultdict(int)
        self.ends: dict[str, list[tuple[str, Any]]] = defaultdict(list)
        self.cancelled: set[str] = set()
        self.acts: set[str] = set()
        self.wrong: list[str] = []

    def handle(self, run_id: str) -> RunHandle[Any]:
        """Return the handle of a run."""
        return next(run for run in self.recorder.runs() if run.id == run_id)

    def child(self, steps: Steps) -> Child:
        """Return what the run of these steps was made of."""
        return self.children[steps[0].run.definition_name]

    def plan(self, steps: Steps) -> Plan:
        """Return what the run of these steps was to do."""
        return self.child(steps).plan

    def due(self, steps: Steps) -> list[Call]:
        """Return the calls of hooks that the steps of a run owe, in order."""
        return [
            Call(kind, number, how, step.state)
            for step in steps
            for owed in hooks_due(step)
            for number, (kind, how) in enumerate(self.plan(steps).hooks)
            if kind == owed
        ]

    def awaits_hooks(self, handle: RunHandle[Any]) -> bool:
        """Whether hooks that the steps of a run so far owe have yet to end."""
        due = self.due(self.recorder.transitions(handle))
        return len(handle.hook_outcomes) < len(due)

    def cancel(self, handle: RunHandle[Any]) -> None:
        """Cancel a run, and note that somebody did."""
        self.cancelled.add(handle.id)
        handle.cancel()

    def compare(self, which: Any, given: Any) -> None:
        """Compare runs with what they gave, or raised, to who waited for them."""
        for handle in self.recorder.runs(which):
            state = handle.state
            if state.is_completed() != (given is state.data and type(given) is object):
                self.wrong.append(f"{handle} gave {given!r}, but is {state!r}")
            if state.cause == "host" and given is state.data:
                self.wrong.append(f"{handle} gave {given!r} in place of a cancellation")
            if self.awaits_hooks(handle):
                self.wrong.append(f"{handle} was waited for, but not its hooks")
