"""Runs as users see them: immutable views, transitions, and records of ended ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from engine.states import TERMINAL, State, StateType

if TYPE_CHECKING:
    from engine.actors.run import RunActor, Words


class RunPolicy(NamedTuple):
    """How often the body of a run is tried again.

    Attributes:
        retries: How many further attempts a failure gets.
        retry_delay: Seconds before each retry; the last one repeats; empty is none.
    """

    retries: int
    retry_delay: tuple[float, ...]


class Run:
    """A run as it was when it entered `state`: an immutable view.

    Attributes:
        state: The state it was in.
        state_id: None, as states have no identity of their own.
    """

    __slots__ = ("_actor", "state")

    state_id: ClassVar[None] = None

    def __init__(self, actor: RunActor, state: State[Any]) -> None:
        self._actor = actor
        self.state = state

    @property
    def id(self) -> str:
        """The run's identity, unique across engines and processes."""
        return self._actor.id

    @property
    def name(self) -> str:
        """What the run is called."""
        return self._actor.name

    @property
    def kind(self) -> Literal["flow", "task"]:
        """What it is a run of."""
        return self._actor.definition.kind

    @property
    def definition_name(self) -> str:
        """The name of the flow or task."""
        return self._actor.definition.name

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments by parameter name, defaults included; a new dict."""
        return self._actor.parameters

    @property
    def tags(self) -> list[str]:
        """The run's tags, sorted."""
        return sorted(self._actor.tags)

    @property
    def labels(self) -> dict[str, Any]:
        """Empty, as only a server sets any: what users set are `tags`."""
        return {}

    @property
    def state_type(self) -> StateType:
        """The type of `state`."""
        return self.state.type

    @property
    def state_name(self) -> str:
        """The name of `state`."""
        return self.state.name

    @property
    def attempt(self) -> int:
        """Which try of the body this is, counted from 1; 0 before the first."""
        return self.state.attempt

    @property
    def run_count(self) -> int:
        """Prefect's name for `attempt`."""
        return self.state.attempt

    @property
    def expected_start_time(self) -> datetime:
        """When the run was asked for (UTC)."""
        return datetime.fromtimestamp(self._actor.created, UTC)

    @property
    def start_time(self) -> datetime | None:
        """When its body first started (UTC); None before that."""
        if self.state.attempt == 0 or self._actor.started is None:
            return None
        return datetime.fromtimestamp(self._actor.started, UTC)

    @property
    def end_time(self) -> datetime | None:
        """When it entered its terminal state (UTC); None before that."""
        return self.state.timestamp if self.state.type in TERMINAL else None

    @property
    def total_run_time(self) -> timedelta:
        """How long it has been running, by the monotonic clock; 0 before its start."""
        return timedelta(seconds=self._actor.elapsed())

    @property
    def parent_run_id(self) -> str | None:
        """The run that started this one; None at the top."""
        lineage = self._actor.lineage
        return None if lineage is None else lineage.parent_id

    @property
    def flow_run_id(self) -> str | None:
        """The nearest flow run above this one; None outside of flows."""
        lineage = self._actor.lineage
        return None if lineage is None else lineage.flow_run_id

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"<{kind} {self.name!r} id={self.id} {self.state.name}>"


class FlowRun(Run):
    """One execution of a flow, as it was when it entered `state`.

    Attributes:
        flow_id: None, as only a server gives flows an identity: see `flow_name`.
        deployment_id: None, as only a server has deployments.
        auto_scheduled: False: somebody's code has called it.
    """

    __slots__ = ()

    flow_id: ClassVar[None] = None
    deployment_id: ClassVar[None] = None
    auto_scheduled: ClassVar[bool] = False

    @property
    def flow_name(self) -> str:
        """The flow's name."""
        return self._actor.definition.name

    @property
    def flow_version(self) -> str | None:
        """The flow's version, or None."""
        return self._actor.definition.options.version

    @property
    def empirical_policy(self) -> RunPolicy:
        """How often it is retried."""
        options = self._actor.definition.options
        return RunPolicy(options.retries, options.delays)

    @property
    def parent_flow_run_id(self) -> str | None:
        """The flow run that this one is a part of; None at the top."""
        return self.flow_run_id

    @property
    def parent_task_run_id(self) -> str | None:
        """The task run that has started this one; None if that was no task's."""
        above = self.parent_run_id
        return None if above == self.flow_run_id else above

    @property
    def root_flow_run_id(self) -> str:
        """The run at the top of the tree; its own id at the top."""
        lineage = self._actor.lineage
        return self.id if lineage is None else lineage.root_id


class TaskRun(Run):
    """One execution of a task, as it was when it entered `state`."""

    __slots__ = ()

    @property
    def task_name(self) -> str:
        """The task's name."""
        return self._actor.definition.name

    @property
    def task_key(self) -> str:
        """Where the task's function is defined, such as ``shop.orders.pay``."""
        from engine.cache_policies import identity

        definition: Any = self._actor.definition
        module, name, _ = identity(definition)
        return f"{module}.{name}"

    @property
    def dynamic_key(self) -> str:
        """What tells it from other runs of its task: its `id`."""
        return self.id

    @property
    def flow_run_run_count(self) -> int | None:
        """Which attempt the flow run around it is at now.

        None outside of flows, and when that run is over and forgotten.
        """
        lineage = self._actor.lineage
        flow = None if lineage is None else lineage.flow
        return None if flow is None else int(flow.attempt)


def view(actor: RunActor, state: State[Any] | None = None) -> FlowRun | TaskRun:
    """Return a run as it was in *state*; None is as it is now."""
    kind = FlowRun if actor.definition.kind == "flow" else TaskRun
    return kind(actor, state or actor.state)


class Transition:
    """One step of one run, from a state to the next.

    Attributes:
        sequence: The transition's number: counts all transitions of one engine in the
            order in which they happened. Order comes from it, never from timestamps.
    """

    __slots__ = ("_entered", "_left", "actor", "sequence")

    def __init__(
        self,
        actor: RunActor,
        left: State[Any] | StateType | None,
        entered: State[Any] | StateType,
        sequence: int,
    ) -> None:
        self.actor = actor
        self._left = left
        self._entered = entered
        self.sequence = sequence

    @property
    def previous(self) -> State[Any] | None:
        """The state that was left; None for the first transition of a run."""
        left = self._left
        return self.actor.plain_state(left) if isinstance(left, StateType) else left

    @property
    def state(self) -> State[Any]:
        """The state that was entered."""
        entered = self._entered
        if isinstance(entered, StateType):
            entered = self._entered = self.actor.plain_state(entered)
        return entered

    @property
    def types(self) -> tuple[StateType | None, StateType]:
        """The types of the state that was left, or None, and of the one entered."""
        left, entered = self._left, self._entered
        return (
            left.type if isinstance(left, State) else left,
            entered.type if isinstance(entered, State) else entered,
        )

    @property
    def run(self) -> FlowRun | TaskRun:
        """The run as it was after this step."""
        return view(self.actor, self.state)

    @property
    def timestamp(self) -> datetime:
        """When the step happened (UTC)."""
        return self.state.timestamp

    def __repr__(self) -> str:
        before = None if self.previous is None else self.previous.name
        run = self.actor.name
        return f"<Transition #{self.sequence} {run!r} {before} -> {self.state.name}>"


Kind = Literal["flow", "task"]
Remembered = tuple[
    str, Kind, str, str | None, str | None, "StateType", "Words", int, float, float
]
"""The fields of a `RunRecord`, in the order of `remembered`."""


def remembered(actor: RunActor) -> Remembered:
    """Return what is kept of a run that has ended, for a `RunRecord`.

    Every run leaves one, and hardly any is ever looked at: a tuple costs a quarter.
    """
    lineage, definition = actor.lineage, actor.definition
    return (
        actor.id,
        definition.kind,
        definition.name,
        actor._name,
        None if lineage is None else lineage.parent_id,
        actor.state_type,
        actor.words,
        actor.attempt,
        actor.clock_ended - actor.clock_started if actor.attempt else 0.0,
        actor.entered,
    )


class RunRecord:
    """What is remembered of a run that has ended: no arguments, no result.

    Attributes:
        id: The run's identity.
        kind: ``"flow"`` or ``"task"``.
        definition_name: The name of the flow or task.
        name: What the run was called.
        state_type: The type of its terminal state.
        state_name: The name of its terminal state.
        message: The terminal state's message, or None.
        cause: The terminal state's cause, or None.
        attempt: How many attempts it took.
        parent_run_id: The run that started it; None at the top.
        seconds: How long it ran, by the monotonic clock.
    """

    __slots__ = (
        "_ended",
        "_name",
        "attempt",
        "cause",
        "definition_name",
        "id",
        "kind",
        "message",
        "parent_run_id",
        "seconds",
        "state_name",
        "state_type",
    )

    kind: Kind

    def __init__(self, fields: Remembered) -> None:
        (
            self.id,
            self.kind,
            self.definition_name,
            self._name,
            self.parent_run_id,
            self.state_type,
            (self.state_name, self.message, self.cause),
            self.attempt,
            self.seconds,
            self._ended,
        ) = fields

    @property
    def name(self) -> str:
        """What the run was called; its id when nobody ever asked."""
        return self._name or f"{self.definition_name}-{self.id.rpartition('-')[2]}"

    @property
    def end_time(self) -> datetime:
        """When it entered its terminal state (UTC)."""
        return datetime.fromtimestamp(self._ended, UTC)

    def __repr__(self) -> str:
        return f"<RunRecord {self.name!r} id={self.id} {self.state_name}>"
