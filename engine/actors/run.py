"""The run actor: owns one run's state, and is the only one that assigns it.

Everything that happens to a run is a message. Handling one looks the (state, message)
pair up in the transition table, makes the new state, and publishes the transition; it
never waits and never calls user code.

A run ends in two steps. Its *verdict* is settled when the body is over, or given up
because it is a blocked sync body; the terminal state follows when no child is left, so
that a child's end always comes before its parent's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from engine.actors import messages as m
from engine.actors.family import Kin
from engine.context import IN_HOOK, bound_context
from engine.exceptions import CancelledRun
from engine.hooks import outcomes_of
from engine.ids import two_words
from engine.states import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    CRASHED,
    FAILED,
    PENDING,
    RUNNING,
    SCHEDULED,
    TERMINAL,
    TRANSITIONS,
    State,
    StateType,
    safe_text,
)

if TYPE_CHECKING:
    from engine.actors.family import Lineage
    from engine.actors.lane import Lane
    from engine.definition import Definition
    from engine.dispatch.base import Dispatcher, Wake
    from engine.hooks import HookOutcome, Outcomes
    from engine.host import Engine


RUNS: Final = "runs"
"""The condition of an engine that takes runs from anybody."""

NO_KWARGS: Final[dict[str, Any]] = {}

Words = tuple[str, str | None, str | None]
"""The name, message and cause of a state."""

PLAIN: Final[dict[StateType, Words]] = {
    PENDING: ("Pending", None, None),
    RUNNING: ("Running", None, None),
    COMPLETED: ("Completed", None, None),
}

APART: Final = 2e-6
"""By how many seconds the timestamps of two states of a run differ at least: by one
microsecond when they are rounded to that."""


class RunActor(Kin):
    """One execution of a flow or task."""

    is_lost = False
    """Whether it was the run of a process that is gone."""

    __slots__ = (
        "__weakref__",
        "_made",
        "_name",
        "_state",
        "args",
        "asked",
        "attempt",
        "baseline",
        "clock_ended",
        "clock_started",
        "context",
        "created",
        "definition",
        "dispatcher",
        "driver",
        "entered",
        "host",
        "id",
        "interrupted_itself",
        "interrupts",
        "is_prepared",
        "outcomes",
        "kwargs",
        "lane",
        "request",
        "settled",
        "site",
        "started",
        "state_type",
        "stopping",
        "tags",
        "upstreams",
        "value",
        "waiters",
    )

    def __init__(
        self,
        engine: Engine,
        definition: Definition[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        parent: RunActor | None,
        lineage: Lineage | None,
        site: int,
        tags: frozenset[str],
    ) -> None:
        self._lock = engine.lock
        self._handling = False
        self._queue = None
        self.engine = engine
        self.definition = definition
        self.args = args
        # Mostly none: one object less for each run that waits.
        self.kwargs = kwargs or NO_KWARGS
        self.parent = parent
        self.lineage = lineage
        self.lineage_below = None
        self.id = f"{engine.prefix}{engine.next_number()}"
        self.tags = tags
        # Which of the engine's loops serves this run's async children, hooks and
        # timers; see `Engine.loop`.
        self.site = site
        self.attempt = 0
        self.created = self.entered = time.time()
        self.state_type = PENDING
        # The type alone where the run knows what else the state says.
        self._state: State[Any] | StateType = PENDING
        # What was made of such types before the last one.
        self._made: tuple[State[Any], ...] = ()
        self.value: Any  # set when it completes
        # Set when it is asked to stop: by whom, and when.
        self.request: m.CancelRequested
        self.stopping: float
        self.started: float | None = None
        self.clock_started: float  # set with the first attempt
        self.clock_ended = 0.0
        # What executes the body, while it does: an asyncio task, a trio cancel scope,
        # or True for a thread.
        self.host: Any = None
        self.dispatcher: Dispatcher | None = None
        # On asyncio: how often the task had been cancelled when the body began, and
        # whether the body asked to be interrupted itself.
        self.baseline: int
        self.interrupted_itself: bool
        # The thread that drives a sync body, which serves the run's hooks itself.
        self.driver: int | None = None
        self.is_prepared = True
        self.interrupts = 0
        self.asked = m.Asked.NOTHING
        self.verdict = None
        self.children = None
        self.on_childless = None
        self.failures = None
        self.observed = False
        self.lane: Lane | None = None
        self.outcomes: Outcomes = ()
        self.waiters: list[Wake] | None = None
        self.settled = False
        self.context: Context | None = None
        self.upstreams: Any = None
        self._name: str | None = None

    def announce(self, maker: RunActor | None) -> None:
        """Publish the Pending state and join the parent's children.

        Whether it may is asked with the lock held: another thread may be closing the
        engine, or stopping the parent, and would miss a run that came in between.

        Args:
            maker: The run on whose account a closing engine still takes it.

        Raises:
            EngineNotRunningError: The engine takes no runs.
            CancelledRun: The parent was stopped.
        """
        with self._lock:
            parent = self.parent
            if self.engine.condition != RUNS:
                self.engine.check_takes_runs(maker)
            if parent is not None and parent.state_type is not RUNNING:
                parent.check_may_start_children()
            if parent is None:
                self.siblings = self.engine.live
            elif parent.children is None:
                self.siblings = parent.children = {}
            else:
                self.siblings = parent.children
            self.siblings[self] = None
            if parent is not None and self.engine.limiter is not None:
                self.engine.limiter.release(parent)
            broadcast = self.engine.broadcast
            broadcast.sequence += 1
            # No hook of its own is due for being Pending.
            if broadcast.keep is not None:
                broadcast.keep(self)
            elif broadcast.tell is not None:
                broadcast.tell((self, None, PENDING, broadcast.sequence))

    # What others may ask.

    @property
    def state(self) -> State[Any]:
        """The state the run is in."""
        state = self._state
        return self.plain_state(state) if isinstance(state, StateType) else state

    @state.setter
    def state(self, state: State[Any]) -> None:
        self._state = state
        self.state_type = state.type
        self.entered = state._time

    def plain_state(self, type: StateType) -> State[Any]:
        """Return the state of which a step has the type alone, the same to everybody.

        The run knows what else it says, so it is made when somebody first looks. Mostly
        nobody does, and it would be one more object in every run that waits, works or
        has ended.
        """
        with self._lock:
            if type is self.state_type and type in TERMINAL:
                last = self._state
                if isinstance(last, StateType):
                    last = self._state = self._make_state(type)
                return last
            for state in self._made:
                if state.type is type:
                    return state
            state = self._make_state(type)
            self._made = (*self._made, state)
            return state

    def _make_state(self, type: StateType) -> State[Any]:
        name, message, cause = self._words(type)
        attempt, entered, data = self.attempt, self.entered, None
        if type is COMPLETED:
            data = self.value
        elif type is PENDING:
            attempt, entered = 0, self.created
        elif type is RUNNING:
            assert self.started is not None
            attempt, entered = 1, self.started
        elif type is CANCELLING:
            entered = self.stopping
        else:
            text = f"run {self.name!r} was cancelled: {message}"
            data = CancelledRun(text, cause)
        return State(type, name, message, data, cause, attempt, self.id, entered)

    def _words(self, type: StateType) -> Words:
        if type in PLAIN:
            return PLAIN[type]
        request = self.request
        text = request.reason or ASKED_TO_STOP[request.cause]
        return type.value.capitalize(), text, request.cause

    @property
    def words(self) -> Words:
        """What the state says, without making it for that."""
        state = self._state
        if isinstance(state, StateType):
            return self._words(state)
        return state.name, state.message, state.cause

    @property
    def name(self) -> str:
        """The run's name: from its template, else made up when first asked for."""
        return self._make_name() if self._name is None else self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    def _make_name(self) -> str:
        with self._lock:  # else two threads that ask make up one each
            if self._name is None:
                if self.definition.kind == "flow":
                    self._name = two_words()
                else:
                    self._name = f"{self.definition.name}-{self.id.rpartition('-')[2]}"
            return self._name

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments by parameter name, defaults included."""
        return self.definition.binder.parameters(self.args, self.kwargs)

    @property
    def needs_loop(self) -> bool:
        """Whether the run, or its hooks, may need the loop of its site to end."""
        return self.definition.is_async or bool(self.definition.hooks)

    def elapsed(self) -> float:
        """Return for how many seconds the run has been, or was, running."""
        if not self.attempt:
            return 0.0
        return (self.clock_ended or time.monotonic()) - self.clock_started

    def hook_context(self) -> Context:
        """Return a copy of the run's context for one hook."""
        context = bound_context(self) if self.context is None else self.context.copy()
        lane = self.lane
        context.run(IN_HOOK.set, True if lane is None else lane.current or True)
        return context

    def hook_outcomes(self) -> tuple[HookOutcome, ...]:
        """Return what became of the hooks so far, in the order they were called."""
        kept = self.outcomes if self.lane is None else self.lane.outcomes
        return outcomes_of(kept)

    def subscribe_settled(self, wake: Wake) -> bool:
        """Have *wake* called when the run and its hooks are done; False if they are."""
        with self._lock:
            if self.settled:
                return False
            if self.waiters is None:
                self.waiters = []
            self.waiters.append(wake)
            return True

    def unsubscribe_settled(self, wake: Wake) -> None:
        """Forget a waiter that gave up."""
        with self._lock:
            if self.waiters is not None and wake in self.waiters:
                self.waiters.remove(wake)

    # The receive loop.

    def receive(self, message: m.Message) -> None:
        """Handle one message."""
        kind = message.__class__
        react = MOVES[self.state_type].get(kind)
        if react is not None:
            if self.children and kind in VERDICTS:
                self._postpone(message)
            else:
                react(self, message)
        elif isinstance(message, m.DeadlinePassed):
            self._deadline(message)
        elif kind is m.Terminate:
            self._terminate()
        # Anything else came too late, such as the result of an abandoned thread or a
        # second request to stop: a terminal state absorbs, and so does CANCELLING.

    def _started(self, _: m.Message) -> None:
        if not self.attempt:
            self.clock_started = time.monotonic()
        self.attempt += 1
        self._enter(RUNNING, None if self.attempt == 1 else "Retrying")

    def _retried(self, message: m.Retried) -> None:
        self.attempt += 1
        self._enter(RUNNING, "Retrying", safe_text(message.error))

    def _retry_scheduled(self, message: m.RetryScheduled) -> None:
        text, error = message.state.message, message.error
        self._enter(SCHEDULED, "AwaitingRetry", text, error, None, message.delay)

    def _returned(self, message: m.Returned) -> None:
        self.value = message.value
        self._enter(COMPLETED)

    def _concluded(self, message: m.Concluded) -> None:
        given = message.state
        self.value = given.data
        self._enter(given.type, given.name, given.message, given.data, given.cause)

    def _raised(self, message: m.Raised) -> None:
        error = message.error
        self._enter(FAILED, "Failed", failed_text(self.definition, error), error)

    def _rejected(self, message: m.Rejected) -> None:
        error = message.error
        text = f"The arguments were refused: {safe_text(error)}"
        self._enter(FAILED, "Failed", text, error, "arguments")

    def _upstream_failed(self, message: m.UpstreamFailed) -> None:
        error = message.error
        text = f"An upstream run did not complete: {safe_text(error)}"
        self._enter(FAILED, "NotReady", text, error, "upstream")

    def _timed_out(self, message: m.TimedOut) -> None:
        text = timed_out_text(self.definition, message.timeout)
        self._enter(FAILED, "TimedOut", text, TimeoutError(text))

    def _cancel_requested(self, message: m.CancelRequested) -> None:
        if self.asked is m.Asked.TERMINATION:
            return  # the process ends; that outranks whoever else asks
        self.asked = m.Asked.CANCEL
        self.request = message
        self._enter(CANCELLING)
        # The body first: woken by the end of a child, it would miss its interruption.
        self._stop_body(m.STOPPED)
        self.stop_children()

    def _stopped(self, _: m.Message) -> None:
        self._enter(CANCELLED)

    def _lost(self, message: m.Lost) -> None:
        self._enter(CRASHED, "Crashed", message.text, message.error, message.cause)

    def _deadline(self, message: m.DeadlinePassed) -> None:
        if self.state_type is RUNNING and message.attempt == self.attempt:
            self.asked = m.Asked.DEADLINE
            self._stop_body(m.TimedOut(self.definition.options.timeout or 0.0))
            self.stop_children()

    def _terminate(self) -> None:
        if self.state_type is CANCELLING:
            return  # it ends as it was asked to
        if not self.is_over:
            self.asked = m.Asked.TERMINATION
            self._stop_body(m.terminated(None))
            for child in tuple(self.children or ()):
                child.send(m.TERMINATE)

    def _stop_body(self, verdict: m.Message) -> None:
        """Interrupt the body, or go on without it where that cannot be done."""
        dispatcher = self.dispatcher
        if self.host is None or dispatcher is None:
            self._conclude_now(verdict)  # it has not begun, or is over already
        elif dispatcher.can_interrupt:
            parent = self.parent
            # In place, the body shares its parent's task: the parent's interruption
            # goes through it, and a second one would be one too many.
            shared = parent is not None and parent.host is self.host
            by_parent = self.is_stopped and self.request.cause == "parent"
            if not (shared and by_parent):
                dispatcher.interrupt(self)
        else:
            dispatcher.interrupt(self)
            self._conclude_now(verdict)

    def _conclude_now(self, verdict: m.Message) -> None:
        if self.children:
            self.verdict = verdict
        else:
            self.receive(verdict)

    def _postpone(self, verdict: m.Message) -> None:
        """End with *verdict* as soon as no child is left."""
        self.verdict = verdict
        self.stop_children()

    # Entering a state.

    def _enter(
        self,
        type: StateType,
        name: str | None = None,
        message: str | None = None,
        data: Any = None,
        cause: str | None = None,
        delay: float | None = None,
    ) -> None:
        """Enter a state; without a name one that `plain_state` knows all about."""
        previous = self._state
        now = time.time()
        if now < self.entered + APART:  # the clock stood still, or was set back
            now = self.entered + APART
        state: State[Any] | StateType = type
        if name is not None:
            due = None if delay is None else now + delay
            state = State(
                type, name, message, data, cause, self.attempt, self.id, now, due
            )
        elif type is RUNNING:
            self.started = now
        elif type is CANCELLING:
            self.stopping = now
        # The state last but one: a signal handler may look at any time.
        self.entered, self._state, self.state_type = now, state, type
        broadcast = self.engine.broadcast
        broadcast.sequence += 1
        if type in self.definition.hooks.types:
            broadcast.owe((self, previous, state, broadcast.sequence))
        elif broadcast.keep is not None:
            broadcast.keep((self, previous, state))
        elif broadcast.tell is not None:
            broadcast.tell((self, previous, state, broadcast.sequence))
        if type in TERMINAL:
            self._end()

    def _end(self) -> None:
        self.clock_ended = time.monotonic()
        self.verdict = None
        self.siblings.pop(self, None)
        # Before the parent is told: it may end at once, and is recorded after.
        self.engine.run_ended(self)
        self.leave_family()
        if self.lane is None or self.lane.is_idle:
            self.settle()

    def keep_outcomes(self) -> None:
        """Let go of the lane, which refers to the run as the run does to it."""
        if self.lane is not None:
            self.outcomes, self.lane = self.lane.outcomes, None

    def _disclaim(self, error: BaseException) -> None:
        """Tell the caller that nobody else will ever learn how the run ended.

        What the disk has is a run without an end, which a recovery calls crashed.
        """
        name, _, _ = self.words
        text = f"The run ended {name}, but its journal was given up before."
        cause, at = "journal", self.entered
        self.state = State(
            CRASHED, "Crashed", text, error, cause, self.attempt, self.id, at
        )

    def settle(self) -> None:
        """Let go of everybody who waits: the run is over and its hooks are done."""
        self.settled = True
        self.context = None
        if self.lane is not None:
            error = self.lane.step.error
            if error is not None and self.lineage is None and not self.lane.is_refused:
                self._disclaim(error)
            self.keep_outcomes()
        if self.failures:
            self.disown_failures()
        if self.waiters is not None:
            waiters, self.waiters = self.waiters, None
            for wake in waiters:
                wake()


def failed_text(definition: Definition[..., Any], error: BaseException) -> str:
    """Say that a body raised."""
    kind = definition.kind.capitalize()
    return f"{kind} run encountered an exception: {safe_text(error)}"


def timed_out_text(definition: Definition[..., Any], timeout: float) -> str:
    """Say that a body's time was up."""
    kind = definition.kind.capitalize()
    return f"{kind} run exceeded timeout of {timeout:g} second(s)"


ASKED_TO_STOP: Final = {
    "user": "cancelled through its handle",
    "host": "the task or scope that ran it was cancelled",
    "parent": "its parent run stopped",
    "sibling": "another run of the same fan-out failed",
    "shutdown": "the engine is shutting down",
}

REACTIONS: Final[dict[type[m.Message], Callable[[RunActor, Any], None]]] = {
    m.Started: RunActor._started,
    m.Retried: RunActor._retried,
    m.RetryScheduled: RunActor._retry_scheduled,
    m.Returned: RunActor._returned,
    m.Concluded: RunActor._concluded,
    m.Raised: RunActor._raised,
    m.Rejected: RunActor._rejected,
    m.UpstreamFailed: RunActor._upstream_failed,
    m.TimedOut: RunActor._timed_out,
    m.CancelRequested: RunActor._cancel_requested,
    m.Stopped: RunActor._stopped,
    m.Lost: RunActor._lost,
}

VERDICTS: Final = frozenset(
    (m.Returned, m.Concluded, m.Raised, m.TimedOut, m.Stopped, m.Lost)
)
"""What ends a run, and waits for its children to end before it."""

# The transition table, with what to do in the place of where it leads.
MOVES: Final = {
    kind: {message: REACTIONS[message] for message in moves}
    for kind, moves in TRANSITIONS.items()
}
