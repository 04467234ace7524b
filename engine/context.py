"""What a run's code can find out about where it is, carried by context variables.

They are copied into every task, thread and hook of a run, so `CURRENT` is right
wherever the run's code goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, Token, copy_context
from typing import TYPE_CHECKING, Any

from structlog.contextvars import STRUCTLOG_KEY_PREFIX

if TYPE_CHECKING:
    from engine.actors.run import RunActor

CURRENT: ContextVar[RunActor | None] = ContextVar("engine_run", default=None)
"""The run whose body or hook is being executed."""

IN_HOOK: ContextVar[bool] = ContextVar("engine_in_hook", default=False)
"""Whether that is a hook. What a hook starts cannot be its run's child: the run may be
over, and its children end before it does."""

SCOPE: ContextVar[Any] = ContextVar("engine_scope", default=None)
"""The engine whose ``async with`` block this is inside of."""

TAGS: ContextVar[frozenset[str]] = ContextVar("engine_tags", default=frozenset())

# structlog's own bind_contextvars costs as much as a run's other bookkeeping together;
# its merge_contextvars finds variables by this prefix, and Ellipsis means unbound.
RUN_ID: ContextVar[Any] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}run_id", default=...)
FLOW: ContextVar[Any] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}flow", default=...)
TASK: ContextVar[Any] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}task", default=...)

Binding = tuple[tuple[ContextVar[Any], Token[Any]], ...]


def bind(run: RunActor) -> Binding:
    """Make *run* the current one; return what `unbind` takes."""
    name = run.definition.name
    current, run_id = CURRENT.set(run), RUN_ID.set(run.id)
    if run.definition.kind == "task":
        return ((CURRENT, current), (RUN_ID, run_id), (TASK, TASK.set(name)))
    flow = FLOW.set(name)
    # A flow inside of a task is not that task.
    return ((CURRENT, current), (RUN_ID, run_id), (FLOW, flow), (TASK, TASK.set(...)))


def unbind(binding: Binding) -> None:
    """Make current again what was before."""
    for variable, token in binding:
        variable.reset(token)


def bound_context(run: RunActor) -> Context:
    """Return a copy of the current context in which *run* is the current one."""
    context = copy_context()
    context.run(bind, run)
    return context


@contextmanager
def tags(*names: str) -> Iterator[frozenset[str]]:
    """Add tags to every run that is started inside of the block.

    Nested blocks add up, and so do the tags of the flows and tasks themselves.

    Yields:
        All tags that are in force.
    """
    together = TAGS.get() | frozenset(names)
    token = TAGS.set(together)
    try:
        yield together
    finally:
        TAGS.reset(token)
