"""The engine's side of its journal: takes what happens and never waits for a disk.

A subscriber of the broadcast that loses nothing: it keeps what the writer has yet to
write, however much that is, and runs wait before their next step while it is more than
a bufferful.

Everything put here gets a number, its *ticket*. What somebody outside must not learn
before it is on disk (that a body begins, a hook is called, a run has ended) waits for
the ticket to be committed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from engine.actors.broadcast import Buffer, BufferStatistics
from engine.journal.clerk import (
    NOT_FIRST,
    WIDTH,
    Begun,
    Clerk,
    Ended,
    Entry,
    Parked,
    note,
)
from engine.states import RUNNING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.actors.broadcast import Broadcast
    from engine.actors.hook import HookActor
    from engine.actors.lane import Lane, Owed
    from engine.dispatch.base import Wake
    from engine.hooks import HookOutcome
    from engine.journal.exceptions import JournalError
    from engine.runs import Transition

MOST_BUFFERED: Final = 16384
"""Entries that may wait to be written before runs have to."""


class Recorder(Buffer):
    """What the writer has yet to write; all of it is used under the engine's lock.

    Attributes:
        problem: Why the journal cannot be written now; None while it can.
        tickets: The number of the last entry.
        clerk: Makes rows of entries; there once the journal is open.
    """

    __slots__ = (
        "_asleep",
        "_bell",
        "_flushes",
        "_hooks",
        "_lock",
        "clerk",
        "is_closing",
        "problem",
        "tickets",
    )

    clerk: Clerk
    # The fields of entries, see `WIDTH`, where a subscriber's buffer has transitions.
    items: Any

    def __init__(self, broadcast: Broadcast, hooks: HookActor) -> None:
        super().__init__(broadcast, MOST_BUFFERED * WIDTH, "block")
        self.items = []
        self._flushes: deque[tuple[int, Wake]] = deque()
        self._lock = broadcast.lock
        self._hooks = hooks
        self._bell = threading.Semaphore(0)
        self._asleep = False
        self.is_closing = False
        self.problem: JournalError | None = None
        self.tickets = 0

    # What the actors ask.

    def put(self, transition: Transition) -> None:
        """Take a transition together with the hooks that it owes."""
        run = transition.actor
        if self.closed:
            if self.problem is not None and transition.state.type is RUNNING:
                self._hooks.veto(run, self.problem)
            return
        lane = run.lane
        owed: Sequence[Owed] = ()
        if lane is not None or run.parent is None or run.definition.hooks.by_kind:
            # Somebody outside of this process will be told: the caller, or a hook.
            lane = self._hooks.track(run)
            lane.ticket = self.tickets + 1
            if lane.owed:
                owed = [one for one in lane.owed if one.transition is transition]
        noted = NOT_FIRST
        if transition.previous is None:
            noted = note(run)
            if run.definition.kind == "flow":
                run.name  # noqa: B018 - made up when first asked for; now is the time
        self.items += (
            run,
            transition.state,
            transition.sequence,
            time.monotonic(),
            lane,
            owed,
            noted,
        )
        self.tickets += 1
        if self._asleep:
            self._wake()

    def outcome(self, lane: Lane, owed: Owed, outcome: HookOutcome) -> None:
        """Take how a hook ended; the lane's next one waits until that is on disk.

        What was not delivered stays owed: the next recovery does it.
        """
        if not self.closed and outcome.status != "undelivered":
            ended = Ended(lane.run, owed, outcome, lane.is_recovered, time.time())
            lane.gate = self._add(ended, lane)

    def begin(self, lane: Lane, owed: Owed) -> None:
        """Take that a recovery is about to call a hook, which waits for it."""
        if not self.closed:
            self._add(Begun(lane.run, owed), lane)

    def park(self, run: int, sequence: int, position: int, error: str) -> None:
        """Take that a recovery cannot find a hook."""
        with self._lock:
            if not self.closed:
                self._add(Parked(run, sequence, position, error, time.time()))

    def subscribe_written(self, wake: Wake) -> bool:
        """Have *wake* called when everything so far is on disk; False if it is."""
        with self._lock:
            if self.closed or self._hooks.committed >= self.tickets:
                return False
            self._flushes.append((self.tickets, wake))
            return True

    def await_room(self, wake: Wake) -> bool:
        """Have *wake* called when there is room; False if there is."""
        with self._lock:
            # In trouble there is none for long; the run is refused a step further on.
            return self.problem is None and super().await_room(wake)

    def statistics(self) -> BufferStatistics:
        """Return how much is waiting to be written."""
        return BufferStatistics(
            buffered=len(self.items) // WIDTH,
            buffer=MOST_BUFFERED,
            dropped=0,
            overflow="block",
        )

    def close(self) -> None:
        """Nothing: the writer goes on until it is stopped."""

    # What the writer asks.

    def take_batch(self) -> list[Any] | None:
        """Wait for entries and take them; None when there will be no more."""
        while True:
            with self._lock:
                if self.items:
                    taken: list[Any] = self.items
                    self.items = []
                    for _ in range(min(len(self.writers), MOST_BUFFERED)):
                        self.writers.popleft()()
                    return taken
                if self.is_closing:
                    return None
                self._asleep = True
            self._bell.acquire()

    def let_flushed_go(self, committed: float) -> None:
        """Let those go on who wait until a ticket is on disk."""
        with self._lock:
            while self._flushes and self._flushes[0][0] <= committed:
                self._flushes.popleft()[1]()

    def wait_for_end(self, seconds: float) -> None:
        """Wait for a while, or until the engine closes."""
        with self._lock:
            if self.is_closing:
                return
            self._asleep = True
        self._bell.acquire(timeout=seconds)

    def finish(self) -> None:
        """Have the writer end when everything is written."""
        with self._lock:
            self.is_closing = True
            self._wake()

    def abandon(self) -> int:
        """Take nothing more and drop what is left; return how much that was."""
        with self._lock:
            self.closed = True
            left, self.items = len(self.items) // WIDTH, []
            self.let_writers_go()
            self.let_flushed_go(float("inf"))
            return left

    def let_writers_go(self) -> None:
        """Let every run go on that waits for room; with the lock held."""
        while self.writers:
            self.writers.popleft()()

    def was_forked(self) -> None:
        """Take nothing more, and owe nobody anything: this process is a fork."""
        self.closed = True
        self.items = []
        self._hooks.committed = float("inf")

    def _add(self, entry: Entry, lane: Lane | None = None) -> int:
        self.items += (entry, None, None, None, lane, None, None)
        self.tickets += 1
        if self._asleep:
            self._wake()
        return self.tickets

    def _wake(self) -> None:
        self._asleep = False
        self._bell.release()
