"""The supervisor: says who ended how, for those who cannot say it themselves.

A body that returns or raises an ordinary exception reports itself. For any other end
(a cancellation, a `SystemExit`, a body that went on past its deadline) the guard around
it asks the supervisor, whose policy is the table below: what kind of exit it was, and
what had been asked of the run, decide the verdict.

It also watches the engine's own actors, restarts one that dies, and gives up on one
that keeps dying: more than `RESTARTS` times in `PERIOD` seconds, Erlang's restart
intensity.
"""

from __future__ import annotations

import asyncio
import enum
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from engine.actors import messages as m
from engine.exceptions import CancelledRun, EngineFailedError, Terminated
from engine.logging import log
from engine.states import safe_text

if TYPE_CHECKING:
    from engine.actors.run import RunActor


RESTARTS: Final = 5
PERIOD: Final = 10.0


class ExitKind(enum.Enum):
    """How a body ended."""

    RETURNED = "returned"
    RAISED = "raised"
    CANCELLED = "cancelled"
    CLOSED = "closed"
    DIED = "died"

    __hash__ = object.__hash__  # Enum's own is a Python function


def stop(run: RunActor, error: BaseException | None) -> m.Message:
    """The body has ended as it was asked to."""
    # A child's end, passed on, is the very stop that was asked for.
    if isinstance(error, Exception) and not isinstance(error, CancelledRun):
        # The run is cancelled all the same; what its clean-up raised must not vanish.
        log.warning(
            "cleanup_failed", run_id=run.id, run=run.name, error=safe_text(error)
        )
    return m.STOPPED


def stop_for_host(run: RunActor, error: BaseException | None) -> m.Message:
    """The body has ended because its surroundings were cancelled."""
    run.send(m.CancelRequested("host"))
    return stop(run, error)


def time_out(run: RunActor, error: BaseException | None) -> m.Message:
    """The body has ended after its deadline, however it did."""
    return m.TimedOut(run.definition.options.timeout or 0.0)


def fail(run: RunActor, error: BaseException | None) -> m.Message:
    """The body raised an ordinary exception."""
    assert error is not None
    return m.Raised(error)


def stray(run: RunActor, error: BaseException | None) -> m.Message:
    """The body raised a cancellation that nobody had asked for."""
    text = "Execution was cancelled, but nobody had asked for it."
    return m.Lost("stray_cancel", text, error)


def lose(run: RunActor, error: BaseException | None) -> m.Message:
    """The body died of something that is no ordinary exception."""
    if isinstance(error, Terminated):
        return m.terminated(error)
    name = type(error).__name__
    return m.Lost(name, LAST_WORDS.get(name, unexpected(error)), error)


def lose_worker(error: BaseException) -> m.Message:
    """The body's thread died outside of the body, or there was none to be had."""
    text = f"Execution was lost with its worker thread: {safe_text(error)}"
    return m.Lost("worker_lost", text, error)


def unexpected(error: BaseException | None) -> str:
    """Describe an exception that has no sentence of its own."""
    text = "" if error is None else safe_text(error)
    return f"Execution was interrupted by an unexpected exception: {text}"


LAST_WORDS: Final = {
    "KeyboardInterrupt": "Execution was aborted by an interrupt signal.",
    "SystemExit": "Execution was aborted by Python system exit call.",
}


def terminate(run: RunActor, error: BaseException | None) -> m.Message:
    """The body has ended because the process was told to."""
    return m.terminated(error)


Verdict = Callable[["RunActor", BaseException | None], m.Message]

POLICY: Final[dict[ExitKind, dict[m.Asked, Verdict]]] = {
    ExitKind.RETURNED: {
        m.Asked.CANCEL: stop,
        m.Asked.DEADLINE: time_out,
        m.Asked.TERMINATION: terminate,
    },
    ExitKind.RAISED: {
        m.Asked.NOTHING: fail,
        m.Asked.CANCEL: stop,
        m.Asked.DEADLINE: time_out,
        m.Asked.HOST: stop_for_host,
        m.Asked.TERMINATION: terminate,
    },
    ExitKind.CANCELLED: {
        m.Asked.NOTHING: stray,
        m.Asked.CANCEL: stop,
        m.Asked.DEADLINE: time_out,
        m.Asked.HOST: stop_for_host,
        m.Asked.TERMINATION: terminate,
    },
    ExitKind.CLOSED: {
        **dict.fromkeys(m.Asked, stop_for_host),
        m.Asked.TERMINATION: terminate,
    },
    ExitKind.DIED: {**dict.fromkeys(m.Asked, lose), m.Asked.TERMINATION: terminate},
}


class Exit:
    """How a body ended, and what that means for its run.

    Attributes:
        kind: How it ended.
        asked: What had been asked of the run.
        error: What to tell the run; of a group only the part that is no cancellation.
        verdict: The message that ends the run.
    """

    __slots__ = ("asked", "error", "kind", "verdict")

    def __init__(
        self, run: RunActor, error: BaseException | None, by_host: bool
    ) -> None:
        self.kind, self.error = classify(error)
        if self.kind is ExitKind.CLOSED and not run.definition.is_async:
            self.kind = ExitKind.DIED  # a sync body raised it; nothing was closed
        self.asked = run.asked
        if by_host and run.asked is m.Asked.NOTHING:
            self.asked = m.Asked.HOST
        self.verdict = POLICY[self.kind][self.asked](run, self.error)


def classify(
    error: BaseException | None,
) -> tuple[ExitKind, BaseException | None]:
    """Say what kind of exit *error* is, and which part of a group decides it."""
    if error is None:
        return ExitKind.RETURNED, None
    if isinstance(error, GeneratorExit):
        return ExitKind.CLOSED, error
    cancellations = cancellation_types()
    if isinstance(error, cancellations):
        return ExitKind.CANCELLED, error
    if isinstance(error, BaseExceptionGroup):
        # The user's own nursery or task group may mix cancellations with errors.
        cancelled, rest = error.split(cancellations)
        if rest is None:
            return ExitKind.CANCELLED, error
        if cancelled is not None:
            error = rest  # else it stays the very object that was raised
    kind = ExitKind.RAISED if isinstance(error, Exception) else ExitKind.DIED
    return kind, error


def cancellation_types() -> tuple[type[BaseException], ...]:
    """Return the cancellation exceptions of the loops that this process has loaded."""
    # Trio may be half imported, by another thread.
    cancelled = getattr(sys.modules.get("trio"), "Cancelled", None)
    if cancelled is None:
        return (asyncio.CancelledError,)
    return (asyncio.CancelledError, cancelled)


class Supervisor:
    """Restarts the engine's own actors, within limits."""

    def __init__(self, escalate: Callable[[EngineFailedError], None]) -> None:
        self._escalate = escalate
        self._restarts: dict[str, deque[float]] = {}

    async def watch_once(self, name: str, serve: Callable[[], Any]) -> None:
        """Run a part of an actor's work; its death is counted like the actor's."""
        try:
            await serve()
        except Exception as error:
            self.note_death(name, error)
        del serve  # see engine.tracebacks

    async def watch(self, name: str, serve: Callable[[], Any]) -> None:
        """Run an actor's loop; start it again when it dies, until it dies too often.

        A cancellation ends it. Past the intensity the engine is told, and fails.
        """
        while True:
            try:
                await serve()
                return
            except Exception as error:
                if not self.note_death(name, error):
                    return

    def note_death(self, name: str, error: BaseException) -> bool:
        """Log an actor's death; say whether to start it again, or escalate."""
        log.error("actor_died", actor=name, error=safe_text(error), exc_info=error)
        if self.may_restart(name):
            return True
        self._escalate(EngineFailedError(name, RESTARTS, PERIOD))
        return False

    def may_restart(self, name: str) -> bool:
        """Count a death; say whether it is within the intensity."""
        now = time.monotonic()
        deaths = self._restarts.setdefault(name, deque())
        deaths.append(now)
        while deaths[0] < now - PERIOD:
            deaths.popleft()
        return len(deaths) <= RESTARTS
