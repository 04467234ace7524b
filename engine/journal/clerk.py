"""Writes up what happened to runs: a page of entries becomes the rows of a batch.

Works in the writer's thread, so that the loop's own is not kept busy with it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from engine.ids import new_prefix
from engine.journal.entries import STEP, STEP_FIELDS, Begun, Ended, parameters_of
from engine.journal.rows import Batch, DefinitionRow, OutcomeRow, OwedRow, add_row
from engine.journal.targets import hook_target, target_of
from engine.states import safe_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.actors.family import Lineage
    from engine.actors.lane import Owed
    from engine.actors.run import RunActor
    from engine.hooks import Hook
    from engine.journal.entries import Page, Parked
    from engine.journal.rows import Columns

ROW: Final = ("run", *STEP[1:])
TOLD: Final = (*ROW, "message", "cause")
"""The columns of a step without message and cause, and with them."""

RUN: Final = ("run", "run_id", "root_run_id", "created_at")
"""The columns in which a run differs from its siblings."""

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
        if page.steps:
            batch.transitions[ROW] = self._keyed(page.steps, STEP_FIELDS)
        for step in each(self._keyed(page.told, len(TOLD)), len(TOLD)):
            add_row(batch.transitions, TOLD, step)
        ended = dict(each(self._keyed(page.ended, 2), 2))
        self._runs(batch, page.made, ended)
        for end in ended.items():
            batch.ended += end
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

    def _keyed(self, fields: list[Any], width: int) -> list[Any]:
        """Return rows with a run's key in the place of its id, which comes first."""
        base, prefix = self._base, PREFIX_LENGTH
        keyed = fields.copy()
        keyed[::width] = [base + int(run_id[prefix:]) for run_id in fields[::width]]
        return keyed

    def _runs(self, batch: Batch, made: list[Any], ended: dict[int, float]) -> None:
        """Write new runs up; those that end in the same batch, with their end."""
        base, prefix = self._base, PREFIX_LENGTH
        last: Any = None
        columns: Columns = ()
        shared: tuple[Any, ...] = ()
        for run_id, at, name, definition, lineage, tags, noted in each(made, 7):
            origin = (definition, lineage, tags)
            if origin != last:  # nearly always another child of the same parent
                columns, shared = self._origin(*origin)
                last = origin
            run = base + int(run_id[prefix:])
            given = columns
            fields = (run, run_id, lineage.root_id if lineage else run_id, at, *shared)
            parameters = parameters_of(definition, noted)
            if parameters is not None:
                given += ("parameters",)
                fields += (parameters,)
            if run in ended:
                given += ("ended_at",)
                fields += (ended.pop(run),)
            if name is not None:
                given += ("name",)
                fields += (name,)
            batch.runs.setdefault(given, []).extend(fields)

    def _origin(
        self, definition: Any, lineage: Lineage | None, tags: frozenset[str]
    ) -> tuple[Columns, tuple[Any, ...]]:
        """Return the columns of runs from one place, and the values they share."""
        given: dict[str, Any] = {
            "owner": self._owner,
            "definition": self._definition(definition),
        }
        if lineage is not None:
            given["parent_run_id"] = lineage.parent_id
            if lineage.flow_run_id is not None:
                given["flow_run_id"] = lineage.flow_run_id
        if tags:
            given["tags"] = json.dumps(sorted(tags))
        return (*RUN, *given), tuple(given.values())

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
