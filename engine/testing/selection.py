"""Which runs a test means: by handle, by run, by flow or task, or by name."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeAlias

from engine.definition import Definition

if TYPE_CHECKING:
    from engine.actors.run import RunActor
    from engine.handles import RunHandle
    from engine.runs import FlowRun, TaskRun

Which: TypeAlias = "RunHandle[Any] | FlowRun | TaskRun | Definition[..., Any] | str"
"""A handle or a run means that run; a flow or task all runs of its function, whatever
their options; a string all runs of the flow or task with this name, or the run with
this name or id."""


def is_meant(which: Which | None, actor: RunActor) -> bool:
    """Whether *which* means the run of *actor*; None means every run."""
    if which is None:
        return True
    if isinstance(which, str):
        return which in (actor.definition.name, actor.id, actor.name)
    if isinstance(which, Definition):
        definition = actor.definition
        return function_of(definition) is function_of(which) and (
            which.bound_to is None or which.bound_to is definition.bound_to
        )
    return which.id == actor.id


def function_of(definition: Any) -> Any:
    """Return what the user decorated, which copies and bound methods share."""
    return inspect.unwrap(definition)


def described(which: Which | None) -> str:
    """Return how to speak of the runs that *which* means."""
    if which is None:
        return "any run"
    if isinstance(which, str):
        return f"a run called {which!r}"
    if isinstance(which, Definition):
        return f"a run of {which.kind} {which.name!r}"
    return f"run {which.name!r}"
