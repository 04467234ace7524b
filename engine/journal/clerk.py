"""Writes up what happened to runs: a page of entries becomes the rows of a batch.

Works in the writer's thread, so that the loop's own is not kept busy with it.
"""

from __future__ import annotations

import json
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, Final

from engine.ids import new_prefix
from engine.journal.entries import MADE, TOLD, WHEN, Begun, Ended, parameters_of
from engine.journal.rows import (
    Batch,
    DefinitionRow,
    Form,
    OutcomeRow,
    OwedRow,
    add_columns,
    add_row,
    weave,
)
from engine.journal.targets import hook_target, target_of
from engine.states import COMPLETED, PENDING, RUNNING, TERMINAL, safe_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.actors.family import Lineage
    from engine.actors.lane import Owed
    from engine.actors.run import RunActor
    from engine.hooks import Hook
    from engine.journal.entries import Page, Parked
    from engine.journal.rows import Rows

STEP: Final = ("run", *TOLD[1:])
"""The columns of a step."""

PENDING_STEP, RUNNING_STEP, COMPLETED_STEP = (
    Form(
        ("run", *WHEN[1:]),
        (("type", kind.value), ("name", kind.value.capitalize()), ("attempt", attempt)),
    )
    for kind, attempt in ((PENDING, 0), (RUNNING, 1), (COMPLETED, 1))
)
"""The steps that nearly every run makes, and mostly no others."""

FEW: Final = 64
"""Fewer siblings than that have no statement of their own, where what they share is
given but once: each statement has to wait for the interpreter's lock."""

ENDS: Final = frozenset(kind.value for kind in TERMINAL)
"""The types of states that end a run."""

PREFIX_LENGTH: Final = len(new_prefix())
REMEMBERED: Final = 4096
"""How many flows, tasks and hooks are known by heart; past it all are looked at anew,
so that a program that keeps making new ones does not fill the memory."""


class Clerk:
    """Makes batches of pages.

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
        self._known = {row[1:]: row.definition for row in definitions}
        self._numbers: dict[Any, tuple[Any, int]] = {}
        self._targets: dict[Hook, str] = {}
        self._adopted: dict[str, int] = {}
        # Definitions that are in no committed batch yet.
        self._fresh: list[DefinitionRow] = []

    def adopt(self, run_id: str, key: int) -> None:
        """Learn the key of another owner's run."""
        self._adopted[run_id] = key

    def key_of(self, run_id: str) -> int:
        """Return a run's key in the journal."""
        if self._adopted and run_id in self._adopted:
            return self._adopted[run_id]
        return self._base + int(run_id[PREFIX_LENGTH:])

    def committed(self) -> None:
        """Note that what was written up is on disk."""
        self._fresh.clear()

    def write_up(self, page: Page) -> Batch:
        """Return the rows that a page makes; the same ones if it is asked again."""
        batch = Batch()
        completed = self._keyed(page.completed, len(WHEN))
        batch.transitions[RUNNING_STEP] = self._keyed(page.begun, len(WHEN))
        batch.transitions[COMPLETED_STEP] = completed
        ended = {run: at for run, _, at, _ in each(completed, len(WHEN))}
        for step in each(self._keyed(page.told, len(TOLD)), len(TOLD)):
            add_row(batch.transitions, STEP, step)
            run, _, kind, _, _, _, _, at, _ = step
            if kind in ENDS:
                ended[run] = at
        self._runs(batch, page.made, ended)
        batch.ended += chain.from_iterable(ended.items())
        batch.names += self._keyed(page.named, 2)
        for run, owed in each(page.owed, 2):
            row = self._owed(run, owed)
            add_row(batch.owed, row._fields, row)
        for entry in page.hooks:
            if isinstance(entry, Begun):
                batch.begun += self._key(entry)
            else:
                outcome = self._outcome(entry)
                add_row(batch.outcomes, outcome._fields, outcome)
        for definition in self._fresh:
            add_row(batch.definitions, definition._fields, definition)
        return batch

    def _keys(self, run_ids: list[str]) -> list[int]:
        """Return the keys of runs of this owner."""
        base, prefix = self._base, PREFIX_LENGTH
        return [base + int(run_id[prefix:]) for run_id in run_ids]

    def _keyed(self, fields: list[Any], width: int) -> list[Any]:
        """Return rows with a run's key in the place of its id, which comes first."""
        keyed = fields.copy()
        keyed[::width] = self._keys(fields[::width])
        return keyed

    def _runs(self, batch: Batch, made: list[Any], ended: dict[int, float]) -> None:
        """Write new runs up; those that end in the same batch, with their end."""
        width = len(MADE)
        runs = self._keys(made[::width])
        sequences, times, clocks = made[1::width], made[2::width], made[3::width]
        batch.transitions[PENDING_STEP] = weave(runs, sequences, times, clocks)
        ends = [ended.pop(run, None) for run in runs]
        have_ended = [at is not None for at in ends]
        origins = (made[5::width], made[6::width], made[7::width], have_ended)
        start = 0
        for _, siblings in groupby(zip(*origins, strict=True)):
            end = start + sum(1 for _ in siblings)
            part = made[start * width : end * width]
            self._siblings(batch.runs, runs[start:end], part, ends[start:end])
            start = end

    def _siblings(
        self, rows: Rows, runs: list[int], made: list[Any], ends: list[float | None]
    ) -> None:
        """Write up runs from one place, of which all have ended or none has."""
        ids, _, created, _, names, _, _, _, noted = (
            made[field :: len(MADE)] for field in range(len(MADE))
        )
        definition, lineage, tags = made[5:8]
        columns = {"run": runs, "run_id": ids, "created_at": created}
        if lineage is None:
            columns["root_run_id"] = ids
        shared = self._origin(definition, lineage, tags)
        if len(runs) < FEW:
            columns |= {name: [value] * len(runs) for name, value in shared.items()}
            shared = {}
        parameters = parameters_of(definition, noted)
        unsure = {"name": names, "parameters": parameters, "ended_at": ends}
        add_columns(rows, columns, unsure, tuple(shared.items()))

    def _origin(
        self, definition: Any, lineage: Lineage | None, tags: frozenset[str]
    ) -> dict[str, Any]:
        """Return what runs from one place have in common."""
        given: dict[str, Any] = {
            "owner": self._owner,
            "definition": self._definition(definition),
        }
        if lineage is not None:
            given["root_run_id"] = lineage.root_id
            given["parent_run_id"] = lineage.parent_id
            if lineage.flow_run_id is not None:
                given["flow_run_id"] = lineage.flow_run_id
        if tags:
            given["tags"] = json.dumps(sorted(tags))
        return given

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

    def _owed(self, run: RunActor, owed: Owed) -> OwedRow:
        return OwedRow(
            self.key_of(run.id),
            owed.transition.sequence,
            owed.position,
            owed.kind,
            owed.key,
            self._target(owed.kind, owed.hook, run.definition),
            owed.hook.timeout,
            owed.hook.retries,
        )

    def _key(self, entry: Begun | Ended) -> tuple[int, int, int]:
        owed = entry.owed
        return self.key_of(entry.run.id), owed.transition.sequence, owed.position

    def _outcome(self, entry: Ended | Parked) -> OutcomeRow:
        if not isinstance(entry, Ended):
            return OutcomeRow(*entry[:3], "unresolvable", 0, 0.0, entry.error, entry.at)
        outcome = entry.outcome
        # What a recovery failed to deliver is tried again by the next one.
        again = entry.is_recovered and outcome.status != "delivered"
        return OutcomeRow(
            *self._key(entry),
            "owed" if again else outcome.status,
            outcome.attempts,
            outcome.seconds,
            None if outcome.error is None else safe_text(outcome.error),
            entry.at,
        )


def each(fields: list[Any], width: int) -> Iterable[tuple[Any, ...]]:
    """Iterate over rows whose fields lie one after another in a list."""
    return zip(*[iter(fields)] * width, strict=True)


def describe(kind: str, hook: Hook, definition: Any = None) -> list[Any]:
    """Return what is written down of a hook that a crash would owe."""
    target = hook_target(definition, kind, hook)
    return [kind, hook.name, target, hook.timeout, hook.retries]
