"""A call in a thread, and what waits for it."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.executors.thread import ThreadPool

Wake = Callable[[], None]


class Job:
    """One call in a thread: its result, and a way to wait for it."""

    __slots__ = (
        "_args",
        "_error",
        "_fn",
        "_lock",
        "_pool",
        "_state",
        "_thread",
        "_value",
        "_wake",
    )

    def __init__(self, pool: ThreadPool, fn: Callable[..., Any], args: Any) -> None:
        self._pool = pool
        self._fn: Any = fn
        self._args: Any = args
        self._lock = Lock()
        self._state: str = "waiting"
        self._thread: int | None = None
        self._wake: Wake | None = None
        self._value: Any = None
        self._error: BaseException | None = None

    def __call__(self) -> None:
        """Make the call, unless it was given up before; by the pool's thread."""
        with self._lock:
            if self.is_abandoned:
                return
            self._state, self._thread = "running", get_ident()
        try:
            self._value = self._fn(*self._args)
        except BaseException as error:
            self._error = error
        self._end()
        del self  # the error's traceback refers to this frame

    def lose(self, error: BaseException) -> None:
        """End with *error*, unless the call has returned: its thread was lost."""
        if not self.is_done:
            self._error = error
        self._end()

    def _end(self) -> None:
        # Whoever is woken may let go of a run: nothing here must keep it then.
        self._fn = self._args = None
        with self._lock:
            if self.is_abandoned:
                return
            self._state = "done"
        if self._wake is not None:
            self._wake()  # twice, if the thread dies in between

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for the call any more."""
        return self._state == "abandoned"

    @property
    def is_done(self) -> bool:
        """Whether the call has returned."""
        return self._state == "done"

    def subscribe(self, wake: Wake) -> bool:
        """Have *wake* called when the call has returned; False if it has."""
        with self._lock:
            if self._state == "done":
                return False
            self._wake = wake
            return True

    def abandon(self) -> bool:
        """Wait no more for a call; False if it has just returned.

        One that has not begun never will.
        """
        with self._lock:
            if self._state == "done":
                return False
            if self._state == "running":
                # With the lock held, so that the thread is not at another call yet.
                self._pool.abandon(self._thread)
            self._state = "abandoned"
        return True

    def result(self) -> Any:
        """Return what the call returned, or raise what it raised."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self
        return self._value
