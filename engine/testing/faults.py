"""Faults: a run is cancelled or crashes at its k-th checkpoint.

A *checkpoint* of an async body is each time that its coroutine suspends, be it in what
it awaits itself or in a flow or task that it calls in place; tasks that it starts have
their own coroutines and are not counted. A checkpoint of a sync body is each call that
it makes into this library. They are counted from 0, through all attempts of a run, and
through all runs that are meant, in the order in which they happen.

The flow or task is not touched in advance: when a run of it becomes Pending its
function is wrapped, until the block ends. Without a fault, nothing costs anything.
"""

from __future__ import annotations

import functools
import inspect
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from engine.actors.broadcast import Buffer
from engine.context import CURRENT
from engine.handles import RunHandle
from engine.testing.selection import is_meant
from engine.testing.steps import Steps, watched_calls

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from engine.actors.broadcast import Broadcast, Entry
    from engine.actors.run import RunActor
    from engine.definition import Definition
    from engine.host import Engine
    from engine.testing.selection import Which
    from engine.testing.steps import Interference

__all__ = ["Fault", "call_at", "cancel_at", "crash_at"]


def cancel_at(engine: Engine, which: Which | None, checkpoint: int) -> Fault:
    """Cancel a run at a checkpoint, as `RunHandle.cancel` does.

    The body is interrupted by what it awaits at that very checkpoint. A sync body
    cannot be; it is given up, and what it asks of the engine from then on is refused.

    Args:
        engine: The engine of the run.
        which: What to count the checkpoints of; None is every run.
        checkpoint: Which one, counted from 0.

    Returns:
        The fault, for a ``with`` block around all that the run does.

    Raises:
        ValueError: *checkpoint* is negative.
    """
    reason = f"cancelled at checkpoint {checkpoint}"
    return call_at(engine, which, checkpoint, lambda run: run.cancel(reason=reason))


def crash_at(
    engine: Engine,
    which: Which | None,
    checkpoint: int,
    *,
    error: BaseException | type[BaseException] = SystemExit,
) -> Fault:
    """Raise an error in a body at a checkpoint.

    It comes out of whatever the body awaits there, which ends as by a cancellation, but
    with this error; or out of the call that a sync body makes. A `SystemExit` or
    `KeyboardInterrupt` crashes the run, an ordinary exception fails it or makes it
    retry.

    On asyncio some code is made for no other error than a cancellation where it waits:
    a task group that is struck at its end leaves its tasks behind.

    Args:
        engine: The engine of the run.
        which: What to count the checkpoints of; None is every run.
        checkpoint: Which one, counted from 0.
        error: What to raise.

    Returns:
        The fault, for a ``with`` block around all that the run does.

    Raises:
        ValueError: *checkpoint* is negative.
    """

    def crash(_: RunHandle[Any]) -> BaseException:
        return error() if isinstance(error, type) else error

    return Fault(engine, which, checkpoint, crash)


def call_at(
    engine: Engine,
    which: Which | None,
    checkpoint: int,
    fn: Callable[[RunHandle[Any]], object],
) -> Fault:
    """Do anything at a checkpoint: close a socket, cancel a scope, stop a sibling.

    Args:
        engine: The engine of the run.
        which: What to count the checkpoints of; None is every run.
        checkpoint: Which one, counted from 0.
        fn: Called once, with the run's handle, in the run's own thread, while its body
            is suspended; it must not block. What it raises comes out of the ``with``
            block.

    Returns:
        The fault, for a ``with`` block around all that the run does.

    Raises:
        ValueError: *checkpoint* is negative.
    """
    return Fault(engine, which, checkpoint, lambda run: partial(fn, run))


class Fault:
    """Something that happens at one checkpoint, inside of its ``with`` block.

    Attributes:
        checkpoint: Which checkpoint it is for, counted from 0.
        passed: How many checkpoints were counted.
        run: The run that was hit; None as long as the checkpoint was not reached.
    """

    def __init__(
        self,
        engine: Engine,
        which: Which | None,
        checkpoint: int,
        strike: Callable[[RunHandle[Any]], Interference],
    ) -> None:
        if checkpoint < 0:
            raise ValueError(f"checkpoint must be >= 0, got {checkpoint}")
        self.checkpoint = checkpoint
        self.passed = 0
        self.run: RunHandle[Any] | None = None
        self._engine = engine
        self._which = which
        self._strike = strike
        self._failure: Exception | None = None
        self._is_active = False
        self._lookout = Lookout(engine.broadcast, self._prepare)
        self._wrapped: dict[Definition[..., Any], tuple[Any, Any]] = {}
        # Sync bodies count in their own threads.
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._is_active = True
        self._engine.broadcast.attach(self._lookout)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_active = False
        self._lookout.close()
        for definition, (original, wrapper) in self._wrapped.items():
            if definition.fn is wrapper:
                definition.fn = original
        self._wrapped.clear()
        if self._failure is not None and error is None:
            raise self._failure

    def _prepare(self, actor: RunActor) -> None:
        """Wrap the function of a run that has just become Pending."""
        definition = actor.definition
        if is_meant(self._which, actor) and definition not in self._wrapped:
            wrapper = self._wrap(definition)
            self._wrapped[definition] = (definition.fn, wrapper)
            definition.fn = wrapper

    def _wrap(self, definition: Definition[..., Any]) -> Callable[..., Any]:
        fn = definition.fn

        @functools.wraps(fn)
        async def step_by_step(*args: Any, **kwargs: Any) -> Any:
            return await Steps(fn(*args, **kwargs), partial(self._pass, CURRENT.get()))

        @functools.wraps(fn)
        def call_by_call(*args: Any, **kwargs: Any) -> Any:
            with watched_calls(partial(self._pass, CURRENT.get())):
                value = fn(*args, **kwargs)
                # The engine would make the list, but out of our sight.
                return list(value) if inspect.isgenerator(value) else value

        return step_by_step if definition.is_async else call_by_call

    def _pass(self, actor: RunActor | None) -> Interference:
        """Count a checkpoint of a run; say what is to happen at it."""
        if actor is None or not self._concerns(actor):
            return None
        with self._lock:
            is_here = self.passed == self.checkpoint
            self.passed += 1
        if not is_here:
            return None
        self.run = RunHandle(actor)
        interference = self._strike(self.run)
        if callable(interference):
            return partial(self._call, interference)
        return interference

    def _call(self, fn: Callable[[], object]) -> None:
        # Raised here it would strike the loop, or the body.
        try:
            fn()
        except Exception as error:
            self._failure = error

    def _concerns(self, actor: RunActor) -> bool:
        # The wrapped function is everybody's: of other engines, and of other runs, too.
        is_ours = self._is_active and actor.engine is self._engine
        return is_ours and is_meant(self._which, actor)


class Lookout(Buffer):
    """A subscriber's buffer that keeps nothing: it looks out for new runs."""

    __slots__ = ("_on_new_run",)

    def __init__(
        self, broadcast: Broadcast, on_new_run: Callable[[RunActor], None]
    ) -> None:
        super().__init__(broadcast, 1, "drop_oldest")
        self.keep = None
        self._on_new_run = on_new_run

    def put(self, entry: Entry) -> None:
        """Look at a transition."""
        run, previous, _, _ = entry
        if previous is None:
            self._on_new_run(run)
