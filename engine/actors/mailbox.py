"""The mailbox: whoever sends, one message is handled at a time, in order.

Messages come from the run's own task, from other runs, worker threads, timers, signal
handlers and finalizers. All actors of one engine share a re-entrant lock, which makes
the order in which messages are handled one total order, the one that subscribers see:

* A sender in another thread waits for the lock, never longer than it takes to handle a
  message, and handling one never waits for anything.
* A sender that is itself inside of the handling of this actor's message, such as a
  signal handler that interrupted it, cannot wait. Its message is put into a queue and
  handled right after the current one.

When `send` returns without having queued, the message has been handled. The queue comes
into being only when it is first needed: hardly any run ever needs one.
"""

from __future__ import annotations

from collections import deque
from threading import RLock
from typing import Any

Lock = type(RLock())


class Mailbox:
    """Base of what receives messages one at a time."""

    __slots__ = ("_handling", "_lock", "_queue")

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._handling = False
        self._queue: deque[Any] | None = None

    def send(self, message: Any) -> None:
        """Handle *message*, now or right after the one being handled."""
        with self._lock:
            if self._handling:
                if self._queue is None:
                    self._queue = deque()
                self._queue.append(message)
                return
            failure: BaseException | None = None
            while True:
                self._handling = True
                try:
                    self.receive(message)
                except BaseException as error:
                    failure = error  # what is queued must not wait for the next send
                self._handling = False
                # Not before: what is sent from here on is handled, not queued.
                if not self._queue:
                    break
                message = self._queue.popleft()
        if failure is not None:
            raise failure

    def receive(self, message: Any) -> None:
        """Handle one message; called with the lock held, never re-entered."""
        raise NotImplementedError
