"""What a journal keeps, as rows.

Order comes from sequence numbers. Wall-clock times are for people, and durations are
differences of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import attrs

HookFate = Literal[
    "owed",
    "delivered",
    "failed",
    "timed_out",
    "undelivered",
    "unresolvable",
    "quarantined",
]
"""What became of a hook that a transition owes.

``owed`` ones are delivered by the next recovery. ``unresolvable`` ones, whose function
cannot be found, and ``quarantined`` ones, which failed recovery after recovery, wait
for somebody to redeliver them.
"""


class DefinitionRow(NamedTuple):
    """A flow or task.

    Attributes:
        definition: Its key in the journal.
        kind: ``"flow"`` or ``"task"``.
        name: Its name.
        version: A flow's version, or None.
        target: Where to find it again, see `engine.journal.targets`.
        crash_hooks: A JSON list of the hooks that its runs are owed when their process
            dies: for each its kind, name, target, timeout and retries.
    """

    definition: int
    kind: str
    name: str
    version: str | None
    target: str
    crash_hooks: str


class RunRow(NamedTuple):
    """A run, as it was when it was created.

    Attributes:
        run: Its key in the journal.
        run_id: Its identity elsewhere.
        owner: Which engine it belongs to.
        definition: The key of its flow or task.
        name: What it is called; None takes a name made of the definition's and its id.
        parent_run_id: The run that started it; None at the top.
        flow_run_id: The nearest flow run above it; None outside of flows.
        root_run_id: The run at the top of its tree.
        parameters: Its arguments as JSON; None if they cannot be written so.
        tags: Its tags as a JSON list; None if it has none.
        created_at: When it was asked for, seconds since 1970.
        ended_at: When it entered its terminal state; None while it is live.
    """

    run: int
    run_id: str
    owner: int
    definition: int
    name: str | None
    parent_run_id: str | None
    flow_run_id: str | None
    root_run_id: str
    parameters: str | None
    tags: str | None
    created_at: float
    ended_at: float | None


class TransitionRow(NamedTuple):
    """One step of a run.

    Attributes:
        run: The run's key.
        sequence: The transition's number in its engine.
        type: The type of the state that was entered.
        name: Its name.
        message: Its message, or None.
        cause: Its cause, or None.
        attempt: The attempt it belongs to.
        entered_at: When, seconds since 1970.
        clock: When, by the monotonic clock of the machine; None where unknown.
    """

    run: int
    sequence: int
    type: str
    name: str
    message: str | None
    cause: str | None
    attempt: int
    entered_at: float
    clock: float | None


class OwedRow(NamedTuple):
    """A hook that a transition owes.

    Attributes:
        run: The run's key.
        sequence: The transition's number.
        position: Which of the transition's hooks it is, counted from 0.
        kind: The list it was registered in.
        hook: The last part of its delivery key.
        target: Where to find it again.
        timeout: Seconds it may take; None takes the engine's default.
        retries: How often a failed call is repeated.
    """

    run: int
    sequence: int
    position: int
    kind: str
    hook: str
    target: str
    timeout: float | None
    retries: int


class OutcomeRow(NamedTuple):
    """What became of one owed hook; the first three fields are its key."""

    run: int
    sequence: int
    position: int
    fate: HookFate
    attempts: int
    seconds: float
    error: str | None
    ended_at: float


class OwedHook(NamedTuple):
    """A hook to deliver in the place of a process that is gone, and its run.

    Attributes:
        run: The run.
        definition: Its flow or task.
        transition: The step that owes the hook.
        hook: The hook.
        recoveries: How many recoveries have begun to call it in vain.
    """

    run: RunRow
    definition: DefinitionRow
    transition: TransitionRow
    hook: OwedRow
    recoveries: int


Columns = tuple[str, ...]
Rows = dict[Columns, list[Any]]
"""Rows of one kind, by the columns that they have: their fields, one row after another.

What is None is left out, since a database takes longer over one than over ten numbers.
And there are no lists of rows: thousands of small tuples beside a busy loop keep the
garbage collector walking over everything that the loop has alive.
"""


def add_row(rows: Rows, columns: Columns, row: Sequence[Any]) -> None:
    """Add a row, any of whose fields may be None."""
    given = [
        (c, value) for c, value in zip(columns, row, strict=True) if value is not None
    ]
    rows.setdefault(tuple(name for name, _ in given), []).extend(
        value for _, value in given
    )


@attrs.define(eq=False)
class Batch:
    """What one transaction writes.

    Attributes:
        definitions: Flows and tasks seen for the first time, as `DefinitionRow`.
        runs: Runs that were created, as `RunRow`.
        transitions: Steps, as `TransitionRow`.
        owed: Hooks that the steps owe, as `OwedRow`.
        outcomes: What became of hooks, as `OutcomeRow`.
        names: A run's key and its new name, and so on.
        ended: A run's key and when it ended, and so on.
        begun: Keys of hooks that a recovery is about to call: run, sequence, position.
    """

    definitions: Rows = attrs.Factory(dict)
    runs: Rows = attrs.Factory(dict)
    transitions: Rows = attrs.Factory(dict)
    owed: Rows = attrs.Factory(dict)
    outcomes: Rows = attrs.Factory(dict)
    names: list[Any] = attrs.Factory(list)
    ended: list[Any] = attrs.Factory(list)
    begun: list[Any] = attrs.Factory(list)
