"""Many runs at once: lists of handles, and waiting for them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterable
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    NamedTuple,
    Self,
    TypeVar,
    overload,
)

import anyio

from engine.checks import Checker
from engine.dispatch.here import loop_waiter
from engine.executors.thread import block
from engine.handles import RunHandle, refuse_to_block
from engine.states import State

if TYPE_CHECKING:
    from engine.dispatch.base import Wake

T = TypeVar("T")


class HandleList(list[RunHandle[T]]):
    """The handles of a ``map``, in the order of its items."""

    def __await__(self) -> Generator[Any, Any, list[T]]:
        """Wait for all runs; give their values or raise the first error in order."""
        return self._values().__await__()

    async def _values(self) -> list[T]:
        for handle in self:
            await handle.join()
        return [await handle for handle in self]

    def wait(self, timeout: float | None = None) -> list[State[T]]:
        """Block until all runs are done, for at most *timeout* seconds altogether.

        Returns:
            The state each run is in then. None of their errors is raised.
        """
        deadline = Deadline(timeout)
        return [handle._wait(deadline.left(), "handles.wait()") for handle in self]

    @overload
    def result(
        self, timeout: float | None = None, raise_on_failure: Literal[True] = True
    ) -> list[T]: ...
    @overload
    def result(
        self, timeout: float | None = None, *, raise_on_failure: bool
    ) -> list[T | BaseException]: ...
    def result(
        self, timeout: float | None = None, raise_on_failure: bool = True
    ) -> list[Any]:
        """Block until all runs are done; give their values, in order.

        Args:
            timeout: Seconds to wait for all of them; None waits for ever.
            raise_on_failure: False puts exceptions in the place of values.

        Raises:
            TimeoutError: Not all runs were done in time.
            Exception: What the first run that failed raised.
        """
        deadline = Deadline(timeout)
        return [
            handle._result(deadline.left(), raise_on_failure, "handles.result()")
            for handle in self
        ]


class Deadline:
    """A point in time, as the seconds that are left."""

    __slots__ = ("_at",)

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None:
            Checker("call", "wait").seconds("timeout", timeout, zero=True)
        self._at = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Return the seconds left, at least 0; None is for ever."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())


class Arrivals(Generic[T]):
    """Handles in the order in which their runs end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: deque[RunHandle[T]] = deque()
        self._wake: Wake | None = None
        self.pending: dict[RunHandle[T], None] = {}

    def add(self, handle: RunHandle[T]) -> None:
        """Expect a run's end."""
        self.pending[handle] = None
        actor = handle._actor

        def arrive() -> None:
            self._ended.append(handle)
            self.wake()

        if not actor.subscribe_settled(arrive):
            arrive()

    def wake(self) -> None:
        """Let go of who waits."""
        with self._lock:
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def take(self) -> RunHandle[T] | None:
        """Return the next run that has ended, or None if none has yet."""
        with self._lock:
            if not self._ended:
                return None
            handle = self._ended.popleft()
        self.pending.pop(handle, None)
        handle.observe()
        return handle

    def subscribe(self, wake: Wake) -> bool:
        """Have *wake* called when a run ends; False if one has."""
        with self._lock:
            if self._ended:
                return False
            self._wake = wake
            return True

    async def next(self) -> RunHandle[T]:
        """Wait for the next run to end."""
        while (handle := self.take()) is None:
            await loop_waiter().wait(self.subscribe)
        return handle

    def next_blocking(self, timeout: float | None) -> RunHandle[T] | None:
        """Block until the next run ends; None when *timeout* seconds do not do."""
        handle = self.take()
        if handle is not None:
            return handle
        first = next(iter(self.pending))._actor
        refuse_to_block(first, "waiting for runs")
        event = threading.Event()
        if self.subscribe(event.set):
            block(event, timeout)
        return self.take()


class AsCompleted(Generic[T]):
    """Handles in the order in which their runs end; for ``for`` and ``async for``."""

    def __init__(self, handles: Iterable[RunHandle[T]], timeout: float | None) -> None:
        self._deadline = Deadline(timeout)
        self._arrivals: Arrivals[T] = Arrivals()
        for handle in check_handles("as_completed", handles):
            self._arrivals.add(handle)
        self._total = len(self._arrivals.pending)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RunHandle[T]:
        if not self._arrivals.pending:
            raise StopIteration
        handle = self._arrivals.next_blocking(self._deadline.left())
        if handle is None:
            raise self._timeout()
        return handle

    # Not an async generator: trio warns of one that is left early.
    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RunHandle[T]:
        if not self._arrivals.pending:
            raise StopAsyncIteration
        handle: RunHandle[T] | None = None
        with anyio.move_on_after(self._deadline.left()):
            handle = await self._arrivals.next()
        if handle is None:
            raise self._timeout()
        return handle

    def _timeout(self) -> TimeoutError:
        left = len(self._arrivals.pending)
        return TimeoutError(f"{left} (of {self._total}) runs unfinished")


def as_completed(
    handles: Iterable[RunHandle[T]], timeout: float | None = None
) -> AsCompleted[T]:
    """Iterate over handles in the order in which their runs end.

    Use it with ``for`` in sync code and with ``async for`` in async code.

    Args:
        handles: Handles of runs; each is given once.
        timeout: Seconds to wait for all of them together; None waits for ever.

    Raises:
        TimeoutError: While iterating, when *timeout* passes first.
        ValueError: *timeout* is negative.
    """
    return AsCompleted(handles, timeout)


def check_handles(call: str, handles: Iterable[RunHandle[T]]) -> list[RunHandle[T]]:
    """Return the handles as a list.

    Raises:
        TypeError: One of them is something else.
    """
    checked = list(handles)
    for handle in checked:
        if not isinstance(handle, RunHandle):
            raise TypeError(f"{call}() takes handles of runs, got {handle!r}")
    return checked


class DoneAndNotDone(NamedTuple):
    """What `wait` returns."""

    done: set[RunHandle[Any]]
    not_done: set[RunHandle[Any]]


def wait(
    handles: Iterable[RunHandle[Any]], timeout: float | None = None
) -> DoneAndNotDone:
    """Block until the runs are done; for sync code.

    In async code ``await`` the handles, or use ``async for`` over `as_completed`.

    Args:
        handles: Handles of runs.
        timeout: Seconds to wait for all of them together; None waits for ever.

    Raises:
        ValueError: *timeout* is negative.
        BlockingCallError: Called on the event loop that the runs need to end.
    """
    deadline = Deadline(timeout)
    handles = check_handles("wait", handles)
    for handle in handles:
        handle._wait(deadline.left(), "wait()")
    done = {handle for handle in handles if handle._actor.settled}
    return DoneAndNotDone(done, set(handles) - done)
