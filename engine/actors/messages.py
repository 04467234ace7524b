"""What can happen to a run, as messages to the actor that owns it.

Plain slotted classes rather than attrs' frozen ones: a run is sent two of them even
when nothing special happens, and a frozen ``__init__`` costs three times as much.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from engine.states import State

Cause = Literal["user", "host", "parent", "sibling", "shutdown"]
"""Who asked a run to stop."""


class Asked(enum.Enum):
    """What a body was asked to stop for."""

    NOTHING = "nothing"
    CANCEL = "cancel"
    DEADLINE = "deadline"
    HOST = "host"
    TERMINATION = "termination"

    __hash__ = object.__hash__  # Enum's own is a Python function


class Message:
    """Something that happened to a run."""

    __slots__: tuple[str, ...] = ()

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


class Started(Message):
    """An attempt of the body begins."""

    __slots__ = ()


class Retried(Message):
    """An attempt failed and the next one begins at once."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class RetryScheduled(Message):
    """An attempt failed and the next one begins after *delay* seconds."""

    __slots__ = ("delay", "error", "state")

    def __init__(self, error: BaseException, delay: float, state: State[Any]) -> None:
        self.error = error
        self.delay = delay
        self.state = state


class Returned(Message):
    """The body returned a plain value."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Concluded(Message):
    """The body returned a state, or states, that decide how the run ends."""

    __slots__ = ("state",)

    def __init__(self, state: State[Any]) -> None:
        self.state = state


class Raised(Message):
    """The body raised an `Exception` and no attempt is left."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Rejected(Message):
    """The arguments do not fit the function: the body never starts."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class UpstreamFailed(Message):
    """A run that this one depends on did not complete: the body never starts."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class TimedOut(Message):
    """The body was stopped, or abandoned, because its time was up."""

    __slots__ = ("timeout",)

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout


class CancelRequested(Message):
    """Somebody asks the run to stop."""

    __slots__ = ("cause", "reason")

    def __init__(self, cause: Cause, reason: str | None = None) -> None:
        self.cause = cause
        self.reason = reason


class Stopped(Message):
    """The body has returned after a request to stop, or could not be stopped."""

    __slots__ = ()


class Lost(Message):
    """The body died in a way that it could not report itself."""

    __slots__ = ("cause", "error", "text")

    def __init__(self, cause: str, text: str, error: BaseException | None) -> None:
        self.cause = cause
        self.text = text
        self.error = error


class DeadlinePassed(Message):
    """The attempt's time is up; its body has yet to be stopped."""

    __slots__ = ("attempt",)

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt


class Terminate(Message):
    """The process was told to end: the run crashes as soon as its body has stopped."""

    __slots__ = ()


STARTED: Final = Started()
STOPPED: Final = Stopped()
TERMINATE: Final = Terminate()


def terminated(error: BaseException | None) -> Lost:
    """Return the verdict on a run whose process was told to end."""
    return Lost("terminated", "Execution was aborted by a termination signal.", error)
