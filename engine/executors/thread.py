"""Daemon threads for sync bodies and sync hooks.

Not anyio's worker threads: on asyncio those are not daemons, so that one hung call
holds up the exit of the whole process.

A thread that waits for another run, such as a sync flow for the sync tasks it
submitted, lends its place to a further thread while it waits; otherwise parents that
fill the pool would wait for ever for children that never get a thread. (The same idea
as ``ManagedBlocker`` of Java's fork-join pool.)
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Final

Wake = Callable[[], None]

FIRST_LOOK: Final = 0.05
"""Seconds until a main thread that blocks looks up for the first time."""

_current = threading.local()


@contextmanager
def lend_place() -> Generator[None]:
    """Let another thread take this one's place in its pool while it waits."""
    pool: ThreadPool | None = getattr(_current, "pool", None)
    if pool is None:
        yield
        return
    pool.leave()
    try:
        yield
    finally:
        pool.come_back()


def block(event: threading.Event, timeout: float | None = None) -> bool:
    """Block until *event* is set, for at most *timeout* seconds; whether it is set.

    Python calls signal handlers between two steps of the main thread. A signal that
    arrives after the last step before the thread blocks does not wake it up, and Ctrl-C
    would have no effect until the event is set. It is no rare coincidence: another
    thread that sends one often gets its turn just then. So the main thread looks up,
    soon at first and then after twice the time: a signal is late by no longer than the
    wait has lasted, and a long wait costs next to nothing.
    """
    with lend_place():
        if threading.current_thread() is not threading.main_thread():
            return event.wait(timeout)
        began, look = time.monotonic(), FIRST_LOOK
        while timeout is None or look < timeout:
            if event.wait(look - (time.monotonic() - began)):
                return True
            look *= 2
        return event.wait(timeout - (time.monotonic() - began))


class Job:
    """One call in a thread: its result, and a way to wait for it."""

    __slots__ = (
        "_args",
        "_error",
        "_fn",
        "_lock",
        "_pool",
        "_state",
        "_value",
        "_wake",
    )

    def __init__(self, pool: ThreadPool, fn: Callable[..., Any], args: Any) -> None:
        self._pool = pool
        self._fn = fn
        self._args = args
        self._lock = threading.Lock()
        self._state: str = "waiting"
        self._wake: Wake | None = None
        self._value: Any = None
        self._error: BaseException | None = None

    def __call__(self) -> None:
        """Make the call, unless it was given up before; by the pool's thread."""
        with self._lock:
            if self.is_abandoned:
                return
            self._state = "running"
        try:
            self._value = self._fn(*self._args)
        except BaseException as error:
            self._error = error
        # Whoever is woken may let go of a run: nothing here must keep it then.
        del self._fn, self._args
        with self._lock:
            # Another thread may have abandoned it meanwhile.
            was_abandoned, self._state = self.is_abandoned, "done"
            wake, self._wake = self._wake, None
        pool = self._pool
        del self  # the error's traceback refers to this frame
        if was_abandoned:
            pool.returned()
        elif wake is not None:
            wake()

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
            hangs = self._state == "running"
            self._state = "abandoned"
        if hangs:
            self._pool.lost()
        return True

    def result(self) -> Any:
        """Return what the call returned, or raise what it raised."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self
        return self._value


class ThreadPool:
    """Threads that are started when needed and kept until the engine closes.

    Attributes:
        abandoned: Threads whose call hangs and is waited for no more.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._lock = threading.Lock()
        self._backlog: deque[Callable[[], None]] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._idle = 0
        self._live = 0
        self._away = 0
        self._closing = False
        self.abandoned = 0

    def start(self, fn: Callable[..., Any], *args: Any) -> Job:
        """Call ``fn(*args)`` in a thread; return what to wait for."""
        job = Job(self, fn, args)
        self.submit(job)
        return job

    def submit(self, call: Callable[[], None]) -> None:
        """Have *call*, which must not raise, called in a thread."""
        with self._lock:
            self._backlog.append(call)
            needs_thread = self._claim_thread()
        if needs_thread:
            self._start_thread()

    def leave(self) -> None:
        """Let another thread take the place of one that waits."""
        with self._lock:
            self._away += 1
            needs_thread = bool(self._backlog) and self._claim_thread()
        if needs_thread:
            self._start_thread()

    def come_back(self) -> None:
        """Take the place again, past the limit if need be."""
        with self._lock:
            self._away -= 1

    def lost(self) -> None:
        """Note that a thread's call hangs: others may take its place."""
        with self._lock:
            self.abandoned += 1
        self.leave()

    def returned(self) -> None:
        """Note that a hanging call has returned after all."""
        with self._lock:
            self.abandoned -= 1
            self._away -= 1

    def close(self) -> None:
        """Let threads end when they have nothing to do; does not wait for them."""
        with self._lock:
            self._closing = True
            idle, self._idle = self._idle, 0
        for _ in range(idle):
            self._bell.put(None)

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return self._live

    def _claim_thread(self) -> bool:
        if self._idle:
            self._idle -= 1
            self._bell.put(None)
            return False
        if self._live - self._away < self._limit:
            self._live += 1
            return True
        return False

    def _start_thread(self) -> None:
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        _current.pool = self
        while True:
            with self._lock:
                call = self._backlog.popleft() if self._backlog else None
                if call is None and self._closing:
                    self._live -= 1
                    return
                if call is None:
                    self._idle += 1
            if call is None:
                self._bell.get()
            else:
                call()
                del call
