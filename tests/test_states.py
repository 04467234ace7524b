"""States, and every move of the table through a real run actor."""

import dataclasses
import functools
import gc
import json
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support import Way, in_every_way, of_each_kind

from engine import Engine, State, StateType, Transition, states, task
from engine.actors import messages as m
from engine.actors.run import RunActor
from engine.exceptions import CancelledRun, CrashedRun, FailedRun, UnfinishedRun
from engine.placement import create
from engine.states import TERMINAL, TRANSITIONS, aggregate, safe_repr, safe_text

# The whole table, as a reader would want it. A dot is a message that is dropped;
# "own" is the type of the state in the message.
MOVES = """
                 PENDING     RUNNING     SCHEDULED   CANCELLING
Started          RUNNING     .           RUNNING     .
Rejected         FAILED      .           .           .
UpstreamFailed   FAILED      .           .           .
Raised           FAILED      FAILED      .           .
Returned         .           COMPLETED   .           .
Concluded        .           own         .           .
TimedOut         .           FAILED      .           .
Retried          .           RUNNING     .           .
RetryScheduled   .           SCHEDULED   .           .
CancelRequested  CANCELLING  CANCELLING  CANCELLING  .
Stopped          .           .           .           CANCELLED
Lost             CRASHED     CRASHED     CRASHED     CRASHED
"""

ERROR = ValueError("mine")
MESSAGES: dict[str, m.Message] = {
    "Started": m.STARTED,
    "Rejected": m.Rejected(ERROR),
    "UpstreamFailed": m.UpstreamFailed(ERROR),
    "Raised": m.Raised(ERROR),
    "Returned": m.Returned(7),
    "Concluded": m.Concluded(states.Cancelled(message="by hand")),
    "TimedOut": m.TimedOut(3.0),
    "Retried": m.Retried(ERROR),
    "RetryScheduled": m.RetryScheduled(ERROR, 5.0, states.Failed(message="meh")),
    "CancelRequested": m.CancelRequested("user", "enough"),
    "Stopped": m.STOPPED,
    "Lost": m.Lost("worker_lost", "The worker is gone.", ERROR),
}
REQUESTS: dict[str, m.Message] = {
    "DeadlinePassed": m.DeadlinePassed(1),
    "Terminate": m.TERMINATE,
}
# In their order: Scheduled, Pending, Running; then Cancelling, which was asked already.
OPEN = [kind for kind in StateType if kind not in TERMINAL]


def documented_moves() -> dict[tuple[StateType, str], str]:
    """Read the table above."""
    head, *rows = MOVES.strip().splitlines()
    columns = [StateType[name] for name in head.split()]
    return {
        (column, name): target
        for name, *targets in map(str.split, rows)
        for column, target in zip(columns, targets, strict=True)
        if target != "."
    }


@task
def nothing() -> None: ...


class Unstoppable:
    """Stands for a loop whose body goes on in spite of every interruption."""

    can_interrupt = True

    def __init__(self) -> None:
        self.interrupted = 0

    def interrupt(self, run: RunActor) -> None:
        self.interrupted += 1


class Subject:
    """A real run, what it publishes, and a body that ends only when a test says so."""

    def __init__(self, engine: Engine, parent: RunActor | None = None) -> None:
        self.engine = engine
        self.seen: list[Transition] = []
        self.buffer = engine.broadcast.subscribe(10_000, "fail")
        self.run = create(engine, nothing, (), {}, parent=parent, site=1)
        self.body = Unstoppable()

    def begin_body(self) -> None:
        self.run.dispatcher = self.body  # type: ignore[assignment]
        self.run.host = self

    def send(self, *messages: m.Message) -> list[Transition]:
        """Send messages; return the transitions of this run that came of them."""
        self.transitions()
        for message in messages:
            self.run.send(message)
        return self.transitions()

    def transitions(self) -> list[Transition]:
        taken = iter(self.buffer.take, None)
        new = [t for t in taken if isinstance(t, Transition) and t.actor is self.run]
        self.seen += new
        return new

    def go_to(self, kind: StateType) -> None:
        if kind in (StateType.SCHEDULED, StateType.CANCELLING):
            self.begin_body()
        self.send(*WAY_TO[kind])
        assert self.run.state.type is kind


WAY_TO: dict[StateType, list[m.Message]] = {
    StateType.PENDING: [],
    StateType.RUNNING: [m.STARTED],
    StateType.SCHEDULED: [m.STARTED, MESSAGES["RetryScheduled"]],
    StateType.CANCELLING: [m.STARTED, MESSAGES["CancelRequested"]],
    StateType.COMPLETED: [m.STARTED, m.Returned(1)],
    StateType.FAILED: [m.STARTED, m.Raised(ERROR)],
    StateType.CRASHED: [MESSAGES["Lost"]],
    StateType.CANCELLED: [m.CancelRequested("user")],
}


@contextmanager
def entered_engine() -> Iterator[Engine]:
    """Give an engine that does not wait for bodies which nothing can stop."""
    with capture_logs(), Engine(shutdown_grace=0) as engine:
        yield engine
        for handle in reversed(engine.handles()):
            handle._actor.send(MESSAGES["Lost"])


@pytest.fixture
def engine() -> Iterator[Engine]:
    with entered_engine() as engine:
        yield engine


@pytest.fixture
def subject(engine: Engine) -> Subject:
    return Subject(engine)


class TestTheTable:
    def test_it_is_the_documented_one(self) -> None:
        """No move is there that the table above does not show, and none is missing."""
        table = {
            (kind, message.__name__): "own" if target is None else target.name
            for kind, moves in TRANSITIONS.items()
            for message, target in moves.items()
        }
        assert table == documented_moves()

    def test_it_knows_every_state_and_every_message(self) -> None:
        """Nothing can happen to a run that the table, or a request, does not name."""
        assert set(TRANSITIONS) == set(StateType)
        named = {kind.__name__ for kind in m.Message.__subclasses__()}
        assert named == {*MESSAGES, *REQUESTS}

    def test_terminal_states_have_no_moves(self) -> None:
        """Four states are terminal, the others can all be cancelled and lost."""
        assert {kind.name for kind in TERMINAL} == {
            "COMPLETED",
            "FAILED",
            "CRASHED",
            "CANCELLED",
        }
        for kind in OPEN:
            assert m.Lost in TRANSITIONS[kind]
            assert m.CancelRequested in TRANSITIONS[kind] or kind.name == "CANCELLING"


class TestEveryPair:
    @pytest.mark.parametrize("name", MESSAGES)
    @pytest.mark.parametrize("kind", StateType, ids=lambda kind: kind.name)
    def test_a_message_moves_the_run_as_documented_or_changes_nothing(
        self, subject: Subject, kind: StateType, name: str
    ) -> None:
        """Each (state, message) pair arrives where the table says, or is dropped."""
        subject.go_to(kind)
        run, before = subject.run, subject.run.state
        sequence, attempt = subject.engine.broadcast.sequence, run.attempt
        message = MESSAGES[name]
        transitions = subject.send(message)
        target = documented_moves().get((kind, name))
        if target is None:
            assert not transitions
            assert run.state is before
            assert subject.engine.broadcast.sequence == sequence
            assert run.attempt == attempt
        else:
            first = transitions[0]
            assert first.previous is before
            own = isinstance(message, m.Concluded) and message.state.type.name
            assert first.state.type.name == (own if target == "own" else target)
            assert run.attempt - attempt == (target == "RUNNING")

    @pytest.mark.parametrize("name", REQUESTS)
    @pytest.mark.parametrize("kind", StateType, ids=lambda kind: kind.name)
    def test_a_request_is_no_move(
        self, subject: Subject, kind: StateType, name: str
    ) -> None:
        """A deadline and a termination stop a live body; the state waits for it."""
        subject.go_to(kind)
        if kind in OPEN:
            subject.begin_body()
        before = subject.body.interrupted
        assert not subject.send(REQUESTS[name])
        heard = kind in (OPEN[:3] if name == "Terminate" else [StateType.RUNNING])
        assert subject.body.interrupted - before == heard

    @pytest.mark.parametrize("kind", OPEN[:3], ids=lambda kind: kind.name)
    def test_a_termination_crashes_what_has_no_body(
        self, subject: Subject, kind: StateType
    ) -> None:
        """A run that is told to terminate before its body begins has crashed."""
        subject.go_to(kind)
        subject.run.host = None
        (transition,) = subject.send(m.TERMINATE)
        assert transition.state.is_crashed()
        assert transition.state.cause == "terminated"

    def test_the_deadline_of_an_earlier_attempt_is_ignored(
        self, subject: Subject
    ) -> None:
        """A timer that fires too late does not stop the attempt that came after."""
        subject.go_to(StateType.RUNNING)
        subject.begin_body()
        subject.send(m.Retried(ERROR), m.DeadlinePassed(1))
        assert not subject.body.interrupted
        subject.send(m.DeadlinePassed(2))
        assert subject.body.interrupted == 1


class TestMoves:
    """What the states say that the moves arrive in."""

    def test_cancelled_before_the_start(self, subject: Subject) -> None:
        """A run whose body has not begun passes through Cancelling to Cancelled."""
        passed = subject.send(m.CancelRequested("user", "enough"))
        assert [t.state.name for t in passed] == ["Cancelling", "Cancelled"]
        assert {t.state.message for t in passed} == {"enough"}
        assert {t.state.cause for t in passed} == {"user"}
        assert {t.state.attempt for t in passed} == {0}

    def test_cancelled_waits_for_the_body(self, subject: Subject) -> None:
        """A run with a live body is Cancelling until the body has stopped."""
        subject.go_to(StateType.CANCELLING)
        assert subject.body.interrupted == 1
        assert not subject.send(m.CancelRequested("shutdown", "again"))
        (last,) = subject.send(m.STOPPED)
        assert (last.state.name, last.state.cause) == ("Cancelled", "user")
        assert isinstance(last.state.data, CancelledRun)

    def test_cancelled_waits_for_the_children(self, engine: Engine) -> None:
        """A run with a live child is Cancelling until the child is Cancelled."""
        parent = Subject(engine)
        child = Subject(engine, parent.run)
        child.begin_body()
        parent.send(m.STARTED)
        child.send(m.STARTED)
        parent.run.send(m.CancelRequested("user"))
        assert child.run.state.type is StateType.CANCELLING
        assert child.run.state.cause == "parent"
        assert parent.run.state.type is StateType.CANCELLING
        child.run.send(m.STOPPED)
        assert parent.run.state.type is StateType.CANCELLED
        first, second = child.transitions()[-1], parent.transitions()[-1]
        assert first.sequence < second.sequence

    @pytest.mark.parametrize(
        ("cause", "text"),
        [
            ("user", "cancelled through its handle"),
            ("host", "the task or scope that ran it was cancelled"),
            ("parent", "its parent run stopped"),
            ("sibling", "another run of the same fan-out failed"),
            ("shutdown", "the engine is shutting down"),
        ],
    )
    def test_each_cause_has_a_sentence(
        self, subject: Subject, cause: m.Cause, text: str
    ) -> None:
        """Without a reason the message says who asked."""
        subject.send(m.CancelRequested(cause))
        assert subject.run.state.message == text
        assert subject.run.state.cause == cause

    def test_a_retry_with_a_delay(self, subject: Subject) -> None:
        """AwaitingRetry carries the failure and the time of the next attempt."""
        subject.send(m.STARTED, MESSAGES["RetryScheduled"])
        awaiting = subject.run.state
        assert (awaiting.name, awaiting.data) == ("AwaitingRetry", ERROR)
        assert awaiting.scheduled_time == awaiting.timestamp + timedelta(seconds=5)
        subject.send(m.STARTED)
        assert (subject.run.state.name, subject.run.attempt) == ("Retrying", 2)

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("Raised", "Task run encountered an exception: ValueError: mine"),
            ("Rejected", "The arguments were refused: ValueError: mine"),
            ("UpstreamFailed", "An upstream run did not complete: ValueError: mine"),
            ("TimedOut", "Task run exceeded timeout of 3 second(s)"),
            ("Lost", "The worker is gone."),
            ("Retried", "ValueError: mine"),
        ],
    )
    def test_messages_say_what_happened(
        self, subject: Subject, name: str, text: str
    ) -> None:
        """The state's message is a sentence with the error in it."""
        if name not in ("Rejected", "UpstreamFailed"):
            subject.send(m.STARTED)
        subject.send(MESSAGES[name])
        assert subject.run.state.message == text

    @pytest.mark.parametrize(
        "given",
        [
            states.Completed(data=1, message="as I say"),
            states.Failed(name="Odd", data=ERROR),
            states.Crashed(message="boom", cause="mine"),
            states.Cancelled(),
            states.Completed(name="Running", data=1),
        ],
        ids=str,
    )
    def test_a_conclusion_is_taken_as_it_is(
        self, subject: Subject, given: State[Any]
    ) -> None:
        """The state a body returns decides the run's own, which knows its run."""
        subject.send(m.STARTED, m.Concluded(given))
        taken = subject.run.state
        for field in ("type", "name", "message", "data", "cause"):
            assert getattr(taken, field) == getattr(given, field)
        assert (taken.run_id, taken.attempt) == (subject.run.id, 1)

    def test_timestamps_increase_when_the_clock_does_not(
        self, subject: Subject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A clock that stands still, or is set back, does not disorder the states."""
        now = subject.run.created
        # Often enough for every way to round to a microsecond.
        times = iter([*[now] * 500, now - 1000.0])
        monkeypatch.setattr("engine.actors.run.time.time", lambda: next(times))
        subject.send(m.STARTED, *[m.Retried(ERROR)] * 499, m.Returned(1))
        stamps = [t.timestamp for t in subject.seen]
        assert len(stamps) == 502
        assert stamps == sorted(set(stamps))


messages = st.sampled_from([*MESSAGES.values(), *REQUESTS.values()])


@given(has_body=st.booleans(), sent=st.lists(messages, max_size=12))
def test_any_sequence_of_messages_makes_a_legal_history(
    has_body: bool, sent: list[m.Message]
) -> None:
    """Whatever arrives in whatever order, transitions follow the table, unbroken."""
    with entered_engine() as engine:
        subject = Subject(engine)
        if has_body:
            subject.begin_body()
        for message in sent:
            subject.send(message)
    subject.transitions()
    seen, run = subject.seen, subject.run
    assert run.state.type in TERMINAL
    assert run not in engine.live
    assert seen[0].previous is None
    assert seen[0].state.type is StateType.PENDING
    for before, after in pairwise(seen):
        assert after.previous is before.state
        assert after.sequence == before.sequence + 1
        assert after.timestamp > before.timestamp
        reachable = TRANSITIONS[before.state.type].values()
        assert after.state.type in reachable or None in reachable
    assert [t.state.is_final() for t in seen].index(True) == len(seen) - 1
    assert run.attempt == sum(t.state.is_running() for t in seen)


FACTORIES = {
    states.Scheduled: ("SCHEDULED", "Scheduled"),
    states.AwaitingRetry: ("SCHEDULED", "AwaitingRetry"),
    states.Pending: ("PENDING", "Pending"),
    states.Running: ("RUNNING", "Running"),
    states.Retrying: ("RUNNING", "Retrying"),
    states.Cancelling: ("CANCELLING", "Cancelling"),
    states.Completed: ("COMPLETED", "Completed"),
    states.Failed: ("FAILED", "Failed"),
    states.TimedOut: ("FAILED", "TimedOut"),
    states.NotReady: ("FAILED", "NotReady"),
    states.Crashed: ("CRASHED", "Crashed"),
    states.Cancelled: ("CANCELLED", "Cancelled"),
}


class TestStateTypes:
    @pytest.mark.parametrize("kind", StateType, ids=str)
    def test_each_equals_its_name(self, kind: StateType) -> None:
        """Code that compares types with strings, as Prefect's users do, is right."""
        assert State(kind).type == kind.name
        assert State(kind).type in {kind.name}
        assert State(kind.name).type is kind
        assert json.dumps(kind) == f'"{kind.name}"'
        assert pickle.loads(pickle.dumps(kind)) is kind

    @pytest.mark.parametrize("wrong", ["Completed", "", None, 7])
    def test_what_is_none_is_refused(self, wrong: Any) -> None:
        """The error tells what there is to choose from."""
        with pytest.raises(ValueError, match="use one of SCHEDULED, PENDING") as caught:
            State(wrong)
        assert f"no state type {wrong!r}" in str(caught.value)


class TestStates:
    @pytest.mark.parametrize("make", FACTORIES, ids=lambda make: make.__name__)
    def test_factories_give_type_and_name(self, make: Callable[..., Any]) -> None:
        """Each factory makes the state it is called after, with the fields given."""
        state = make(message="hm", cause="mine", attempt=2)
        assert (state.type.name, state.name) == FACTORIES[make]
        assert (state.message, state.cause, state.attempt) == ("hm", "mine", 2)
        assert state.run_id is None

    @pytest.mark.parametrize("kind", StateType, ids=lambda kind: kind.name)
    def test_exactly_one_question_is_answered_yes(self, kind: StateType) -> None:
        """Of the ``is_…()`` methods the type's own is true, beside `is_final`."""
        state = State(kind)
        answers = {
            name: getattr(state, f"is_{name.lower()}")()
            for name in StateType.__members__
        }
        assert [name for name, answer in answers.items() if answer] == [kind.name]
        assert state.is_final() == (kind in TERMINAL)

    def test_times_are_utc(self) -> None:
        """Timestamps and scheduled times are aware, and the default is now."""
        before = datetime.now(UTC)
        state = states.Scheduled()
        assert before <= state.timestamp <= datetime.now(UTC)
        assert before <= state.scheduled_time <= datetime.now(UTC)  # type: ignore[operator]
        noon = datetime(2030, 1, 2, 12, tzinfo=UTC)
        assert states.AwaitingRetry(scheduled_time=noon).scheduled_time == noon
        assert states.Running().scheduled_time is None

    @pytest.mark.parametrize(
        ("state", "text"),
        [
            (states.Completed(), "Completed()"),
            (states.Completed(message="done"), "Completed('done')"),
            (states.TimedOut(message="3 s"), "TimedOut('3 s', type=FAILED)"),
            (states.Retrying(), "Retrying(type=RUNNING)"),
            (states.Failed(name="failed"), "failed()"),
        ],
        ids=str,
    )
    def test_str_is_short(self, state: State[Any], text: str) -> None:
        """Text has the name, the message if any, and the type where it differs."""
        assert str(state) == text

    def test_repr_is_complete(self) -> None:
        """The representation has name, message, type and result."""
        state = states.Completed(message="done", data=[1])
        assert repr(state) == "Completed(message='done', type=COMPLETED, result=[1])"


class TestResult:
    def test_a_completed_state_gives_its_data(self) -> None:
        """The data is the result, even when it is an exception or None."""
        for value in (1, None, ERROR):
            assert states.Completed(data=value).result() is value

    @pytest.mark.parametrize(
        "make", [states.Pending, states.Running, states.Scheduled, states.Cancelling]
    )
    def test_an_unfinished_state_has_none(self, make: Callable[..., Any]) -> None:
        """Asking too early raises, whatever *raise_on_failure* says."""
        with pytest.raises(UnfinishedRun, match=f"the run is {make.__name__}"):
            make().result()
        with pytest.raises(UnfinishedRun):
            make().result(raise_on_failure=False)

    @pytest.mark.parametrize("make", [states.Failed, states.Cancelled])
    def test_the_exception_is_the_one_that_was_raised(
        self, make: Callable[..., Any]
    ) -> None:
        """The very object is raised, or returned when it is not to be raised."""
        error = ValueError("mine")
        with pytest.raises(ValueError, match="mine") as caught:
            make(data=error).result()
        assert caught.value is error
        assert make(data=error).result(raise_on_failure=False) is error

    def test_a_crash_is_wrapped(self) -> None:
        """A crashed state never raises a bare SystemExit, but has it as the cause."""
        error = SystemExit(3)
        with pytest.raises(CrashedRun, match="bye") as caught:
            states.Crashed(message="bye", data=error).result()
        assert caught.value.__cause__ is error

    @pytest.mark.parametrize(
        ("state", "kind", "text"),
        [
            (states.Failed(), FailedRun, "the run failed"),
            (states.Failed(message="meh"), FailedRun, "meh"),
            (states.Failed(data="text"), FailedRun, "text"),
            (states.Failed(data=object(), message="meh"), FailedRun, "meh"),
            (states.Cancelled(), CancelledRun, "the run was cancelled"),
            (states.Cancelled(message="bye"), CancelledRun, "bye"),
            (states.Crashed(), CrashedRun, "the run crashed"),
            (states.Failed(data=states.Failed(data="in")), FailedRun, "in"),
            (states.Failed(data=states.Crashed(message="in")), CrashedRun, "in"),
            (
                states.Failed(data=[states.Completed(), states.Failed(data="2nd")]),
                FailedRun,
                "2nd",
            ),
        ],
    )
    def test_without_an_exception_one_is_made(
        self, state: State[Any], kind: type[Exception], text: str
    ) -> None:
        """Texts, nested states and collections of states stand for their errors."""
        error = state.result(raise_on_failure=False)
        assert type(error) is kind
        assert str(error) == text

    def test_raising_leaves_no_cycle(self) -> None:
        """The traceback of the raised error does not refer back to the state."""
        error = Unpicklable()
        state, ref = states.Failed(data=error), weakref.ref(error)
        gc.disable()
        try:
            with suppress(Unpicklable):
                state.result()
            del error, state
            assert ref() is None
        finally:
            gc.enable()


DONE, LEFT = states.Completed(), states.Running()
BAD, DEAD, GONE = states.Failed(), states.Crashed(), states.Cancelled()


class TestAggregate:
    @pytest.mark.parametrize(
        ("given", "name", "message"),
        [
            ([DONE], "Completed", "All states completed."),
            ([DONE, DONE], "Completed", "All states completed."),
            ([DONE, BAD, DEAD], "Failed", "2/3 states failed."),
            ([BAD, GONE, DONE], "Cancelled", "1/3 states cancelled."),
            ([DONE, LEFT], "Failed", "1/2 states are not final."),
            ([BAD, LEFT], "Failed", "1/2 states failed."),
            ([GONE, LEFT], "Cancelled", "1/2 states cancelled."),
        ],
    )
    def test_the_worst_decides(
        self, given: list[State[Any]], name: str, message: str
    ) -> None:
        """Cancelled outweighs failed, which outweighs unfinished, then completed."""
        judged = aggregate(given, given)
        assert (judged.name, judged.message) == (name, message)

    @given(st.lists(st.sampled_from([DONE, LEFT, BAD, DEAD, GONE]), min_size=1))
    def test_the_order_does_not_matter(self, given: list[State[Any]]) -> None:
        """A collection is judged alike in any order, and always as final."""
        judged, reverse = aggregate(given, given), aggregate(given[::-1], given)
        assert (judged.type, judged.message) == (reverse.type, reverse.message)
        assert judged.is_final()
        assert judged.is_completed() == all(s is DONE for s in given)


class Mute(Exception):
    """Has neither a text nor a representation."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Abort(BaseException):
    """Is caught by nobody who catches exceptions."""


class Fatal(Exception):
    """Takes whoever wants to read it along."""

    def __str__(self) -> str:
        raise Abort

    __repr__ = __str__


class Falsy(Exception):
    """Cannot be tested for truth."""

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


class Incomparable(Exception):
    """Equals nothing and has no hash."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]


class Untouchable(Exception):
    """Takes no attributes, its own traceback included."""

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(name)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """As people write exceptions who like dataclasses."""

    code: int = 5


class Unpicklable(Exception):
    """Holds what cannot leave the process."""

    def __init__(self) -> None:
        super().__init__(threading.Lock())


ODD: dict[str, Callable[[], Exception]] = {
    "mute": Mute,
    "fatal": Fatal,
    "falsy": Falsy,
    "incomparable": Incomparable,
    "untouchable": Untouchable,
    "frozen": Frozen,
    "unpicklable": Unpicklable,
    "group": lambda: ExceptionGroup("", [ValueError(), ExceptionGroup("", [Mute()])]),
    "without text": ValueError,
    "bytes": lambda: ValueError(b"\xff", "\udc80"),
}


def real_state(way: Way, fn: Any) -> State[Any]:
    """Return the terminal state of a run by the real clock, for hooks in threads."""
    call = functools.partial(fn, return_state=True)
    return anyio.run(call, backend=way.name) if way.is_async else call()


class TestOddExceptions:
    """Whatever a body raises is the state's data, and raised to the caller."""

    @in_every_way
    @of_each_kind
    @pytest.mark.parametrize("name", ODD)
    def test_they_survive_as_data(self, way: Way, kind: str, name: str) -> None:
        """The state holds the object itself, and has a text all the same."""
        error = ODD[name]()

        def fail() -> None:
            raise error

        def hook(definition: Any, run: Any, state: Any) -> None:
            raise error

        odd = getattr(way, kind)(fail, retries=1, on_failure=[hook, hook])
        with capture_logs() as logs:
            state = real_state(way, odd)
        assert state.type is StateType.FAILED
        assert state.attempt == 2
        # Not in the assertion itself: pytest would show the objects if it failed.
        is_same = state.data is error is state.result(raise_on_failure=False)
        assert is_same
        assert type(error).__name__ in state.message
        assert type(error).__name__ in str(state)
        assert repr(state).startswith("Failed(message=")
        assert [line["event"] for line in logs] == ["hook_failed"] * 2

    @in_every_way
    @pytest.mark.parametrize("name", ODD)
    def test_they_reach_the_caller(self, way: Way, name: str) -> None:
        """The caller catches the very object."""
        error = ODD[name]()

        def fail() -> None:
            raise error

        inner = way.task(fail)

        # Compared inside of the loop, which would show some of them and not survive it.
        def catch_plain() -> bool:
            try:
                inner()
            except Exception as caught:
                return caught is error
            return False

        async def catch() -> bool:
            try:
                await inner()
            except Exception as caught:
                return caught is error
            return False

        assert way.call(catch if way.is_async else catch_plain)

    def test_one_that_does_not_pickle_is_whole(self) -> None:
        """Nothing on the way of an exception to its state tries to copy it."""
        error = Unpicklable()
        with pytest.raises(TypeError):
            pickle.dumps(error)
        with Engine() as engine:
            handle = engine.start(task(raising(error)))
            assert handle.wait().data is error

    @pytest.mark.parametrize("error", [Mute(), Fatal()], ids=["mute", "fatal"])
    def test_texts_are_made_up_where_there_are_none(self, error: Exception) -> None:
        """A broken ``__str__`` or ``__repr__`` is replaced by a remark."""
        name = type(error).__name__
        assert safe_text(error) == f"{name}: <no text: its __str__ failed>"
        assert safe_repr(error) == f"<{name}: its __repr__ failed>"
        assert "its __repr__ failed" in repr(states.Completed(data=error))

    def test_text_without_text_is_the_name(self) -> None:
        """An exception without arguments is called by its type alone."""
        assert safe_text(ValueError()) == "ValueError"
        assert safe_text(ValueError("x")) == "ValueError: x"

    @in_every_way
    def test_a_result_may_be_odd(self, way: Way) -> None:
        """A value that can be neither shown nor compared is a result like any other."""
        value = Falsy(), Mute(), Incomparable()
        give = way.task(lambda: value)

        def compare_plain() -> bool:
            return give() is value is give(return_state=True).data

        async def compare() -> bool:
            state = await give(return_state=True)
            return await give() is value is state.data

        assert way.call(compare if way.is_async else compare_plain)


def raising(error: BaseException) -> Callable[[], None]:
    """Return a function that raises *error*."""

    def fail() -> None:
        raise error

    return fail


def test_messages_show_their_fields() -> None:
    """A message's representation names what it carries."""
    assert repr(m.Returned(7)) == "Returned(value=7)"
    assert repr(m.CancelRequested("user")) == (
        "CancelRequested(cause='user', reason=None)"
    )
    assert repr(m.STARTED) == "Started()"


class TestMadeWhenSomebodyLooks:
    """Of most states a run keeps the type, and what else they say as its own."""

    @staticmethod
    async def ended() -> tuple[list[Any], list[Transition]]:
        """Return the handles of a run that completed and one cancelled, and steps."""

        @task
        async def body(value: object) -> object:
            if value is None:
                await anyio.sleep_forever()
            return value

        steps: list[Transition] = []
        async with Engine(on_transition=[steps.append]) as engine:
            handles = [engine.start(body, value) for value in ("kept", None)]
            await handles[0]
            handles[1].cancel("enough")
            await handles[1].join()
        return handles, steps

    @pytest.mark.anyio
    async def test_everybody_sees_the_same(self) -> None:
        """Whoever looks first, and however late: also what it was and said before."""
        handles, steps = await self.ended()
        for handle in handles:
            seen = [one for one in steps if one.run.id == handle.id]
            for before, after in pairwise(seen):
                assert after.previous is before.state
                assert before.state.timestamp < after.state.timestamp
            assert seen[-1].state is handle.state
            assert [one.state.attempt for one in seen] == [0, *[1] * (len(seen) - 1)]
        completed, cancelled = (handle.state for handle in handles)
        assert (completed.data, completed.message, completed.cause) == (
            "kept",
            None,
            None,
        )
        cancelling = [one.state for one in steps if one.state.is_cancelling()]
        assert [(one.message, one.cause) for one in (*cancelling, cancelled)] == [
            ("enough", "user")
        ] * 2
        with pytest.raises(CancelledRun, match="was cancelled: enough") as caught:
            await handles[1]
        assert caught.value is cancelled.data

    @pytest.mark.anyio
    async def test_what_nobody_looks_at_is_not_made(self) -> None:
        """Neither while a run goes on nor for what is kept of it."""
        member = task(anyio.sleep_forever)
        async with Engine() as engine:
            handles = [engine.start(member) for _ in range(3)]
            handles += [engine.start(task(anyio.lowlevel.checkpoint))]
            await handles[-1]
            for handle in handles:
                handle.cancel()
        assert [record.state_name for record in engine.runs()] == [
            "Completed", *["Cancelled"] * 3
        ]  # fmt: skip
        ids = {handle.id for handle in handles}
        made = [one for one in gc.get_objects() if type(one) is State]
        assert not [state for state in made if state.run_id in ids]
        assert {handle.state.name for handle in handles} == {"Cancelled", "Completed"}
