"""What is true of all runs of a program; each rule yields what breaks it."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Final

from exit_contract.invariants import (
    Complaints,
    attempts,
    family,
    order,
    path_of_states,
    result,
)

from engine.states import TERMINAL, TRANSITIONS

from .notes import Notes, Steps

FATES: Final = {"fails": "failed", "dies": "failed", "hangs": "timed_out"}
"""What becomes of hooks that do not do well."""

Runs = dict[str, Steps]


def complaints(seen: Notes) -> Complaints:
    """Yield what is wrong with any of the runs, or with all of them together."""
    yield from seen.wrong
    runs: Runs = defaultdict(list)
    for step in seen.recorder.transitions():
        runs[step.run.id].append(step)
    for steps in runs.values():
        for text in complaints_of_a_run(seen, steps, runs):
            states = ", ".join(step.state.name for step in steps)
            yield f"{steps[0].run.definition_name} ({states}): {text}"
    yield from family(runs)
    yield from accounts(seen, runs)


def complaints_of_a_run(seen: Notes, steps: Steps, runs: Runs) -> Complaints:
    """Yield what is wrong with a run."""
    for rule in RULES_OF_A_RUN:
        yield from rule(seen, steps)
    yield from reason(seen, steps, runs.get(steps[0].run.parent_run_id or "", []))


def table(seen: Notes, steps: Steps) -> Complaints:
    """Every move is one of the table, and the last state is the handle's."""
    for before, after in itertools.pairwise(steps):
        moves = TRANSITIONS[before.state.type].values()
        is_own = None in moves and after.state.type in TERMINAL
        if after.state.type not in moves and not is_own:
            yield f"{after} is no move of the table"
    if seen.handle(steps[0].run.id).state is not steps[-1].state:
        yield f"the handle does not say {steps[-1].state}"


def hooks(seen: Notes, steps: Steps) -> Complaints:
    """The hooks that are owed are called once, in order, and end as they do."""
    run, due = steps[0].run, seen.due(steps)
    if seen.calls[run.id] != due:
        yield f"called were {seen.calls[run.id]}, but due {due}"
    outcomes = [(o.kind, o.state, o.status) for o in seen.handle(run.id).hook_outcomes]
    fates = [(c.kind, c.state.name, FATES.get(c.how, "delivered")) for c in due]
    if outcomes != fates:
        yield f"the outcomes of hooks are {outcomes}, but due was {fates}"


def body(seen: Notes, steps: Steps) -> Complaints:
    """The body was executed once in each attempt, and its end is in the state."""
    run, state = steps[-1].run, steps[-1].state
    begun, ends = seen.begun[run.id], seen.ends[run.id]
    # Of a sync body that was given up the end may be yet to come.
    is_given_up = seen.plan(steps).is_sync and state.is_cancelled()
    if begun > state.attempt or (begun != len(ends) and not is_given_up):
        yield f"the body began {begun} times in {state.attempt} attempts: {ends}"
    if state.is_completed() and [("returned", state.data)] != ends[-1:]:
        yield f"{state!r}, but its body ended so: {ends}"


def verdict(seen: Notes, steps: Steps) -> Complaints:
    """A run ends as its body does, unless it is asked to stop or out of time."""
    plan, run, state = seen.plan(steps), steps[-1].run, steps[-1].state
    if state.name == "TimedOut" and plan.timeout is None:
        yield "there was no time limit"
    if any(step.state.is_cancelling() for step in steps):
        if not (state.is_cancelled() or state.is_crashed()):
            yield "it was asked to stop, and ended as if not"
    elif plan.timeout is None and seen.begun[run.id] == state.attempt > 0:
        how, value = seen.ends[run.id][-1]
        error = "FAILED" if isinstance(value, Exception) else "CRASHED"
        expected = "COMPLETED" if how == "returned" else error
        if (state.type.name, state.data) != (expected, value):
            yield f"{state!r}, but its body {how} {value!r}"
        if state.is_failed() and state.attempt <= plan.retries:
            yield "there were retries left"


RULES_OF_A_RUN: Final = (
    path_of_states,
    order,
    attempts,
    result,
    table,
    hooks,
    body,
    verdict,
)


def reason(seen: Notes, steps: Steps, parent: Steps) -> Complaints:
    """A run is asked to stop for a reason that there was, and for no other."""
    stops = [step for step in steps if step.state.is_cancelling()]
    if not stops:
        return
    run, how = steps[0].run, seen.child(steps).how
    earlier = [step for step in parent if step.sequence < stops[0].sequence]
    reasons = {
        "user": run.id in seen.cancelled,
        "host": how in ("call", "run") and (parent or "host" in seen.acts),
        "parent": how == "stream"
        or may_end(seen, parent)
        or any(step.state.is_cancelling() for step in earlier),
        "sibling": how == "stream",
        "shutdown": not parent
        and (how == "start" or not seen.acts.isdisjoint({"leave", "raise"})),
    }
    cause = stops[0].state.cause
    last = {step.state.cause for step in steps if step.state.is_cancelled()}
    if not reasons.get(cause or "") or last - {cause}:
        yield f"stopped by {cause}, {last}, for no reason"


def may_end(seen: Notes, parent: Steps) -> bool:
    """Whether a parent's body was out of time, or over, and had its children end."""
    if not parent:
        return False
    return bool(seen.plan(parent).timeout or seen.ends[parent[0].run.id])


def accounts(seen: Notes, runs: Runs) -> Complaints:
    """Nothing is left, and what the engine counted is what there was."""
    counted, report = seen.engine.statistics(), seen.engine.shutdown_report
    if counted.live_runs or counted.waiting_runs or counted.hooks.waiting:
        yield f"something is left: {counted}"
    numbers = [step.sequence for step in seen.recorder.transitions()]
    if numbers != list(range(1, counted.transitions + 1)):
        yield f"the transitions are numbered {numbers}"
    outcomes = seen.recorder.hooks()
    if counted.ended_runs != len(runs) or counted.hooks.due != len(outcomes):
        yield f"{len(runs)} runs and {len(outcomes)} hooks, but {counted}"
    stopped = any(s.state.cause == "shutdown" for steps in runs.values() for s in steps)
    assert report is not None
    if report.hooks != counted.hooks or report.abandoned or stopped > report.cancelled:
        yield f"{report}, but {counted}"
