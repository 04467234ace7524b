"""The broadcast: one ordered stream of transitions, a buffer for each reader.

Publishing never waits. A reader that falls behind costs the others nothing; what its
full buffer means is its own choice:

* ``block``: nothing is lost. Runs wait before their next step until there is room, so
  the buffer exceeds its size by one transition of each live run at the most.
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

if TYPE_CHECKING:
    from engine.actors.run import RunActor
    from engine.runs import Transition
    from engine.states import State

Overflow = Literal["block", "drop_oldest", "fail"]
Wake = Callable[[], None]


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
    """One subscriber's part of the broadcast; used under the broadcast's lock."""

    __slots__ = (
        "_broadcast",
        "closed",
        "dropped",
        "error",
        "gap",
        "items",
        "overflow",
        "reader",
        "size",
        "writers",
    )

    def __init__(self, broadcast: Broadcast, size: int, overflow: Overflow) -> None:
        self._broadcast = broadcast
        self.size = size
        self.overflow: Overflow = overflow
        self.items: deque[Transition] = deque()
        self.gap = 0
        self.dropped = 0
        self.closed = False
        self.error: Exception | None = None
        self.reader: Wake | None = None
        self.writers: deque[Wake] = deque()

    def put(self, transition: Transition) -> None:
        """Take a transition, as the overflow rule says."""
        items = self.items
        if len(items) >= self.size:
            if self.overflow == "drop_oldest":
                items.popleft()
                self.gap += 1
                self.dropped += 1
            elif self.overflow == "fail":
                self.error = SubscriberOverflow(self.size)
                self.close()
                return
        items.append(transition)
        if self.reader is not None:
            self._wake_reader()

    def take(self) -> Transition | Gap | None:
        """Return the next item, or None when there is none; raise when cut off."""
        with self._broadcast.lock:
            if self.error is not None:
                raise self.error
            if self.gap:
                gap, self.gap = Gap(self.gap), 0
                return gap
            if not self.items:
                return None
            item = self.items.popleft()
            self.pass_turn()
            return item

    def await_item(self, wake: Wake) -> bool:
        """Have *wake* called at the next item or at the end; False if there is one."""
        with self._broadcast.lock:
            if self.items or self.gap or self.closed:
                return False
            self.reader = wake
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
            self.closed = True
            self._broadcast.remove(self)
            self._wake_reader()
            while self.writers:
                self.writers.popleft()()

    def statistics(self) -> BufferStatistics:
        """Return how full the buffer is and what it lost."""
        return BufferStatistics(
            buffered=len(self.items),
            buffer=self.size,
            dropped=self.dropped,
            overflow=self.overflow,
        )

    def _wake_reader(self) -> None:
        reader, self.reader = self.reader, None
        if reader is not None:
            reader()


class Broadcast:
    """One publisher's channel to many readers.

    Attributes:
        sequence: Number of the last transition; counts all that were published.
        blocking: Buffers that runs have to wait for before their next step.
        on_owed: Called for transitions of runs that have hooks; the hook actor's inbox.
        owes_always: Whether every transition owes a hook, as an engine's own do.
    """

    __slots__ = (
        "blocking",
        "buffers",
        "is_closed",
        "lock",
        "make",
        "on_owed",
        "owes_always",
        "sequence",
    )

    def __init__(self, lock: Any, make: Callable[..., Transition]) -> None:
        self.lock = lock
        self.make = make
        self.sequence = 0
        self.buffers: tuple[Buffer, ...] = ()
        self.blocking: tuple[Buffer, ...] = ()
        self.on_owed: Callable[[Transition], None] | None = None
        self.owes_always = False
        self.is_closed = False

    def publish(
        self, run: RunActor, previous: State[Any] | None, state: State[Any]
    ) -> None:
        """Number a transition and give it to every reader; never waits."""
        self.sequence += 1
        owed = self.owes_always or run.definition.hooks.by_kind
        if not owed and not self.buffers:
            return
        transition = self.make(run, previous, state, self.sequence)
        if owed and self.on_owed is not None:
            self.on_owed(transition)
        for buffer in self.buffers:
            buffer.put(transition)

    def subscribe(self, size: int, overflow: Overflow) -> Buffer:
        """Add a reader that sees every transition from now on."""
        buffer = Buffer(self, size, overflow)
        self.attach(buffer)
        return buffer

    def attach(self, buffer: Buffer) -> None:
        """Add a reader made elsewhere, such as one that keeps everything."""
        with self.lock:
            self.buffers = (*self.buffers, buffer)
            if buffer.overflow == "block":
                self.blocking = (*self.blocking, buffer)
            if self.is_closed:
                buffer.close()

    def remove(self, buffer: Buffer) -> None:
        """Forget a reader."""
        self.buffers = tuple(b for b in self.buffers if b is not buffer)
        self.blocking = tuple(b for b in self.blocking if b is not buffer)

    def close(self) -> None:
        """End every reader's stream after what it has yet to read."""
        self.is_closed = True
        for buffer in self.buffers:
            buffer.close()
