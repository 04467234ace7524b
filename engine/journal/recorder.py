"""The engine's side of its journal: takes what happens and never waits for a disk.

A subscriber of the broadcast that loses nothing: it fills the page that the writer
will take next, however long that gets, and runs wait before their next step while it
has more than a bufferful.

What somebody outside must not learn before it is on disk (that a body begins, a hook is
called, a run has ended) waits for its page's commit.
"""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from engine.actors.broadcast import Buffer, BufferStatistics
from engine.actors.lane import Lane
from engine.journal.entries import WHEN, Begun, Ended, Page, Parked, note
from engine.states import COMPLETED, RUNNING, TERMINAL

if TYPE_CHECKING:
    from engine.actors.broadcast import Broadcast
    from engine.actors.hook import HookActor
    from engine.actors.lane import Owed
    from engine.actors.run import RunActor
    from engine.dispatch.base import Wake
    from engine.hooks import HookOutcome
    from engine.journal.clerk import Clerk
    from engine.journal.exceptions import JournalError
    from engine.states import StateType

MOST_BUFFERED: Final = 65_536
"""Steps, of two hundred bytes, that may wait to be written before runs have to. So many
because a busy loop seldom leaves the writer the interpreter's lock, and each run that
waits for room costs more than it takes to write its steps."""

MOST_BEGUN: Final = MOST_BUFFERED // 2
"""Runs that may begin meanwhile: nearly all of them make two steps from then on."""


class Recorder(Buffer):
    """What the writer has yet to write; all of it is used under the engine's lock.

    Attributes:
        problem: Why the journal cannot be written now; None while it can.
        in_hand: The page that the writer is writing; None while it has none.
        written: How many entries are on disk.
        closing: Set when the engine closes.
        clerk: Makes rows of pages; there once the journal is open.
    """

    needs_loop = False

    __slots__ = (
        "_asleep",
        "_bell",
        "_hooks",
        "_let",
        "_lock",
        "_page",
        "clerk",
        "closing",
        "in_hand",
        "problem",
        "written",
    )

    clerk: Clerk
    # Where a subscriber's buffer has transitions: the page's steps of runs that have
    # begun, since that is what they wait with when there is no room.
    items: Any

    def __init__(self, broadcast: Broadcast, hooks: HookActor) -> None:
        super().__init__(broadcast, MOST_BEGUN * len(WHEN), "block")
        self.keep = None
        self._lock = broadcast.lock
        self._hooks = hooks
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._asleep = False
        self.closing = threading.Event()
        self.problem: JournalError | None = None
        self.in_hand: Page | None = None
        self.written = 0
        self._begin_page()

    # What the actors ask.

    def put(self, entry: Any) -> None:
        """Take a step of a run together with the hooks that it owes."""
        run, previous, state, sequence = entry
        page = self._page
        if self.closed:
            self._lose(run, run.state_type)
            return
        if previous is None:
            self._note_run(run, sequence)
        elif state is RUNNING:  # the type alone, so it is the first attempt
            page.begun += (run.id, sequence, run.entered, run.clock_started)
            if run.definition.options.run_name is not None:
                page.named += (run.id, run.name)
        elif state is COMPLETED and run.attempt == 1:  # likewise
            page.completed += (run.id, sequence, run.entered, monotonic())
        else:
            self._note_step(run, sequence)
        if run.lane is not None or run.definition.hooks.by_kind:
            self._hold_back(run, sequence)
        if self._asleep:
            self._wake()
        elif self.writers:
            self._let_in()

    def outcome(self, lane: Lane, owed: Owed, outcome: HookOutcome) -> None:
        """Take how a hook ended; the lane's next one waits until that is on disk.

        What was not delivered stays owed: the next recovery does it.
        """
        if not self.closed and outcome.status != "undelivered":
            ended = Ended(lane.run, owed, outcome, lane.run.is_lost, time.time())
            self._add(ended, lane)
            lane.gate = self._page.commit

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
            if self.closed:
                return False
            last = self._page if len(self._page) else self.in_hand
            if last is None:
                return False
            last.wakes.append(wake)
            return True

    def await_room(self, wake: Wake) -> bool:
        """Have *wake* called when there is room; False if there is."""
        with self._lock:
            # In trouble there is none for long; the run is refused a step further on.
            return self.problem is None and super().await_room(wake)

    def statistics(self) -> BufferStatistics:
        """Return how much is waiting to be written."""
        return BufferStatistics(
            buffered=self.waiting, buffer=MOST_BUFFERED, dropped=0, overflow="block"
        )

    @property
    def waiting(self) -> int:
        """How many entries are not on disk yet."""
        in_hand = self.in_hand
        return len(self._page) + (0 if in_hand is None else len(in_hand))

    def close(self) -> None:
        """Nothing: the writer goes on until it is stopped."""

    # What the writer asks.

    def take_page(self) -> Page | None:
        """Wait for entries and take them; None when there will be no more."""
        while True:
            with self._lock:
                page = self._page
                if len(page):
                    self.in_hand = page
                    self._begin_page()
                    # One is woken here and lets the others in from its own thread:
                    # waking a loop from another one costs ten times as much.
                    self.pass_turn()
                    return page
                if self.closing.is_set():
                    return None
                self._asleep = True
            self._bell.get()

    def turn_page(self) -> Page:
        """Note that the page in hand is on disk, and let those go who waited for it."""
        with self._lock:
            page, self.in_hand = self.in_hand, None
            assert page is not None
            self.written += len(page)
            page.finish()
            return page

    def finish(self) -> None:
        """Have the writer end when everything is written."""
        with self._lock:
            self.closing.set()
            self._wake()

    def abandon(self, error: JournalError) -> int:
        """Take nothing more and drop what is left; return how much that was.

        The hooks are closed with it: one that is called although the outcome of the one
        before was not kept would be called again, and so would that.
        """
        with self._lock:
            self.closed = True
            left = self.waiting
            self._drop(error)
            self._hooks.close(error)
            self.let_writers_go()
            return left

    def let_writers_go(self) -> None:
        """Let every run go on that waits for room; with the lock held."""
        while self.writers:
            self.writers.popleft()()

    def was_forked(self) -> None:
        """Take nothing more, and owe nobody anything: this process is a fork."""
        self.closed = True
        self._drop()

    def _drop(self, error: JournalError | None = None) -> None:
        for page in filter(None, (self.in_hand, self._page)):
            page.finish(error)
        self.in_hand = None
        self._begin_page()
        self._page.finish(error)

    def _lose(self, run: RunActor, kind: StateType) -> None:
        """Have a run fail that begins, and tell the caller of one that ends."""
        if self.problem is None:
            return  # a fork, or the engine's end
        if kind is RUNNING:
            self._hooks.veto(run, self.problem)
        elif kind in TERMINAL and run.lineage is None:
            if run.lane is None:
                run.lane = Lane(run)
            run.lane.step = self._page.commit

    def _begin_page(self) -> None:
        self._page = Page()
        self.items = self._page.begun
        self._let = 0

    def _note_run(self, run: RunActor, sequence: int) -> None:
        definition = run.definition
        # A flow's name is made up when it is first asked for; now is the time.
        name = run.name if definition.kind == "flow" else run._name
        self._page.made += (
            run.id,
            sequence,
            run.created,
            monotonic(),
            name,
            definition,
            run.lineage,
            run.tags,
            note(run),
        )
        if run.parent is None:
            self._hooks.track(run)  # from now on it has a lane

    def _note_step(self, run: RunActor, sequence: int) -> None:
        name, message, cause = run.words
        self._page.told += (
            run.id,
            sequence,
            run.state_type.value,
            name,
            message,
            cause,
            run.attempt,
            run.entered,
            monotonic(),
        )

    def _hold_back(self, run: RunActor, sequence: int) -> None:
        """Have a run wait for its step to be on disk: somebody outside will be told.

        That is the caller of a run without a parent, or a hook.
        """
        page = self._page
        lane = self._hooks.track(run)
        lane.step = page.commit
        page.lanes[lane] = None
        for owed in lane.owed:
            if owed.transition.sequence == sequence and owed.position >= 0:
                page.owed += (run, owed)

    def _let_in(self) -> None:
        """Let as many runs go on as there is room for."""
        # Those let in before may not have begun yet.
        taken = max(len(self.items) // len(WHEN), self._let)
        for _ in range(min(self.size // len(WHEN) - taken, len(self.writers))):
            self._let += 1
            self.writers.popleft()()

    def _add(self, entry: Ended | Begun | Parked, lane: Lane | None = None) -> None:
        self._page.hooks.append(entry)
        if lane is not None:
            self._page.lanes[lane] = None
        if self._asleep:
            self._wake()

    def _wake(self) -> None:
        self._asleep = False
        self._bell.put(None)
