"""What holds for every run, however it ends: each rule yields what breaks it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from engine import RunHandle, StateType, Transition
from engine.exceptions import CrashedRun

from .cases import Entry
from .observation import definition_name, kinds_called

if TYPE_CHECKING:
    from .stage import Stage

Complaints = Iterator[str]

HOOKS_OF_STATES: Final[dict[StateType, tuple[str, ...]]] = {
    StateType.PENDING: (),
    StateType.RUNNING: ("on_running",),
    StateType.SCHEDULED: ("on_retry",),
    StateType.COMPLETED: ("on_completion",),
    StateType.FAILED: ("on_failure",),
    StateType.CRASHED: ("on_crashed",),
    StateType.CANCELLING: ("on_cancellation",),
}


def complaints(stage: Stage) -> Complaints:
    """Yield what is wrong with the runs of a case, whatever its row says."""
    runs: dict[str, list[Transition]] = defaultdict(list)
    for step in stage.watch.transitions:
        runs[step.run.id].append(step)
    for steps in runs.values():
        name = definition_name(steps[0])
        for rule in RULES_OF_A_RUN:
            yield from (f"{name}: {text}" for text in rule(stage, steps))
    yield from family(runs)
    yield from accounts(stage, runs)
    yield from caller(stage)
    yield from bodies(stage)
    yield from abandonment(stage)


def path_of_states(stage: Stage, steps: list[Transition]) -> Complaints:
    """A run begins Pending, goes on from where it was, and ends once, at last."""
    if steps[0].previous is not None or not steps[0].state.is_pending():
        yield f"begins with {steps[0]}"
    for before, after in pairwise(steps):
        if after.previous is not before.state:
            yield f"{after} does not go on from {before}"
        if before.state.is_final():
            yield f"{after} follows a terminal state"
    if not steps[-1].state.is_final():
        yield f"never ended, is {steps[-1].state}"


def order(stage: Stage, steps: list[Transition]) -> Complaints:
    """Sequence numbers and timestamps go up."""
    for before, after in pairwise(steps):
        if before.sequence >= after.sequence or before.timestamp >= after.timestamp:
            yield f"{after} is not later than {before}"


def attempts(stage: Stage, steps: list[Transition]) -> Complaints:
    """A state's attempt counts how often the run has been Running so far."""
    attempt = 0
    for step in steps:
        attempt += step.state.is_running()
        if step.state.attempt != attempt:
            yield f"{step.state} is of attempt {step.state.attempt}, not {attempt}"


def hooks(stage: Stage, steps: list[Transition]) -> Complaints:
    """Each state's hooks run once, in the order of states, then of registration."""
    colours = stage.colours.get(definition_name(steps[0]), ())
    calls = [call for call in stage.hook_calls if call.run_id == steps[0].run.id]
    called = kinds_called(calls, colours) if colours else []
    due = [kind for step in steps for kind in hooks_due(step)] if colours else []
    if called != due:
        yield f"hooks {called}, not {due}"
    handle: RunHandle[object] = RunHandle(steps[0].actor)
    outcomes = [(outcome.kind, outcome.state) for outcome in handle.hook_outcomes]
    if outcomes != [(call.kind, call.state) for call in calls]:
        yield f"hook outcomes {outcomes} of calls {calls}"


def hooks_due(step: Transition) -> tuple[str, ...]:
    """Return the kinds of hook that a step owes."""
    if step.state.name == "Retrying":
        waited = step.previous is not None and step.previous.is_scheduled()
        return ("on_running",) if waited else ("on_retry", "on_running")
    if step.state.is_cancelled():
        was_asked = step.previous is not None and step.previous.is_cancelling()
        return () if was_asked else ("on_cancellation",)
    return HOOKS_OF_STATES[step.state.type]


def result(stage: Stage, steps: list[Transition]) -> Complaints:
    """A terminal state gives its value or raises its error; a crashed one is caught."""
    state = steps[-1].state
    try:
        state.result()
    except CrashedRun as error:
        if state.is_crashed() and error.__cause__ is not state.data:
            yield f"{state} raises {error!r} with cause {error.__cause__!r}"
    except BaseException as error:
        if state.is_crashed() or state.is_completed():
            yield f"{state} raises {error!r}"
    else:
        if not state.is_completed():
            yield f"{state} has a result"


RULES_OF_A_RUN: Final = (path_of_states, order, attempts, hooks, result)


def family(runs: dict[str, list[Transition]]) -> Complaints:
    """A child begins after its parent and ends before it."""
    for steps in runs.values():
        above = runs.get(steps[0].run.parent_run_id or "")
        if above is not None:
            if not above[0].sequence < steps[0].sequence:
                yield f"{steps[0]} began before its parent's {above[0]}"
            if not steps[-1].sequence < above[-1].sequence:
                yield f"{steps[-1]} did not end before its parent's {above[-1]}"


def accounts(stage: Stage, runs: dict[str, list[Transition]]) -> Complaints:
    """What was owed is what came of it, and nothing is left when all has ended."""
    statistics = stage.engine.statistics()
    owed = statistics.hooks
    if owed.delivered + owed.failed + owed.timed_out + owed.undelivered != owed.due:
        yield f"the accounts of hooks do not add up: {owed}"
    if not owed.due == owed.delivered == len(stage.hook_calls):
        yield f"{len(stage.hook_calls)} calls of hooks, but {owed}"
    if statistics.live_runs or statistics.ended_runs != len(runs):
        yield f"{len(runs)} runs, but {statistics}"
    if not stage.watch.has_absorbed:
        yield "a run that had ended took another message"


def caller(stage: Stage) -> Complaints:
    """The caller is let go after the hooks, and is left as it was."""
    late = [c for c in stage.calls("subject") if c not in stage.calls_when_seen]
    handles_only = stage.case.entry in (Entry.START, Entry.SUBMIT)
    gave_up_waiting = handles_only and stage.was_signalled
    if stage.path.waits and late and not gave_up_waiting:
        yield f"the caller went on before {late}"
    if stage.cancellations_left:
        yield f"the caller's task keeps {stage.cancellations_left} cancellations"


def bodies(stage: Stage) -> Complaints:
    """A body is executed once each time that its run is Running, if it gets there."""
    steps = [t for t in stage.watch.transitions if definition_name(t) == "subject"]
    begun = sum(step.state.is_running() for step in steps)
    if stage.path.at == "on_running":
        begun = 0
    if stage.attempts != begun:
        yield f"the body was executed {stage.attempts} times, not {begun}"


def abandonment(stage: Stage) -> Complaints:
    """A sync body that stays is given up on time, and its thread is counted."""
    if stage.path.at is None:
        return
    if not stage.was_published_on_time:
        yield "its end was not published on time"
    if stage.path.at != "body" or stage.case.entry is Entry.SUBMIT:
        return  # the flow around it, or the engine itself, may be about to let go
    counted, blocked = stage.abandoned_threads
    if counted != blocked:
        yield f"{counted} abandoned threads, not {blocked}"
