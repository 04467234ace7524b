"""Where a run is, and the table of every move it can make.

`TRANSITIONS` is the specification: a (state type, message) pair is either there or
illegal, and nothing but the run's own actor, which follows the table, ever assigns a
state. Two rules make the states trustworthy:

* A terminal state has no moves, so whatever arrives later is dropped. `TERMINAL` is
  derived from the table rather than kept beside it.
* A run that is asked to stop enters CANCELLING at once, and CANCELLED only when its
  body and its children have ended.

Types and names follow Prefect's: a name refines a type (``Retrying`` is a RUNNING
state, ``TimedOut`` and ``NotReady`` are FAILED ones, ``AwaitingRetry`` is SCHEDULED).
"""

from __future__ import annotations

import enum
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Generic, Literal, Never, TypeVar, overload

from engine.actors import messages as m
from engine.exceptions import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    UnfinishedRun,
)

R_co = TypeVar("R_co", covariant=True)


class StateType(str, enum.Enum):  # noqa: UP042 - shown with its class, as ever
    """The kinds of state, whatever a state calls itself; each equals its own name."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CRASHED = "CRASHED"
    CANCELLED = "CANCELLED"

    # Enum's own __hash__ is a Python function, and the table is looked up at every
    # transition.
    __hash__ = str.__hash__

    @classmethod
    def _missing_(cls, value: object) -> Never:
        choices = ", ".join(cls)
        raise ValueError(f"there is no state type {value!r}: use one of {choices}")


SCHEDULED: Final = StateType.SCHEDULED
PENDING: Final = StateType.PENDING
RUNNING: Final = StateType.RUNNING
CANCELLING: Final = StateType.CANCELLING
COMPLETED: Final = StateType.COMPLETED
FAILED: Final = StateType.FAILED
CRASHED: Final = StateType.CRASHED
CANCELLED: Final = StateType.CANCELLED

OWN: Final = None
"""In the table: the type of the state that the message carries."""

TRANSITIONS: Final[Mapping[StateType, Mapping[type[m.Message], StateType | None]]] = {
    PENDING: {
        m.Started: RUNNING,
        m.Rejected: FAILED,
        m.UpstreamFailed: FAILED,
        m.Raised: FAILED,
        m.CancelRequested: CANCELLING,
        m.Lost: CRASHED,
    },
    RUNNING: {
        m.Returned: COMPLETED,
        m.Concluded: OWN,
        m.Raised: FAILED,
        m.TimedOut: FAILED,
        m.Retried: RUNNING,
        m.RetryScheduled: SCHEDULED,
        m.CancelRequested: CANCELLING,
        m.Lost: CRASHED,
    },
    SCHEDULED: {
        m.Started: RUNNING,
        m.CancelRequested: CANCELLING,
        m.Lost: CRASHED,
    },
    CANCELLING: {
        m.Stopped: CANCELLED,
        m.Lost: CRASHED,
    },
    COMPLETED: {},
    FAILED: {},
    CRASHED: {},
    CANCELLED: {},
}

TERMINAL: Final = frozenset(kind for kind, moves in TRANSITIONS.items() if not moves)


class State(Generic[R_co]):
    """One state of a run: an immutable value.

    Made with the factories of this module (`Completed`, `Failed`, …); a flow or task
    that returns one made by hand ends in it. Not frozen by attrs only because every run
    makes some and a frozen ``__init__`` costs twice as much.

    Attributes:
        type: The kind of state, which decides what may follow and which hooks run.
        name: What the state is called; refines the type.
        message: A sentence for people, or None.
        data: The result of a completed run; the exception of a failed, crashed or
            cancelled one, the very object that was raised; else None.
        cause: Why a run was cancelled (``user``, ``host``, ``parent``, ``sibling``,
            ``shutdown``) or crashed (the exception's type, ``stray_cancel``, …), or
            why a failed one did not run its body (``upstream``, ``arguments``); else
            None.
        attempt: Which try of the body this belongs to, counted from 1; 0 before the
            first.
        run_id: The run that was in this state; None for a state made by hand.

    Raises:
        ValueError: *type* is none of the kinds.
    """

    __slots__ = (
        "_due",
        "_time",
        "attempt",
        "cause",
        "data",
        "message",
        "name",
        "run_id",
        "type",
    )

    def __init__(
        self,
        type: StateType | str,
        name: str | None = None,
        message: str | None = None,
        data: Any = None,
        cause: str | None = None,
        attempt: int = 0,
        run_id: str | None = None,
        at: float | None = None,
        due: float | None = None,
    ) -> None:
        kind = type if isinstance(type, StateType) else StateType(type)
        self.type = kind
        self.name = name or kind.value.capitalize()
        self.message = message
        self.data = data
        self.cause = cause
        self.attempt = attempt
        self.run_id = run_id
        self._time = time.time() if at is None else at
        self._due = due

    @property
    def timestamp(self) -> datetime:
        """When the run entered the state (UTC); strictly increasing within a run."""
        return datetime.fromtimestamp(self._time, UTC)

    @property
    def scheduled_time(self) -> datetime | None:
        """When a SCHEDULED state ends by itself (UTC); None for the others."""
        return None if self._due is None else datetime.fromtimestamp(self._due, UTC)

    def is_scheduled(self) -> bool:
        """Whether the run waits for a time to come."""
        return self.type is SCHEDULED

    def is_pending(self) -> bool:
        """Whether the run has not started its body."""
        return self.type is PENDING

    def is_running(self) -> bool:
        """Whether the body is being executed."""
        return self.type is RUNNING

    def is_cancelling(self) -> bool:
        """Whether the run was asked to stop and has not stopped yet."""
        return self.type is CANCELLING

    def is_completed(self) -> bool:
        """Whether the run ended well."""
        return self.type is COMPLETED

    def is_failed(self) -> bool:
        """Whether the body raised, ran out of time or could not be started."""
        return self.type is FAILED

    def is_crashed(self) -> bool:
        """Whether the body died without reporting."""
        return self.type is CRASHED

    def is_cancelled(self) -> bool:
        """Whether the run stopped because it was asked to."""
        return self.type is CANCELLED

    def is_final(self) -> bool:
        """Whether the state is terminal: nothing follows it."""
        return self.type in TERMINAL

    @overload
    def result(self, raise_on_failure: Literal[True] = True) -> R_co: ...
    @overload
    def result(self, raise_on_failure: bool) -> R_co | BaseException: ...
    def result(self, raise_on_failure: bool = True) -> Any:
        """Give the run's value, or raise what kept it from having one.

        Args:
            raise_on_failure: False returns the exception instead of raising it.

        Raises:
            UnfinishedRun: The state is not terminal.
            CrashedRun: The run crashed; the original error is its ``__cause__``.
            Exception: The run's own exception, the object that was raised.
        """
        if self.type not in TERMINAL:
            raise UnfinishedRun(self.name)
        if self.type is COMPLETED:
            return self.data
        error = failure(self)
        if not raise_on_failure:
            return error
        try:
            raise error
        finally:
            # The traceback refers to this frame; without these the frame would refer
            # back and the run would wait for the garbage collector.
            del error, self

    def __str__(self) -> str:
        details = [] if self.message is None else [repr(self.message)]
        if self.name.upper() != self.type.value:
            details.append(f"type={self.type.value}")
        return f"{self.name}({', '.join(details)})"

    def __repr__(self) -> str:
        return (
            f"{self.name}(message={self.message!r}, type={self.type.value},"
            f" result={safe_repr(self.data)})"
        )


def Scheduled(
    *, scheduled_time: datetime | None = None, name: str | None = None, **fields: Any
) -> State[Any]:
    """Make a state that waits until *scheduled_time* (naive is UTC; None is now).

    Raises:
        TypeError: *scheduled_time* is no datetime.
    """
    if scheduled_time is None:
        return State(SCHEDULED, name, due=time.time(), **fields)
    if not isinstance(scheduled_time, datetime):
        text = f"scheduled_time must be a datetime, got {scheduled_time!r}"
        raise TypeError(text)
    if scheduled_time.tzinfo is None:
        scheduled_time = scheduled_time.replace(tzinfo=UTC)
    return State(SCHEDULED, name, due=scheduled_time.timestamp(), **fields)


def AwaitingRetry(
    *, scheduled_time: datetime | None = None, **fields: Any
) -> State[Any]:
    """Make the SCHEDULED state of a run whose next attempt waits for its delay."""
    return Scheduled(scheduled_time=scheduled_time, name="AwaitingRetry", **fields)


def Pending(**fields: Any) -> State[Any]:
    """Make the state of a run that has not started."""
    return State(PENDING, **fields)


def Running(**fields: Any) -> State[Any]:
    """Make the state of a run whose body is being executed."""
    return State(RUNNING, **fields)


def Retrying(**fields: Any) -> State[Any]:
    """Make the RUNNING state of a second or later attempt."""
    return State(RUNNING, "Retrying", **fields)


def Completed(**fields: Any) -> State[Any]:
    """Make a terminal state with *data* as the result."""
    return State(COMPLETED, **fields)


def Failed(**fields: Any) -> State[Any]:
    """Make a terminal state with an exception as *data*, or only a *message*."""
    return State(FAILED, **fields)


def TimedOut(**fields: Any) -> State[Any]:
    """Make the FAILED state of a run whose time was up."""
    return State(FAILED, "TimedOut", **fields)


def NotReady(**fields: Any) -> State[Any]:
    """Make the FAILED state of a run whose upstream did not complete."""
    return State(FAILED, "NotReady", **fields)


def Crashed(**fields: Any) -> State[Any]:
    """Make the terminal state of a run that died without reporting."""
    return State(CRASHED, **fields)


def Cancelling(**fields: Any) -> State[Any]:
    """Make the state of a run that was asked to stop."""
    return State(CANCELLING, **fields)


def Cancelled(**fields: Any) -> State[Any]:
    """Make the terminal state of a run that stopped because it was asked to."""
    return State(CANCELLED, **fields)


def failure(state: State[Any]) -> BaseException:
    """Return the exception that stands for a terminal state other than completed."""
    data = state.data
    if state.type is CRASHED:
        crashed = CrashedRun(state.message or "the run crashed")
        crashed.__cause__ = data if isinstance(data, BaseException) else None
        return crashed
    if isinstance(data, BaseException):
        return data
    inner = (data,) if isinstance(data, State) else data if is_states(data) else ()
    for unlucky in inner:
        if unlucky.type in TERMINAL and unlucky.type is not COMPLETED:
            return failure(unlucky)
    message = data if isinstance(data, str) else state.message
    if state.type is CANCELLED:
        return CancelledRun(message or "the run was cancelled", state.cause)
    return FailedRun(message or "the run failed")


def is_states(value: object) -> bool:
    """Whether *value* is a collection of nothing but states, and of at least one."""
    return (
        isinstance(value, list | tuple | set)
        and bool(value)
        and all(isinstance(item, State) for item in value)
    )


def aggregate(states: Collection[State[Any]], data: Any) -> State[Any]:
    """Judge a run by the *states* it returned: the worst of them decides.

    Any cancelled one makes it Cancelled, else any failed or crashed one Failed, else
    any unfinished one Failed too, because a run that has ended cannot be less.
    """
    total = len(states)
    cancelled = sum(s.type is CANCELLED for s in states)
    failed = sum(s.type in (FAILED, CRASHED) for s in states)
    unfinished = sum(s.type not in TERMINAL for s in states)
    if cancelled:
        return Cancelled(message=f"{cancelled}/{total} states cancelled.", data=data)
    if failed:
        return Failed(message=f"{failed}/{total} states failed.", data=data)
    if unfinished:
        return Failed(message=f"{unfinished}/{total} states are not final.", data=data)
    return Completed(message="All states completed.", data=data)


def safe_text(error: BaseException) -> str:
    """Return ``Type: text``, also for an exception whose ``__str__`` is broken.

    Whatever it raises: an actor is handling a message, and must not be interrupted.
    """
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:
        return f"{name}: <no text: its __str__ failed>"
    return f"{name}: {text}" if text else name


def unwrap_stop_iteration(error: BaseException) -> BaseException:
    """Return the `StopIteration` that a coroutine of ours made a RuntimeError."""
    cause = error.__cause__
    if isinstance(error, RuntimeError) and isinstance(cause, StopIteration):
        return cause
    return error


def safe_repr(value: object) -> str:
    """Return ``repr(value)``, also where it is broken."""
    try:
        return repr(value)
    except BaseException:
        return f"<{type(value).__name__}: its __repr__ failed>"
