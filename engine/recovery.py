"""Delivering what processes that are gone have owed.

A run of theirs comes back as an actor that is over: it has no body and no place among
the live ones, only what its hooks may ask about it. Its result and its exception died
with its process, so a hook is given states without data.
"""

from __future__ import annotations

import json
import threading
from itertools import groupby
from typing import TYPE_CHECKING, Any

from engine.actors.family import Lineage
from engine.actors.lane import Owed
from engine.actors.run import RunActor
from engine.definition import Definition
from engine.hooks import Hook
from engine.journal.targets import UnresolvableTarget, find, find_hook
from engine.logging import log
from engine.runs import Transition
from engine.states import State, StateType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.host import Engine
    from engine.journal.recorder import Recorder
    from engine.journal.rows import DefinitionRow, OwedHook, RunRow, TransitionRow


class LostFlow(Definition[..., Any]):
    """Stands for a flow that cannot be found any more."""

    kind = "flow"


class LostTask(Definition[..., Any]):
    """Stands for a task that cannot be found any more."""

    kind = "task"


class LostRun(RunActor):
    """A run of a process that is gone, in its last known state."""

    __slots__ = ("_parameters",)

    is_lost = True

    def __init__(
        self, engine: Engine, row: RunRow, definition: Definition[..., Any]
    ) -> None:
        super().__init__(
            engine,
            definition,
            args=(),
            kwargs={},
            parent=None,
            lineage=None if row.parent_run_id is None else lineage_of(row),
            site=engine.loops.base_site,
            tags=frozenset(json.loads(row.tags) if row.tags else ()),
        )
        self.id = row.run_id
        self.created = row.created_at
        self._name = row.name
        self._parameters = json.loads(row.parameters) if row.parameters else {}

    @property
    def is_over(self) -> bool:
        """Always, whatever state the hooks still owed are about."""
        return True

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments, if they could be written down; else none."""
        return dict(self._parameters)


def deliver(engine: Engine, recorder: Recorder, owed: Sequence[OwedHook]) -> None:
    """Find each owed hook and hand it over, run by run; in a thread of its own.

    Importing the modules they are in takes its time.
    """
    try:
        runs = [list(run) for _, run in groupby(owed, key=lambda one: one.run.run)]
        # By what they owe first, so that children come before their parents.
        runs.sort(key=lambda run: (run[0].run.owner, run[0].hook.sequence))
        suspects = [run for run in runs if any(one.recoveries for one in run)]
        innocent = [run for run in runs if not any(one.recoveries for one in run)]
        under_way = [deliver_run(engine, recorder, run) for run in innocent]
        # One of these may have killed the process that tried it. Alone it can be told
        # from those that only happened to be called at the same time.
        for run in suspects:
            for before in under_way:
                wait_until_settled(before)
            under_way = [deliver_run(engine, recorder, run)]
    except BaseException as error:
        # What was not handed over stays owed in the journal.
        engine.supervisor.note_death("recovery", error)
    finally:
        engine.hooks.expect_no_more()


def wait_until_settled(run: LostRun) -> None:
    """Block until a run's hooks are done, or the engine closes."""
    event = threading.Event()
    if run.subscribe_settled(event.set):
        event.wait()


def deliver_run(
    engine: Engine, recorder: Recorder, owed: Sequence[OwedHook]
) -> LostRun:
    """Hand over what one run is owed; park what cannot be found."""
    row = owed[0].run
    run = LostRun(engine, row, find_definition(owed[0].definition))
    recorder.clerk.adopt(run.id, row.run)
    found: list[Owed] = []
    for one in owed:
        try:
            found.append(resolve(run, one))
        except UnresolvableTarget as error:
            log.error("hook_unresolvable", hook=one.hook.target, error=str(error))
            recorder.park(*one.hook[:3], str(error))
    if found:
        run.state = found[-1].transition.state
    if not found or not engine.hooks.deliver_late(run, found):
        run.settle()
    return run


def resolve(run: LostRun, one: OwedHook) -> Owed:
    """Return an owed hook as the hook actor takes it.

    Raises:
        UnresolvableTarget: It cannot be found.
    """
    name = one.hook.hook.partition(":")[2]
    hook = Hook(
        find_hook(one.hook.target, name),
        timeout=one.hook.timeout,
        retries=one.hook.retries,
    )
    hook.name = name
    state = state_of(run, one.transition)
    transition = Transition(run, None, state, one.transition.sequence)
    return Owed(transition, one.hook.kind, hook, one.hook.position)


def state_of(run: LostRun, row: TransitionRow) -> State[Any]:
    """Return the state that a transition entered."""
    return State(
        StateType(row.type),
        row.name,
        row.message,
        None,
        row.cause,
        row.attempt,
        run.id,
        row.entered_at,
    )


def find_definition(row: DefinitionRow) -> Definition[..., Any]:
    """Return a run's flow or task, or something of its name if it is gone."""
    try:
        definition = find(row.target)
    except UnresolvableTarget:
        definition = None
    if isinstance(definition, Definition) and definition.kind == row.kind:
        return definition
    stand_in = LostFlow if row.kind == "flow" else LostTask
    return stand_in(unknown_body, name=row.name, version=row.version)


def unknown_body(*args: Any, **kwargs: Any) -> None:
    """Stand for the body of a flow or task that cannot be found."""


def lineage_of(row: RunRow) -> Lineage:
    """Return who stood above a run, without the actors that once did."""
    lineage = Lineage.__new__(Lineage)
    assert row.parent_run_id is not None
    lineage.parent_id = row.parent_run_id
    lineage.root_id = row.root_run_id
    lineage.flow_run_id = row.flow_run_id
    lineage._flow = None
    return lineage
