"""The broadcast: one ordered stream of transitions, a buffer for each reader.

Publishing never waits. A reader that falls behind costs the others nothing; what its
full buffer means is its own choice:

* ``block``: nothing is lost. Runs wait before their next step until there is room, so
  the buffer exceeds its size by one transition of each live run at the most. Those of a
  sync body that holds an event loop do not wait: it might be the reader's.
* ``drop_oldest``: the oldest transitions make room, and a `Gap` in their place says how
  many they were.
* ``fail``: the reader is cut off and gets `SubscriberOverflow`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import attrs

from engine.exceptions import SubscriberOverflow
from engine.states import PENDING

if TYPE_CHECKING:
    from engine.actors.run import RunActor
    from engine.runs import Transition
    from engine.states import State, StateType

Overflow = Literal["block", "drop_oldest", "fail"]
Wake = Callable[[], None]
Step = tuple["RunActor", "State[Any] | StateType | None", "State[Any] | StateType"]
"""The run, the state it left, and the one it entered: of one that the run itself can
make, the type alone; see `RunActor.plain_state`."""

Entry = tuple[
    "RunActor", "State[Any] | StateType | None", "State[Any] | StateType", int
]
"""What is published: a step and its number."""


@attrs.frozen
class Gap:
    """Stands for transitions that a slow subscriber did not get.

    Attributes:
        missed: How many they were.
    """

    missed: int


@attrs.frozen(kw_only=True)
class BufferStatistics:
    """How one subscriber is doing.

    Attributes:
        buffered: Transitions waiting to be read.
        buffer: How many may wait.
        dropped: How many were dropped since it subscribed.
        overflow: What happens when the buffer is full.
    """

    buffered: int
    buffer: int
    dropped: int
    overflow: Overflow


class Buffer:
    """One subscriber's part of the broadcast; used under the broadcast's lock.

    It holds what was published as it came; transitions are made for those who read. It
    gets every step, so a step's number follows from its place.

    Attributes:
        needs_loop: Whether its reader may need an event loop to go on.
        keep: What takes what is published, where that is a bare append: a `Step`, or a
            run alone that is new. None where it is `put`. A reader that is behind costs
            the others no more than that, and the memory of what it keeps.
    """

    needs_loop = True

    __slots__ = (
        "_broadcast",
        "_dropped",
        "_end",
        "_next",
        "_reader",
        "closed",
        "error",
        "items",
        "keep",
        "overflow",
        "size",
        "writers",
    )

    def __init__(self, broadcast: Broadcast, size: int, overflow: Overflow) -> None:
        self._broadcast = broadcast
        self.size = size
        self.overflow: Overflow = overflow
        drops = overflow == "drop_oldest"
        self.items: deque[Step | RunActor] = deque(maxlen=size if drops else None)
        self.keep: Callable[[Step | RunActor], object] | None = None
        if overflow != "fail":
            self.keep = self.items.append
        # The sequence number of what is read next, if nothing was dropped before it.
        self._next = broadcast.sequence + 1
        # The number of the last step that it gets; None while it gets more.
        self._end: int | None = None
        self._dropped = 0
        self.closed = False
        self.error: Exception | None = None
        self._reader: Wake | None = None
        self.writers: deque[Wake] = deque()

    def put(self, entry: Entry) -> None:
        """Take what is published, where there is no `keep`."""
        if len(self.items) < self.size:
            self.items.append(entry[:3])
        else:
            self.error = SubscriberOverflow(self.size)
            self.close()

    def take(self) -> Transition | Gap | None:
        """Return the next item, or None when there is none; raise when cut off."""
        with self._broadcast.lock:
            if self.error is not None:
                raise self.error
            if not self.items:
                return None
            missed = self._missed
            if missed:
                self._dropped += missed
                self._next += missed
                return Gap(missed)
            item, sequence = self.items.popleft(), self._next
            self._next += 1
            if self.writers:
                self.pass_turn()
            step = item if isinstance(item, tuple) else (item, None, PENDING)
            return self._broadcast.make(*step, sequence)

    @property
    def _missed(self) -> int:
        """How many transitions were dropped before the next one."""
        if not self.items:
            return 0
        end = self._broadcast.sequence if self._end is None else self._end
        return end - len(self.items) + 1 - self._next

    def await_item(self, wake: Wake) -> bool:
        """Have *wake* called at the next item or at the end; False if there is one."""
        with self._broadcast.lock:
            if self.items or self.closed:
                return False
            self._reader = wake
            self._broadcast.wake_at_next(self)
            return True

    def await_room(self, wake: Wake) -> bool:
        """Have *wake* called when there is room; False if there is."""
        with self._broadcast.lock:
            if self.closed or len(self.items) < self.size:
                return False
            self.writers.append(wake)
            return True

    def forget_writer(self, wake: Wake) -> None:
        """Forget a writer that gave up; one that was woken passes that on."""
        with self._broadcast.lock:
            if wake in self.writers:
                self.writers.remove(wake)
            else:
                self.pass_turn()

    def pass_turn(self) -> None:
        """Let another writer go on in the place of one that was woken and will not."""
        with self._broadcast.lock:
            if self.writers and len(self.items) < self.size:
                self.writers.popleft()()

    def discard(self) -> None:
        """Close, and drop what was not read."""
        with self._broadcast.lock:
            self.close()
            self.items.clear()

    def close(self) -> None:
        """Take nothing more; let everybody who waits go on."""
        with self._broadcast.lock:
            if not self.closed:
                self.closed, self._end = True, self._broadcast.sequence
            self._broadcast.remove(self)
            self.wake_reader()
            while self.writers:
                self.writers.popleft()()

    def statistics(self) -> BufferStatistics:
        """Return how full the buffer is and what it lost."""
        with self._broadcast.lock:
            return BufferStatistics(
                buffered=len(self.items),
                buffer=self.size,
                dropped=self._dropped + self._missed,
                overflow=self.overflow,
            )

    def wake_reader(self) -> None:
        """Let the reader go on, if it waits for an item."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader()


def ignore(_: Transition) -> None:
    """Stand for a hook actor where there is none."""


class Broadcast:
    """One publisher's channel to many readers.

    Attributes:
        sequence: Number of the last transition. Runs count it up themselves, since
            mostly there is nothing else to do.
        keep: What takes a step while nothing but a single reader, who is behind, is to
            be told; see `Buffer.keep`.
        tell: What takes a transition that owes no hook of its run otherwise; None while
            nobody listens.
        blocking: Buffers that runs have to wait for before their next step.
        on_owed: Called for transitions that owe hooks; the hook actor's inbox.
        owes_always: Whether every transition owes a hook, as an engine's own do.
    """

    __slots__ = (
        "_keeps",
        "_puts",
        "_sleepers",
        "blocking",
        "buffers",
        "is_closed",
        "keep",
        "lock",
        "make",
        "on_owed",
        "owes_always",
        "sequence",
        "tell",
    )

    def __init__(
        self, lock: Any, make: Callable[..., Transition], *, owes_always: bool = False
    ) -> None:
        self.lock = lock
        self.make = make
        self.sequence = 0
        self.buffers: tuple[Buffer, ...] = ()
        self._puts: tuple[Callable[[Entry], object], ...] = ()
        self._keeps: tuple[Callable[[Step | RunActor], object], ...] = ()
        self.blocking: tuple[Buffer, ...] = ()
        # Buffers whose readers wait for an item.
        self._sleepers: list[Buffer] = []
        self.on_owed: Callable[[Transition], None] = ignore
        self.owes_always = owes_always
        self.is_closed = False
        self._serve()

    def owe(self, entry: Entry) -> None:
        """Give a transition to the hook actor and to every reader; never waits."""
        self.on_owed(self.make(*entry))
        self._give(entry)

    def _give(self, entry: Entry) -> None:
        for put in self._puts:
            put(entry)
        for keep in self._keeps:
            keep(entry[:3])
        if self._sleepers:
            sleepers, self._sleepers = self._sleepers, []
            for buffer in sleepers:
                buffer.wake_reader()
            self._choose_tell()

    def wake_at_next(self, buffer: Buffer) -> None:
        """Have a buffer's reader woken by the next transition."""
        self._sleepers.append(buffer)
        self._choose_tell()

    def _choose_tell(self) -> None:
        """Choose the least that does for what owes no hook of its run."""
        self.keep: Callable[[Step | RunActor], object] | None = None
        self.tell: Callable[[Entry], object] | None = None
        if self.owes_always:
            self.tell = self.owe
        elif self._sleepers or len(self.buffers) > 1:
            self.tell = self._give
        elif self._puts:
            self.tell = self._puts[0]
        elif self._keeps:
            self.keep = self._keeps[0]

    def subscribe(self, size: int, overflow: Overflow) -> Buffer:
        """Add a reader that sees every transition from now on."""
        buffer = Buffer(self, size, overflow)
        self.attach(buffer)
        return buffer

    def attach(self, buffer: Buffer) -> None:
        """Add a reader made elsewhere, such as one that keeps everything."""
        with self.lock:
            self._serve(*self.buffers, buffer)
            if self.is_closed:
                buffer.close()

    def remove(self, buffer: Buffer) -> None:
        """Forget a reader."""
        self._serve(*(b for b in self.buffers if b is not buffer))

    def _serve(self, *buffers: Buffer) -> None:
        self.buffers = buffers
        self.blocking = tuple(b for b in buffers if b.overflow == "block")
        self._puts = tuple(b.put for b in buffers if b.keep is None)
        self._keeps = tuple(b.keep for b in buffers if b.keep is not None)
        self._choose_tell()

    def close(self) -> None:
        """End every reader's stream after what it has yet to read."""
        self.is_closed = True
        for buffer in self.buffers:
            buffer.close()
