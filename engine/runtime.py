"""What a run can know about itself: ``engine.runtime.flow_run`` and ``.task_run``.

Attributes are read from the current context, so they are right in bodies, hooks and
worker threads. Outside of any run they are None, or empty. For tests each can be given
by an environment variable, such as ``ENGINE__RUNTIME__FLOW_RUN__NAME``.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from engine.context import CURRENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.actors.run import RunActor

__all__ = ["flow_run", "task_run"]


def current_flow() -> RunActor | None:
    """Return the nearest flow run around the caller, or None."""
    run = CURRENT.get()
    if run is None or run.definition.kind == "flow":
        return run
    return None if run.lineage is None else run.lineage.flow


def current_task() -> RunActor | None:
    """Return the task run around the caller, or None; a flow in a task hides it."""
    run = CURRENT.get()
    return run if run is not None and run.definition.kind == "task" else None


COMMON: Final[dict[str, tuple[Callable[[RunActor], Any], Any]]] = {
    "id": (lambda run: run.id, None),
    "name": (lambda run: run.name, None),
    "parameters": (lambda run: run.parameters, {}),
    "tags": (lambda run: sorted(run.tags), []),
    "attempt": (lambda run: run.attempt, 0),
    "run_count": (lambda run: run.attempt, 0),
    "parent_run_id": (lambda run: run.lineage and run.lineage.parent_id, None),
    "state": (lambda run: run.state, None),
}
FLOW_RUN: Final[dict[str, tuple[Callable[[RunActor], Any], Any]]] = {
    **COMMON,
    "flow_name": (lambda run: run.definition.name, None),
    "flow_version": (lambda run: run.definition.options.version, None),
    "scheduled_start_time": (
        lambda run: datetime.fromtimestamp(run.created, UTC),
        None,
    ),
    "parent_flow_run_id": (lambda run: run.lineage and run.lineage.flow_run_id, None),
    "root_flow_run_id": (
        lambda run: run.lineage.root_id if run.lineage else run.id,
        None,
    ),
}
TASK_RUN: Final[dict[str, tuple[Callable[[RunActor], Any], Any]]] = {
    **COMMON,
    "task_name": (lambda run: run.definition.name, None),
    "flow_run_id": (lambda run: run.lineage and run.lineage.flow_run_id, None),
}


class RunAttributes:
    """The attributes of the current run of one kind."""

    def __init__(
        self,
        kind: str,
        current: Callable[[], RunActor | None],
        attributes: dict[str, tuple[Callable[[RunActor], Any], Any]],
    ) -> None:
        self._kind = kind
        self._current = current
        self._attributes = attributes

    def __getattr__(self, name: str) -> Any:
        if name not in self._attributes:
            known = ", ".join(self._attributes)
            text = f"engine.runtime.{self._kind} has no {name!r}; it has {known}"
            raise AttributeError(text)
        read, default = self._attributes[name]
        given = os.environ.get(f"ENGINE__RUNTIME__{self._kind}__{name}".upper())
        if given is not None:
            return cast(given, default)
        run = self._current()
        if run is not None:
            return read(run)
        if name == "scheduled_start_time":
            return datetime.now(UTC)
        return type(default)() if isinstance(default, list | dict) else default

    def __dir__(self) -> list[str]:
        return sorted(self._attributes)


def cast(text: str, default: Any) -> Any:
    """Return an environment variable's text as the type of an attribute."""
    if isinstance(default, int):
        return int(text)
    if isinstance(default, list):
        return [item for item in text.split(",") if item]
    return text


flow_run = RunAttributes("flow_run", current_flow, FLOW_RUN)
task_run = RunAttributes("task_run", current_task, TASK_RUN)
