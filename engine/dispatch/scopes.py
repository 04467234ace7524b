"""A cancel scope for each of the calls that a task makes, without one for each.

On trio a body or a hook needs a scope of its own, where it alone can be cancelled, and
to make, enter and leave one costs as much as a third of a run. But one that nobody has
cancelled is as good as new: a task that makes one call after the other enters it once.
"""

from __future__ import annotations

import math
from typing import Any

import trio

from engine.dispatch.context import exc_details


class Scopes:
    """The scopes of one task's calls."""

    __slots__ = ("_entered", "_is_free", "_status", "_task")

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self._task = task
        self._entered: trio.CancelScope | None = None
        self._is_free = False
        self._status: Any = None

    def enter(self) -> trio.CancelScope:
        """Return the scope for a call, entered."""
        if self._is_free and self._entered is not None:
            self._is_free = False
            return self._entered
        scope = enter()
        if self._entered is None:  # else a call within a call
            self._entered, self._status = scope, innermost(self._task)
        return scope

    def leave(
        self, scope: trio.CancelScope, error: BaseException | None
    ) -> BaseException | None:
        """End a call; return what is left of its *error*."""
        if scope is self._entered:
            if error is None and self._is_as_good_as_new(scope):
                self._is_free = True
                return None
            self._entered = None
        return leave(scope, error)

    def close(self) -> None:
        """Leave what is kept; the task makes no more calls."""
        scope, self._entered = self._entered, None
        if scope is not None:
            scope.__exit__(None, None, None)

    def _is_as_good_as_new(self, scope: trio.CancelScope) -> bool:
        if scope.cancel_called or scope.deadline != math.inf:
            return False
        # Trio finds fault with a call that leaves a scope of its own open (a generator
        # that was given up in the middle of one) when the one around it is left.
        return self._status is not None and innermost(self._task) is self._status


def enter() -> trio.CancelScope:
    """Return a scope that the current task has entered."""
    scope = trio.CancelScope()
    scope.__enter__()
    return scope


def leave(scope: trio.CancelScope, error: BaseException | None) -> BaseException | None:
    """Leave a scope; return what is left of what was raised in it."""
    try:
        swallowed = scope.__exit__(*exc_details(error))
    except BaseException as rest:
        # What remains of a group after our own cancellation was taken out of it.
        return rest
    return None if swallowed else error


def innermost(task: trio.lowlevel.Task) -> Any:
    """Return what stands for the scope that a task is in; None if it cannot be told.

    Trio has no public way to ask, and without it every call has a scope of its own.
    """
    return getattr(task, "_cancel_status", None)
