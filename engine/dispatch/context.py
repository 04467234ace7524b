"""Entering what has to be entered by hand: contexts for awaits, and scopes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType


class InContext:
    """An awaitable whose every step runs in *context*.

    A task for each hook would cost as much as a run, and on trio it would lose the
    order of hooks.
    """

    __slots__ = ("_awaitable", "_context", "_on_suspend")

    def __init__(
        self,
        context: Context,
        awaitable: Awaitable[Any],
        on_suspend: Callable[[], None] | None = None,
    ) -> None:
        self._context = context
        self._awaitable = awaitable
        # Called when it first has to wait, which most hooks never do.
        self._on_suspend = on_suspend

    def __await__(self) -> Generator[Any, Any, Any]:
        run = self._context.run
        steps: Any = run(self._awaitable.__await__)
        step: Callable[..., Any] = steps.__next__
        value: tuple[Any, ...] = ()
        while True:
            try:
                yielded = run(step, *value)
            except StopIteration as stop:
                del self, run, steps, step  # see engine.tracebacks
                return stop.value
            finally:
                value = ()  # the traceback of an error in it refers to this frame
            if self._on_suspend is not None:
                self._on_suspend()
                self._on_suspend = None
            try:
                sent = yield yielded
            except GeneratorExit:
                run(steps.close)
                raise
            except BaseException as error:
                step, value = steps.throw, (error,)
            else:
                step, value = (
                    (steps.__next__, ()) if sent is None else (steps.send, (sent,))
                )
                del sent  # trio sends errors this way


def exc_details(
    error: BaseException | None,
) -> tuple[type[BaseException] | None, BaseException | None, TracebackType | None]:
    """Return what ``__exit__`` takes for *error*."""
    if error is None:
        return None, None, None
    return type(error), error, error.__traceback__
