"""Daemon threads for sync bodies and sync hooks.

Not anyio's worker threads: on asyncio those are not daemons, so that one hung call
holds up the exit of the whole process.

A thread that waits for another run, such as a sync flow for the sync tasks it
submitted, lends its place to a further thread while it waits; otherwise parents that
fill the pool would wait for ever for children that never get a thread. (The same idea
as ``ManagedBlocker`` of Java's fork-join pool.)

Threads get lost. Another thread may raise an exception in one, wherever it is (that is
how libraries kill threads), memory may run out, and the system may start no more of
them. So a pool counts by who is there, not by adding up: a `Worker` is a member of the
pool's sets, or it is not, and leaves them all at once. What a thread has taken is in
its `Worker`, from where it is told to whom it concerns when the thread dies.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import get_ident
from typing import Any, Final

from engine.executors.job import Job
from engine.logging import log
from engine.states import safe_text

Call = Callable[[], None]
Lose = Callable[[BaseException], None]

FIRST_LOOK: Final = 0.05
"""Seconds until a main thread that blocks looks up for the first time."""

_current = threading.local()


@contextmanager
def lend_place() -> Generator[None]:
    """Let another thread take this one's place in its pool while it waits."""
    worker: Worker | None = getattr(_current, "worker", None)
    if worker is None:
        yield
        return
    try:
        worker.pool.leave(worker)
        yield
    finally:
        worker.pool.come_back(worker)


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


def tell_submitter(error: BaseException) -> None:
    """Raise what a call was lost with that nobody else asks about."""
    raise error


class Worker:
    """A thread of a pool, and what would be lost with it.

    Attributes:
        pool: The pool.
        thread: The thread's number; None until it has begun.
        bell: Rung when there is something to take.
        call: What it has taken and not done yet, and whom to tell if that is lost.
        hangs: Whether nobody waits any more for what it does.
    """

    __slots__ = ("bell", "call", "hangs", "pool", "thread")

    def __init__(self, pool: ThreadPool) -> None:
        self.pool = pool
        self.thread: int | None = None
        self.bell: SimpleQueue[None] = SimpleQueue()
        self.call: tuple[Call, Lose] | None = None
        self.hangs = False


class ThreadPool:
    """Threads that are started when needed and kept until the engine closes."""

    def __init__(self, name: str, limit: int, lock: Any = None) -> None:
        self._name = name
        self._limit = limit
        # The engine's own, which is re-entrant: actors stop and start what is done here
        # with it held, and in signal handlers and finalizers in the middle of this.
        self._lock = threading.RLock() if lock is None else lock
        self._backlog: deque[tuple[Call, Lose]] = deque()
        self._workers: set[Worker] = set()
        # Those that neither wait nor hang. While there is a backlog there is such a
        # one, who comes for it: see `_do_without`.
        self._present: set[Worker] = set()
        # Those that wait for the bell, and for which nobody has rung it.
        self._idle: dict[Worker, None] = {}
        self._closing = False

    def start(self, fn: Callable[..., Any], *args: Any) -> Job:
        """Call ``fn(*args)`` in a thread; return what to wait for."""
        job = Job(self, fn, args)
        self.submit(job, job.lose)
        return job

    def submit(self, call: Call, lose: Lose = tell_submitter) -> None:
        """Have *call* called in a thread.

        Args:
            call: What to call, which must not raise.
            lose: Called, in any thread, with the error that *call* was lost with: its
                thread has died of it, be it right after *call* was done, or there is
                no thread and the system does not start one. Must not wait.
        """
        self._backlog.append((call, lose))
        self._attend()

    def put_back(self, call: Call, lose: Lose) -> None:
        """Have a call that was lost made once more, by the next thread there is."""
        self._backlog.append((call, lose))

    def leave(self, worker: Worker) -> None:
        """Let another thread take the place of one that waits."""
        with self._lock:
            self._present.discard(worker)
        self._attend()

    def come_back(self, worker: Worker) -> None:
        """Take the place again, past the limit if need be."""
        with self._lock:
            if worker in self._workers and not worker.hangs:
                self._present.add(worker)

    def abandon(self, thread: int | None) -> None:
        """Note that what a thread does hangs: another may take its place."""
        for worker in tuple(self._workers):
            if worker.thread == thread:
                worker.hangs = True
                self.leave(worker)

    def close(self) -> None:
        """Let threads end when they have nothing to do; does not wait for them."""
        with self._lock:
            self._closing = True
            for worker in tuple(self._idle):
                worker.bell.put(None)

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return len(self._workers)

    @property
    def abandoned(self) -> int:
        """How many threads hang in a call that is waited for no more."""
        return sum(worker.hangs for worker in tuple(self._workers))

    def _attend(self) -> None:
        """Have the backlog taken by an idle thread, or by a further one."""
        with self._lock:
            if not self._backlog:
                return
            if self._idle:
                worker = next(reversed(self._idle))
                del self._idle[worker]
                worker.bell.put(None)
                return
        if len(self._present) < self._limit:
            self._start_thread()

    def _start_thread(self) -> None:
        worker = Worker(self)
        try:
            with self._lock:
                if len(self._present) >= self._limit:
                    return  # somebody else was faster
                self._add(worker)
            threading.Thread(
                target=self._work, args=(worker,), name=self._name, daemon=True
            ).start()
        except BaseException as error:
            with self._lock:
                if worker.thread is None:  # else it has begun all the same
                    self._remove(worker)
            self._do_without(error)
            if not isinstance(error, Exception):
                raise

    def _do_without(self, error: BaseException) -> None:
        """Lose the backlog if nobody is there to take it, ever.

        A thread that waits does not count: it may be waiting for just this.
        """
        with self._lock:
            if self._present:
                return
            backlog = tuple(self._backlog)
            self._backlog.clear()
        for _, lose in backlog:
            lose(error)

    def _work(self, worker: Worker) -> None:
        # Nothing but a call: Python 3.13 leaves the jump back of a loop out of the try
        # block around it, and that is where it raises what comes from other threads.
        try:
            self._serve(worker)
        except BaseException as error:
            self._lose(worker, error.with_traceback(None))

    def _serve(self, worker: Worker) -> None:
        _current.worker = worker
        with self._lock:
            worker.thread = get_ident()
            self._add(worker)  # who started it may have been interrupted
        while self._take(worker):
            if worker.call is None:
                worker.bell.get()
            else:
                worker.call[0]()
                worker.call = None

    def _take(self, worker: Worker) -> bool:
        """Take the next call if there is one; False if the thread is to end."""
        with self._lock:
            self._idle.pop(worker, None)
            self._present.add(worker)
            worker.hangs = False  # whatever it did is over
            if self._backlog:
                # The thread must not be hit with a call in neither place. It is not
                # between these two: Python looks for that where functions are called.
                worker.call = self._backlog[0]
                del self._backlog[0]
            elif self._closing:
                self._remove(worker)
                return False
            else:
                self._idle[worker] = None
        return True

    def _lose(self, worker: Worker, error: BaseException) -> None:
        """Make up for a thread that dies of *error*; called by it."""
        with self._lock:
            self._remove(worker)
        try:
            if worker.call is not None:
                worker.call[1](error)
        finally:
            self._attend()
        log.error("thread_lost", thread=self._name, error=safe_text(error))

    def _add(self, worker: Worker) -> None:
        self._workers.add(worker)
        self._present.add(worker)

    def _remove(self, worker: Worker) -> None:
        self._workers.discard(worker)
        self._present.discard(worker)
        self._idle.pop(worker, None)
