"""Executing a body step by step, so that something can happen between two steps.

The step of an async body ends where its coroutine suspends. A sync body has no such
points; for it each call into this library ends one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import trio

from engine.dispatch.here import running_backend

if TYPE_CHECKING:
    from types import FrameType

Interference: TypeAlias = BaseException | Callable[[], object] | None
"""What happens at a checkpoint: an error is raised in the body, a function is called
while the body is suspended, None is nothing."""

AtCheckpoint: TypeAlias = Callable[[], Interference]

LOGGING: Final = "engine.logging"
TESTING: Final = "engine.testing"


class Steps:
    """An awaitable that asks what to do each time the awaited one suspends."""

    __slots__ = ("_at_checkpoint", "_body")

    def __init__(self, body: Awaitable[Any], at_checkpoint: AtCheckpoint) -> None:
        self._body = body
        self._at_checkpoint = at_checkpoint

    def __await__(self) -> Generator[Any, Any, Any]:
        steps: Any = self._body.__await__()
        resume, value = steps.send, None
        crash: Crash | None = None
        while True:
            try:
                suspension = resume(value)
            except StopIteration as stop:
                value = stop.value
                break
            crash = self._interfere() or crash
            if crash is not None and crash.ends(self._body, suspension):
                resume, value, crash = steps.throw, crash.error, None
                continue
            try:
                value = yield suspension
                resume = steps.send
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:
                resume, value = steps.throw, error
        if crash is not None and crash.is_due:
            raise crash.error
        return value

    def _interfere(self) -> Crash | None:
        interference = self._at_checkpoint()
        if isinstance(interference, BaseException):
            return Crash(interference)
        if interference is not None:
            call_once_suspended(interference)
        return None


class Crash:
    """An error that is to end a suspension in place of what is waited for.

    Where a cancellation could not, it waits for the next suspension, or for the end of
    the body.

    Attributes:
        is_due: Whether it has yet to be raised.
    """

    __slots__ = ("error", "is_due")

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.is_due = True

    def ends(self, body: Any, suspension: Any) -> bool:
        """Whether a suspension was given up, so that the error can be raised there.

        What the body waits for has to know that nobody does any more. On asyncio that
        is a future, which can be cancelled. On trio it is a function that takes the
        wait back; some waits cannot be, and some raise the error when they are over.
        """
        if not self.is_due or is_shielded(body):
            return False
        abort = getattr(suspension, "abort_func", None)
        if abort is not None:
            return abort(self._raise) is trio.lowlevel.Abort.SUCCEEDED
        if asyncio.isfuture(suspension):
            suspension.cancel()
        return True

    def _raise(self) -> NoReturn:
        self.is_due = False
        raise self.error


def is_shielded(body: Any) -> bool:
    """Whether a body suspends only to let others run, after what it awaits was done.

    An error there would lose what was done, such as the lock that was just acquired.
    """
    inner: str | None = None
    while body is not None:
        outer, inner = inner, getattr(body, "__name__", None)
        if inner == "cancel_shielded_checkpoint":
            return outer != "checkpoint"  # trio's is made of it
        body = getattr(body, "cr_await", None) or getattr(body, "gi_yieldfrom", None)
    return False


def call_once_suspended(call: Callable[[], object]) -> None:
    """Call a function when the running task, about to suspend, has done so.

    On asyncio that is as good as now. On trio the task may already be registered with
    what it waits for, so a call that wakes it now would find it not asleep, which trio
    takes for a bug of its own.
    """
    if running_backend() == "trio":
        trio.lowlevel.add_instrument(AfterStep(call))
    else:
        call()


class AfterStep(trio.abc.Instrument):
    """A trio instrument that makes one call after the current task's current step."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._context = copy_context()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Make the call: the first step to end is the current one."""
        trio.lowlevel.remove_instrument(self)
        self._context.run(self._call)


@contextmanager
def watched_calls(at_checkpoint: AtCheckpoint) -> Generator[None]:
    """Ask what to do at each call into this library from the block.

    An error comes out of that call. Only this thread is watched, through its profile
    function.
    """
    before = sys.getprofile()
    sys.setprofile(CallWatcher(at_checkpoint))
    try:
        yield
    finally:
        sys.setprofile(before)


class CallWatcher:  # pragma: no cover - nothing is traced inside of a profile function
    """A profile function that tells calls into this library from those inside of it."""

    def __init__(self, at_checkpoint: AtCheckpoint) -> None:
        self._at_checkpoint = at_checkpoint
        self._entered: FrameType | None = None

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Note that a function was entered or left."""
        if event == "return" and frame is self._entered:
            self._entered = None
        elif event == "call" and self._entered is None and self._enters(frame):
            self._entered = frame
            if self._counts(frame):
                self._strike(self._at_checkpoint())

    def _enters(self, frame: FrameType) -> bool:
        """Whether a frame is of this library, and not what is put around the body."""
        module, caller = module_of(frame), module_of(frame.f_back)
        if module.startswith(TESTING) or caller.startswith(TESTING):
            return False
        return module.startswith("engine.")

    def _counts(self, frame: FrameType) -> bool:
        """Whether a call is one that the body makes and the run can be struck by.

        Lines that are logged are not; an error in a finalizer, which nobody calls,
        would get nowhere.
        """
        is_finalizer = frame.f_code.co_name == "__del__"
        return not is_finalizer and module_of(frame) != LOGGING

    def _strike(self, interference: Interference) -> None:
        if isinstance(interference, BaseException):
            raise interference
        if interference is not None:
            interference()


def module_of(frame: FrameType | None) -> str:  # pragma: no cover - see CallWatcher
    """Return the name of the module whose code a frame executes."""
    name: str = "" if frame is None else frame.f_globals.get("__name__", "")
    return name
