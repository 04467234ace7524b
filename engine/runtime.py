"""What a run can know about itself: ``engine.runtime.flow_run`` and ``.task_run``.

Attributes are read from the current context, so they are right in bodies, hooks and
worker threads. Outside of any run they are None, or empty. For tests each can be given
by an environment variable, such as ``ENGINE__RUNTIME__FLOW_RUN__NAME``; lists with
commas, dictionaries as JSON. ``api_url`` and ``ui_url`` are below the setting
``api.url``, and None without it.
"""

from __future__ import annotations

import json
import os
from copy import copy
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import attrs

from engine.context import CURRENT, IN_HOOK
from engine.exceptions import MissingContextError
from engine.runs import view
from engine.states import State, StateType

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.actors.run import RunActor
    from engine.runs import Run

__all__ = ["RunContext", "delivery", "flow_run", "get_run_context", "task_run"]


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


def link(run: Run, page: str = "") -> str | None:
    """Return the address of a run below the server's; None without one."""
    # At the first use: a program that never asks for it has no settings to read.
    from engine.settings import get_current_settings

    url = get_current_settings().api.url
    return None if url is None else f"{url.rstrip('/')}/{run.kind}-runs/{page}{run.id}"


COMMON: Final[dict[str, Any]] = {
    "id": None,
    "name": None,
    "parameters": {},
    "tags": [],
    "attempt": 0,
    "run_count": 0,
    "parent_run_id": None,
    "state": None,
    "api_url": None,
    "ui_url": None,
}
FLOW_RUN: Final[dict[str, Any]] = {
    **COMMON,
    "flow_name": None,
    "flow_version": None,
    "scheduled_start_time": None,
    "parent_flow_run_id": None,
    "root_flow_run_id": None,
    "parent_deployment_id": None,
    "job_variables": {},
}
TASK_RUN: Final[dict[str, Any]] = {**COMMON, "task_name": None, "flow_run_id": None}
"""The attributes, and what they are outside of any run."""

READERS: Final[dict[str, Callable[[Run], Any]]] = {
    "scheduled_start_time": lambda run: run.expected_start_time,
    "api_url": link,
    "ui_url": lambda run: link(run, f"{run.kind}-run/"),
    "parent_deployment_id": lambda run: None,
    "job_variables": lambda run: {},
}
"""How attributes are read that the view of a run does not have."""


class RunAttributes:
    """The attributes of the current run of one kind."""

    def __init__(
        self,
        kind: str,
        current: Callable[[], RunActor | None],
        attributes: dict[str, Any],
    ) -> None:
        self._kind = kind
        self._current = current
        self._attributes = attributes

    def __getattr__(self, name: str) -> Any:
        if name not in self._attributes:
            known = ", ".join(self._attributes)
            text = f"engine.runtime.{self._kind} has no {name!r}; it has {known}"
            raise AttributeError(text)
        default = self._attributes[name]
        variable = f"ENGINE__RUNTIME__{self._kind}__{name}".upper()
        given = os.environ.get(variable)
        if given is not None:
            try:
                return cast(name, given, default)
            except ValueError as error:
                text = f"{variable} cannot be {given!r}: {error}"
            raise ValueError(text)
        run = self._current()
        if run is not None:
            return READERS.get(name, attrgetter(name))(view(run))
        if name == "scheduled_start_time":
            return datetime.now(UTC)
        return copy(default)  # a new list or dictionary for everybody

    def __dir__(self) -> list[str]:
        return sorted(self._attributes)


def cast(name: str, text: str, default: Any) -> Any:
    """Return an environment variable's text as the type of an attribute.

    Raises:
        ValueError: It does not fit.
    """
    if name == "state":
        return State(StateType(text.upper()))
    if name == "scheduled_start_time":
        given = datetime.fromisoformat(text)
        return given if given.tzinfo else given.replace(tzinfo=UTC)
    if isinstance(default, dict):
        return json_object(text)
    if isinstance(default, int):
        return int(text)
    if isinstance(default, list):
        return [item for item in text.split(",") if item]
    return text


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object in a text.

    Raises:
        ValueError: There is none.
    """
    try:
        found: object = json.loads(text)
    except RecursionError:
        found = None
    if isinstance(found, dict):
        return found
    raise ValueError("it is no JSON object")


@attrs.frozen(kw_only=True)
class RunContext:
    """What some code is a part of.

    Attributes:
        flow: The flow of the nearest flow run around it; None outside of flows.
        flow_run: That run, as it was when the context was asked for.
        task: The task of the run that it is the code of; None if that is a flow's.
        task_run: That run.
        parameters: The arguments of the run that it is the code of.
    """

    flow: Any
    flow_run: Any
    task: Any
    task_run: Any
    parameters: dict[str, Any]


class Delivery:
    """What tells one call of a hook from all others, for hooks with a journal.

    Such a hook is called at least once, and again if its process was killed before the
    journal knew that the call had ended. A hook that keeps `key` together with what it
    does, and does nothing for a key it has seen, does it exactly once.
    """

    @property
    def key(self) -> tuple[str, int, str] | None:
        """The same for every call of one owed hook; None outside of hooks."""
        owed, run = IN_HOOK.get(), CURRENT.get()
        if run is None or isinstance(owed, bool) or owed.position < 0:
            return None
        return run.id, owed.transition.sequence, owed.key

    @property
    def run_id(self) -> str | None:
        """The run whose transition owes the hook."""
        return self.key[0] if self.key else None

    @property
    def sequence(self) -> int | None:
        """The transition's number."""
        return self.key[1] if self.key else None

    @property
    def hook(self) -> str | None:
        """Which of the transition's hooks it is, such as ``on_failure[0]:page``."""
        return self.key[2] if self.key else None


delivery = Delivery()


def get_run_context() -> RunContext:
    """Return what the calling code is a part of.

    Raises:
        MissingContextError: It is outside of any run and hook.
    """
    run = CURRENT.get()
    if run is None:
        raise MissingContextError("get_run_context()")
    flow, task = current_flow(), current_task()
    return RunContext(
        flow=None if flow is None else flow.definition,
        flow_run=None if flow is None else view(flow),
        task=None if task is None else task.definition,
        task_run=None if task is None else view(task),
        parameters=run.parameters,
    )


flow_run = RunAttributes("flow_run", current_flow, FLOW_RUN)
task_run = RunAttributes("task_run", current_task, TASK_RUN)
