"""Writes up what happened to runs: entries from the actors become rows of a batch.

Works in the writer's thread, so that the loop's own is not kept busy with it. What
could change by then (arguments that are no plain values, a name) is noted at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from engine.ids import new_prefix
from engine.journal.base import (
    Batch,
    DefinitionRow,
    OutcomeRow,
    OwedRow,
)
from engine.journal.targets import hook_target, target_of
from engine.states import RUNNING, TERMINAL, StateType, safe_text

if TYPE_CHECKING:
    from engine.actors.lane import Lane, Owed
    from engine.actors.run import RunActor
    from engine.hooks import Hook, HookOutcome
    from engine.states import State

PLAIN: Final = frozenset((int, str, float, bool, type(None)))
"""Types of values that nobody can change, and that JSON has."""

ENCODER: Final = json.JSONEncoder(allow_nan=False)
TYPES: Final = {kind: kind.value for kind in StateType}
"""The types' names, since asking a member for its value takes longer."""

MOST_CHARACTERS: Final = 65_536
"""Parameters that are longer are not recorded."""

PREFIX_LENGTH: Final = len(new_prefix())
REMEMBERED: Final = 4096
"""How many flows, tasks and hooks are known by heart; past it all are looked at anew,
so that a program that keeps making new ones does not fill the memory."""


class Ended(NamedTuple):
    """A hook that has ended."""

    run: RunActor
    owed: Owed
    outcome: HookOutcome
    is_recovered: bool
    at: float


class Begun(NamedTuple):
    """A hook that a recovery is about to call."""

    run: RunActor
    owed: Owed


class Parked(NamedTuple):
    """A hook that a recovery could not find."""

    run: int
    sequence: int
    position: int
    error: str
    at: float


Entry = Ended | Begun | Parked

WIDTH: Final = 7
"""How many fields an entry has. A step of a run has these: the run, the state that was
entered, the transition's number, when it was published by the monotonic clock, the lane
that waits for it to be on disk or None, the hooks it owes, and what `note` returned for
a first step, else `NOT_FIRST`. Any other entry has itself, None, the lane, and Nones.

Entries lie flat in one list, not each in a tuple: see `Batch`."""

NOT_FIRST: Final = object()


class Clerk:
    """Makes batches of entries.

    Args:
        owner: The engine's number.
        base: The number before that of its first run.
        definitions: Those that the journal knows.
    """

    def __init__(
        self, owner: int, base: int, definitions: Iterable[DefinitionRow]
    ) -> None:
        self._owner = owner
        self._base = base
        self._known = {row[1:]: row.number for row in definitions}
        self._numbers: dict[Any, tuple[Any, int]] = {}
        self._targets: dict[Hook, str] = {}
        self._adopted: dict[str, int] = {}
        # Definitions that are in no committed batch yet.
        self._fresh: list[DefinitionRow] = []

    def adopt(self, run_id: str, number: int) -> None:
        """Learn the number of another owner's run."""
        self._adopted[run_id] = number

    def number_of(self, run: RunActor) -> int:
        """Return a run's key in the journal."""
        if self._adopted and run.id in self._adopted:
            return self._adopted[run.id]
        return self._base + int(run.id[PREFIX_LENGTH:])

    def committed(self) -> None:
        """Note that what was written up is on disk."""
        self._fresh.clear()

    def write_up(self, fields: list[Any]) -> Batch:
        """Return the rows that entries make."""
        batch = Batch()
        # Where in the batch each new run's end goes: it may come within the batch.
        ends: dict[int, int] = {}
        each = iter(fields)
        for entry in zip(*[each] * WIDTH, strict=True):
            kind = entry[0].__class__
            if kind is Ended:
                batch.outcomes += self._outcome(entry[0])
            elif kind is Begun:
                batch.begun += self._key(entry[0])
            elif kind is Parked:
                batch.outcomes += parked(entry[0])
            else:
                self._step(batch, ends, *entry)
        for row in self._fresh:
            batch.definitions += row
        return batch

    def _step(
        self,
        batch: Batch,
        ends: dict[int, int],
        run: RunActor,
        state: State[Any],
        sequence: int,
        clock: float,
        _: Lane | None,
        owed: Sequence[Owed],
        noted: Any,
    ) -> None:
        number = self.number_of(run)
        if noted is not NOT_FIRST:
            self._run(number, run, noted, batch.runs)
            ends[number] = len(batch.runs) - 1
        elif state.type is RUNNING and run.definition.options.run_name is not None:
            batch.names += (run.name, number)
        message = state.message
        batch.transitions += (
            number,
            sequence,
            TYPES[state.type],
            state.name,
            message and text_of(message),
            state.cause,
            state.attempt,
            state._time,
            clock,
        )
        if owed:
            for row in self._owed(number, owed, run.definition):
                batch.owed += row
        if state.type in TERMINAL:
            end = ends.get(number)
            if end is None:
                batch.ended += (state._time, number)
            else:
                batch.runs[end] = state._time

    def _run(self, number: int, run: RunActor, noted: Any, rows: list[Any]) -> None:
        lineage = run.lineage
        rows += (
            number,
            run.id,
            self._owner,
            self._definition(run.definition),
            run._name,
            None if lineage is None else lineage.parent_id,
            None if lineage is None else lineage.flow_run_id,
            run.id if lineage is None else lineage.root_id,
            parameters_of(run, noted),
            json.dumps(sorted(run.tags)) if run.tags else None,
            run.created,
            None,
        )

    def _definition(self, definition: Any) -> int:
        hooks = definition.hooks
        crash = hooks.by_kind.get("on_crashed", ())
        # Hooks may be added while runs are going on; the tuple is another one then.
        found = self._numbers.get(hooks)
        if found is not None and found[0] is crash:
            return found[1]
        owed = [describe("on_crashed", hook, definition) for hook in crash]
        fields = (
            definition.kind,
            definition.name,
            definition.options.version,
            target_of(definition),
            json.dumps(owed),
        )
        number = self._known.get(fields)
        if number is None:
            number = max(self._known.values(), default=0) + 1
            self._known[fields] = number
            self._fresh.append(DefinitionRow(number, *fields))
        if len(self._numbers) >= REMEMBERED:
            self._numbers.clear()
        self._numbers[hooks] = (crash, number)
        return number

    def _target(self, kind: str, hook: Hook, definition: Any) -> str:
        target = self._targets.get(hook)
        if target is None:
            if len(self._targets) >= REMEMBERED:
                self._targets.clear()
            target = self._targets[hook] = hook_target(definition, kind, hook)
        return target

    def _owed(
        self, number: int, owed: Iterable[Owed], definition: Any
    ) -> Iterable[OwedRow]:
        for one in owed:
            yield OwedRow(
                number,
                one.transition.sequence,
                one.position,
                one.kind,
                one.key,
                self._target(one.kind, one.hook, definition),
                one.hook.timeout,
                one.hook.retries,
            )

    def _key(self, entry: Begun | Ended) -> tuple[int, int, int]:
        owed = entry.owed
        number = self.number_of(entry.run)
        return number, owed.transition.sequence, owed.position

    def _outcome(self, entry: Ended) -> OutcomeRow:
        outcome = entry.outcome
        # What a recovery failed to deliver is tried again by the next one.
        again = entry.is_recovered and outcome.status != "delivered"
        return OutcomeRow(
            *self._key(entry),
            "owed" if again else outcome.status,
            outcome.attempts,
            outcome.seconds,
            None if outcome.error is None else text_of(safe_text(outcome.error)),
            entry.at,
        )


def parked(entry: Parked) -> OutcomeRow:
    """Return the row of a hook that cannot be found."""
    return OutcomeRow(*entry[:3], "unresolvable", 0, 0.0, entry.error, entry.at)


def describe(kind: str, hook: Hook, definition: Any = None) -> list[Any]:
    """Return what is written down of a hook that a crash would owe."""
    target = hook_target(definition, kind, hook)
    return [kind, hook.name, target, hook.timeout, hook.retries]


def note(run: RunActor) -> Any:
    """Note what a run was called with, as long as it is certain.

    Returns:
        The arguments themselves where nothing can change them, else their JSON.
    """
    if run.kwargs:
        return encode(run.parameters)
    for value in run.args:
        if value.__class__ not in PLAIN:
            return encode(run.parameters)
    return run.args


def parameters_of(run: RunActor, noted: Any) -> str | None:
    """Return a run's parameters as JSON; None if they cannot be written so."""
    if noted.__class__ is not tuple:
        return noted  # type: ignore[no-any-return]
    binder = run.definition.binder
    if len(noted) == len(binder.names) == binder.most:
        return encode(dict(zip(binder.names, noted, strict=True)))
    return encode(binder.parameters(noted, {}))


def encode(parameters: dict[str, Any]) -> str | None:
    """Return parameters as JSON; None if they have none, or far too much."""
    try:
        text = ENCODER.encode(parameters)
    except (TypeError, ValueError, RecursionError):
        return None
    return text if len(text) <= MOST_CHARACTERS else None


def text_of(text: str) -> str:
    """Return a text that can be stored: half a surrogate pair cannot."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")
