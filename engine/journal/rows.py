"""What a journal keeps, as rows.

Order comes from sequence numbers. Wall-clock times are for people, and durations are
differences of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import is_
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
Shared = tuple[tuple[str, Any], ...]


class Form(NamedTuple):
    """What rows have in common.

    Attributes:
        columns: The columns in which they differ.
        shared: The other ones, each with the value that all of them have.
    """

    columns: Columns
    shared: Shared = ()


Rows = dict[Form, list[Any]]
"""Rows of one kind, by what they have in common: their fields, one row after another.

What is None is left out, since a database takes longer over one than over ten numbers.
And there are no lists of rows: thousands of small tuples beside a busy loop keep the
garbage collector walking over everything that the loop has alive.
"""


def add_row(
    rows: Rows, columns: Columns, row: Sequence[Any], shared: Shared = ()
) -> None:
    """Add a row, any of whose fields may be None."""
    given = [
        (c, value) for c, value in zip(columns, row, strict=True) if value is not None
    ]
    form = Form(tuple(name for name, _ in given), shared)
    rows.setdefault(form, []).extend(value for _, value in given)


def add_columns(
    rows: Rows, sure: dict[str, Any], unsure: dict[str, Any], shared: Shared = ()
) -> None:
    """Add rows that are given by column.

    Args:
        rows: Where to.
        sure: Columns without None.
        unsure: Columns any of whose fields may be None.
        shared: What all of them have in common.
    """
    size = len(next(iter(sure.values())))
    # By identity: a name may be of a class of the user's, with an == of its own.
    missing = {
        name: sum(map(is_, column, repeat(None))) for name, column in unsure.items()
    }
    given = sure | {name: unsure[name] for name in unsure if missing[name] < size}
    columns = tuple(given)
    if set(missing.values()) <= {0, size}:
        form = Form(columns, shared)
        rows.setdefault(form, []).extend(weave(*given.values()))
    else:
        for row in zip(*given.values(), strict=True):
            add_row(rows, columns, row, shared)


def weave(*columns: list[Any]) -> list[Any]:
    """Return the fields of rows that are given by column, one row after another."""
    woven = [None] * sum(map(len, columns))
    for place, column in enumerate(columns):
        woven[place :: len(columns)] = column
    return woven


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
