"""The mailbox: whoever sends, messages are handled one at a time, in order, and all."""

import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from threading import RLock
from types import FrameType
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.actors.mailbox import Mailbox


@attrs.frozen
class Note:
    """A message whose handling sends further ones to the same mailbox."""

    label: int
    follow: tuple["Note", ...] = ()


class Box(Mailbox):
    """Writes down what it handles; fails when it is entered twice."""

    __slots__ = ("handled", "inside", "while_handling")

    def __init__(self, lock: Any = None) -> None:
        super().__init__(lock or RLock())
        self.handled: list[Any] = []
        self.inside = False
        self.while_handling: Callable[[Any], object] = lambda message: None

    def receive(self, message: Any) -> None:
        assert not self.inside, "re-entered"
        self.inside = True
        try:
            for note in getattr(message, "follow", ()):
                self.send(note)
            self.while_handling(message)
            self.handled.append(message)
        finally:
            self.inside = False


def in_turn(note: Note) -> list[Note]:
    """Return what comes of a note: itself, then what it sent, in the order sent."""
    order, queue = [], deque([note])
    while queue:
        order.append(queue.popleft())
        queue.extend(order[-1].follow)
    return order


labels = st.integers(0, 9)
notes: st.SearchStrategy[Note] = st.recursive(
    st.builds(Note, labels),
    lambda inner: st.builds(Note, labels, st.lists(inner, max_size=3).map(tuple)),
    max_leaves=8,
)


@pytest.fixture
def hectic() -> Iterator[None]:
    """Make threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@given(st.lists(notes, max_size=5))
def test_a_message_sent_while_handling_one_comes_after_it(sent: list[Note]) -> None:
    """What a handler sends to its own mailbox is handled next, in the order sent."""
    box = Box()
    for note in sent:
        box.send(note)
    assert box.handled == [follower for note in sent for follower in in_turn(note)]


@pytest.mark.usefixtures("hectic")
def test_many_threads_lose_nothing_and_keep_their_order() -> None:
    """Each sender's messages are handled in its order, never two at a time."""

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.lists(notes, max_size=6), min_size=2, max_size=4))
    def check(senders: list[list[Note]]) -> None:
        box, ready = Box(), threading.Barrier(len(senders))

        def send(all_notes: list[Note]) -> None:
            ready.wait()
            for note in all_notes:
                box.send(note)

        threads = [threading.Thread(target=send, args=(s,)) for s in senders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # What one message caused is handled in one go, so the log must fall apart into
        # whole turns, each the next one of some sender.
        log = deque(map(id, box.handled))
        left = [deque(s) for s in senders]
        while log:
            sender = next(s for s in left if s and id(s[0]) == log[0])
            for note in in_turn(sender.popleft()):
                assert log.popleft() == id(note)
        assert not any(left)

    check()


@pytest.mark.usefixtures("hectic")
def test_actors_with_one_lock_share_one_order() -> None:
    """What several mailboxes handle is one sequence, though many threads send."""
    lock, order = RLock(), []
    boxes = [Box(lock) for _ in range(3)]
    for box in boxes:
        box.while_handling = order.append

    def send(thread: int) -> None:
        for number in range(200):
            boxes[number % 3].send((thread, number))

    threads = [threading.Thread(target=send, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(order) == 800
    for i in range(4):
        assert [number for thread, number in order if thread == i] == list(range(200))
    for box in boxes:
        assert box.handled == [message for message in order if message in box.handled]


def test_actors_may_answer_each_other() -> None:
    """A question is handled inside of the asker's turn, the answer right after it."""
    lock, order = RLock(), []
    asker, other = Box(lock), Box(lock)

    def ask(message: str) -> None:
        order.append(message)
        if message == "start":
            other.send("question")
            order.append("end of start")

    def answer(message: str) -> None:
        order.append(message)
        asker.send("answer")

    asker.while_handling, other.while_handling = ask, answer
    asker.send("start")
    assert order == ["start", "question", "end of start", "answer"]


def test_a_sender_in_another_thread_waits_its_turn() -> None:
    """`send` returns when its message has been handled, not when it was taken."""
    box = Box()
    entered, go_on = threading.Event(), threading.Event()
    seen: list[list[Any]] = []

    def hold(message: str) -> None:
        if message == "slow":
            entered.set()
            assert go_on.wait(5)

    def send_second() -> None:
        box.send("second")
        seen.append(list(box.handled))

    box.while_handling = hold
    first = threading.Thread(target=box.send, args=("slow",))
    first.start()
    assert entered.wait(5)
    second = threading.Thread(target=send_second)
    second.start()
    assert not seen
    go_on.set()
    first.join()
    second.join()
    assert seen == [["slow", "second"]]


def test_a_signal_handler_sends_into_the_turn_that_it_interrupted() -> None:
    """A signal in the middle of a turn waits for its end instead of for the lock."""
    box = Box()

    def on_signal(number: int, frame: FrameType | None) -> None:
        assert box.inside
        box.send("from the handler")

    def raise_signal(message: str) -> None:
        if message == "first":
            signal.raise_signal(signal.SIGTERM)

    box.while_handling = raise_signal
    previous = signal.signal(signal.SIGTERM, on_signal)
    try:
        box.send("first")
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert box.handled == ["first", "from the handler"]


def test_a_finalizer_sends_into_the_turn_that_it_interrupted() -> None:
    """An object that dies in the middle of a turn may send from its ``__del__``."""
    box = Box()

    class Dying:
        def __del__(self) -> None:
            box.send("last words")

    held = [Dying()]
    box.while_handling = lambda message: held.clear()
    box.send("first")
    assert box.handled == ["first", "last words"]


def interrupted_at(moment: int) -> tuple[list[str], int]:
    """Send two messages, and a third between two lines of `send`; -1 is never.

    Returns:
        What was handled, and how many such moments there are.
    """
    box, lines = Box(), 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines
        if frame.f_code is not Mailbox.send.__code__:
            return None
        lines += event == "line"
        if lines == moment:
            sys.settrace(None)
            box.send("interruption")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        box.send("first")
        box.send("second")
    finally:
        sys.settrace(before)
    return box.handled, lines


def test_an_interruption_between_any_two_lines_loses_nothing() -> None:
    """Wherever in `send` a signal handler sends, its message is handled by the end."""
    _, moments = interrupted_at(-1)
    assert moments > 5
    for moment in range(1, moments + 1):
        handled, _ = interrupted_at(moment)
        handled.remove("interruption")
        assert handled == ["first", "second"]


def test_an_error_concerns_its_own_message_only() -> None:
    """The sender gets the error; what was queued behind is handled all the same."""
    box = Box()

    def fail_first(message: str) -> None:
        if message == "first":
            box.send("behind")
            raise ZeroDivisionError

    box.while_handling = fail_first
    with pytest.raises(ZeroDivisionError):
        box.send("first")
    assert box.handled == ["behind"]
    box.send("next")
    assert box.handled == ["behind", "next"]


def test_the_queue_costs_nothing_until_it_is_needed() -> None:
    """A mailbox has no queue before somebody sends into a turn."""
    box = Box()
    box.send(Note(1))
    assert box._queue is None
    box.send(Note(2, (Note(3),)))
    assert box._queue is not None
