"""What a run's code can find out about where it is, carried by context variables.

They are copied into every task, thread and hook of a run, so `CURRENT` is right
wherever the run's code goes.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context, ContextVar, Token, copy_context
from threading import get_ident
from typing import TYPE_CHECKING, Any

from structlog.contextvars import STRUCTLOG_KEY_PREFIX

from engine.checks import Checker

if TYPE_CHECKING:
    from engine.actors.run import RunActor

CURRENT: ContextVar[RunActor | None] = ContextVar("engine_run", default=None)
"""The run whose body or hook is being executed."""

IN_HOOK: ContextVar[Any] = ContextVar("engine_in_hook", default=False)
"""Whether that is a hook; where a transition owes it, what is owed.

What a hook starts cannot be its run's child: the run may be over, and its children end
before it does.
"""

SCOPE: ContextVar[Any] = ContextVar("engine_scope", default=None)
"""The engine whose ``async with`` block this is inside of."""

TAGS: ContextVar[frozenset[str]] = ContextVar("engine_tags", default=frozenset())

# structlog's own bind_contextvars costs as much as a run's other bookkeeping together;
# its merge_contextvars finds variables by this prefix, and Ellipsis means unbound.
RUN_ID: ContextVar[Any] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}run_id", default=...)
FLOW: ContextVar[Any] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}flow", default=...)
TASK: ContextVar[Any] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}task", default=...)

Binding = tuple[Token[Any], ...]


def run_of_this_thread() -> RunActor | None:
    """Return the current run if this very thread drives its sync body and its hooks.

    The context alone does not tell: a loop's callbacks have the context of whoever left
    them there, such as a run in a worker thread.
    """
    run = CURRENT.get()
    return run if run is not None and run.driver == get_ident() else None


def bind(run: RunActor) -> Binding:
    """Make *run* the current one; return what `unbind` takes."""
    definition = run.definition
    binding: Binding
    if definition.kind == "task":
        binding = CURRENT.set(run), RUN_ID.set(run.id), TASK.set(definition.name)
    else:
        # A flow inside of a task is not that task.
        names = FLOW.set(definition.name), TASK.set(...)
        binding = CURRENT.set(run), RUN_ID.set(run.id), *names
    if IN_HOOK.get():
        # What a hook starts has children like any other run.
        binding = (*binding, IN_HOOK.set(False))
    return binding


def unbind(binding: Binding) -> None:
    """Make current again what was before."""
    for token in binding:
        token.var.reset(token)


def bound_context(run: RunActor) -> Context:
    """Return a copy of the current context in which *run* is the current one."""
    context = copy_context()
    context.run(bind, run)
    return context


def tags(*names: str) -> AbstractContextManager[frozenset[str]]:
    """Add tags to every run that is started inside of the block.

    Nested blocks add up, and so do the tags of the flows and tasks themselves.

    Returns:
        A context manager that gives all tags that are in force.

    Raises:
        TypeError: A tag is not a string.
    """
    return tagged(Checker("function", "tags").tags(names))


@contextmanager
def tagged(names: frozenset[str]) -> Generator[frozenset[str]]:
    """Add checked tags to every run that is started inside of the block."""
    together = TAGS.get() | names
    token = TAGS.set(together)
    try:
        yield together
    finally:
        TAGS.reset(token)
