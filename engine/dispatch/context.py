"""Awaiting something inside of a given context, without a task of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextvars import Context
from typing import Any


class InContext:
    """An awaitable whose every step runs in *context*.

    A task for each hook would cost as much as a run, and on trio it would lose the
    order of hooks.
    """

    __slots__ = ("_awaitable", "_context")

    def __init__(self, context: Context, awaitable: Awaitable[Any]) -> None:
        self._context = context
        self._awaitable = awaitable

    def __await__(self) -> Generator[Any, Any, Any]:
        run = self._context.run
        steps: Any = run(self._awaitable.__await__)
        step: Callable[..., Any] = steps.__next__
        value: tuple[Any, ...] = ()
        while True:
            try:
                yielded = run(step, *value)
            except StopIteration as stop:
                return stop.value
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
