"""What a journal keeps, as rows, and what it must be able to do.

A journal is written by one thread, in batches. A batch is one transaction: after
`Journal.write` has returned, all of it survives what the journal's durability promises;
before that, none of it may show.

Order comes from sequence numbers. Wall-clock times are for people, and durations are
differences of the monotonic clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final, Literal, NamedTuple

import attrs

HookFate = Literal[
    "owed",
    "delivered",
    "failed",
    "timed_out",
    "undelivered",
    "unresolvable",
    "quarantined",
]
"""What became of a hook that a transition owes.

``owed`` ones are delivered by the next recovery. ``unresolvable`` ones, whose function
cannot be found, and ``quarantined`` ones, which failed recovery after recovery, wait
for somebody to redeliver them.
"""

PARKED: Final = ("unresolvable", "quarantined")


class RunRow(NamedTuple):
    """A run, as it was when it was created.

    Attributes:
        number: Its key in the journal.
        run_id: Its identity elsewhere.
        owner: Which engine it belongs to.
        definition: The key of its flow or task.
        name: What it is called; None takes a name made of the definition's and its id.
        parent_run_id: The run that started it; None at the top.
        flow_run_id: The nearest flow run above it; None outside of flows.
        root_run_id: The run at the top of its tree.
        parameters: Its arguments as JSON; None if they cannot be written so.
        tags: Its tags as a JSON list; None if it has none.
        created_at: When it was asked for, seconds since 1970.
        ended_at: When it entered its terminal state; None while it is live.
    """

    number: int
    run_id: str
    owner: int
    definition: int
    name: str | None
    parent_run_id: str | None
    flow_run_id: str | None
    root_run_id: str
    parameters: str | None
    tags: str | None
    created_at: float
    ended_at: float | None


class TransitionRow(NamedTuple):
    """One step of a run.

    Attributes:
        run: The run's number.
        sequence: The transition's number in its engine.
        type: The type of the state that was entered.
        name: Its name.
        message: Its message, or None.
        cause: Its cause, or None.
        attempt: The attempt it belongs to.
        entered_at: When, seconds since 1970.
        clock: When, by the monotonic clock of the machine; None where unknown.
    """

    run: int
    sequence: int
    type: str
    name: str
    message: str | None
    cause: str | None
    attempt: int
    entered_at: float
    clock: float | None


class OwedRow(NamedTuple):
    """A hook that a transition owes.

    Attributes:
        run: The run's number.
        sequence: The transition's number.
        position: Which of the transition's hooks it is, counted from 0.
        kind: The list it was registered in.
        hook: The last part of its delivery key.
        target: Where to find it again, see `engine.journal.targets`.
        timeout: Seconds it may take; None takes the engine's default.
        retries: How often a failed call is repeated.
    """

    run: int
    sequence: int
    position: int
    kind: str
    hook: str
    target: str
    timeout: float | None
    retries: int


class OutcomeRow(NamedTuple):
    """What became of one owed hook; the first three fields are its key."""

    run: int
    sequence: int
    position: int
    fate: HookFate
    attempts: int
    seconds: float
    error: str | None
    ended_at: float


class DefinitionRow(NamedTuple):
    """A flow or task.

    Attributes:
        number: Its key in the journal.
        kind: ``"flow"`` or ``"task"``.
        name: Its name.
        version: A flow's version, or None.
        target: Where to find it again.
        crash_hooks: A JSON list of the hooks that its runs are owed when their process
            dies: for each its kind, name, target, timeout and retries.
    """

    number: int
    kind: str
    name: str
    version: str | None
    target: str
    crash_hooks: str


@attrs.define(eq=False)
class Batch:
    """What one transaction writes: for each kind of row its fields, one after another.

    Not lists of rows: thousands of small tuples beside a busy loop keep the garbage
    collector walking over everything that the loop has alive.

    Attributes:
        definitions: Flows and tasks seen for the first time, as in `DefinitionRow`.
        runs: Runs that were created, as in `RunRow`.
        names: A new name, the number of the run that got it, and so on.
        transitions: Steps, as in `TransitionRow`.
        owed: Hooks that the steps owe, as in `OwedRow`.
        ended: A time, the number of the run that ended then, and so on.
        begun: Keys of hooks that a recovery is about to call: run, sequence, position.
        outcomes: What became of hooks, as in `OutcomeRow`.
    """

    definitions: list[Any] = attrs.Factory(list)
    runs: list[Any] = attrs.Factory(list)
    names: list[Any] = attrs.Factory(list)
    transitions: list[Any] = attrs.Factory(list)
    owed: list[Any] = attrs.Factory(list)
    ended: list[Any] = attrs.Factory(list)
    begun: list[Any] = attrs.Factory(list)
    outcomes: list[Any] = attrs.Factory(list)


@attrs.frozen(kw_only=True)
class Owner:
    """Who writes to a journal: one engine in one process.

    Attributes:
        prefix: What the ids of its runs begin with.
        pid: Its process.
        started: When the process began, in the operating system's own unit; with the
            pid and *boot* it names one process and no later one. None where unknown.
        boot: The machine's boot; None where unknown.
        host: The machine's name.
        hooks: The engine's own hooks, as in `DefinitionRow.crash_hooks`.
    """

    prefix: str
    pid: int
    started: str | None
    boot: str | None
    host: str
    hooks: str


@attrs.frozen(kw_only=True)
class Opening:
    """What a journal tells the engine that has opened it.

    Attributes:
        owner: The engine's number.
        base: The number before that of its first run.
        definitions: Those that the journal knows.
        recovered: How many runs were moved to Crashed because their process was lost.
        owed: Hooks that earlier processes owed, each run's in order.
    """

    owner: int
    base: int
    definitions: list[DefinitionRow]
    recovered: int
    owed: list[OwedHook]


class OwedHook(NamedTuple):
    """A hook to deliver in the place of a process that is gone, and its run.

    Attributes:
        run: The run.
        definition: Its flow or task.
        transition: The step that owes the hook.
        hook: The hook.
        recoveries: How many recoveries have begun to call it in vain.
    """

    run: RunRow
    definition: DefinitionRow
    transition: TransitionRow
    hook: OwedRow
    recoveries: int


class Journal(ABC):
    """Keeps runs, transitions and hooks beyond the life of a process.

    All methods are called by one thread and may block. They raise `JournalError` for
    what may get better, and `JournalBroken` for what cannot.

    Attributes:
        path: Where it is, for messages.
        quarantine_after: How many recoveries may fail on one hook.
    """

    path: str
    quarantine_after: int

    @abstractmethod
    def open(self, owner: Owner) -> Opening | None:
        """Become the only writer and recover what other owners left behind.

        Runs that are live belong to processes that are gone, since those held the
        journal as long as they lived: they are moved to Crashed, children before
        parents, owing their hooks.

        Returns:
            What was found; None if another run's id begins with the owner's prefix.

        Raises:
            JournalLocked: Another engine has it.
            JournalFormatError: It cannot be read.
        """

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Commit a batch. It may be given again after an error: nothing is doubled."""

    @abstractmethod
    def reopen(self) -> None:
        """Start afresh after an error, still as the owner."""

    @abstractmethod
    def tidy(self) -> bool:
        """Drop some of what is no longer to be kept; whether there is more."""

    @abstractmethod
    def close(self, *, clean: bool) -> None:
        """Let another engine have it.

        Args:
            clean: Whether everything was written.
        """

    @abstractmethod
    def was_forked(self) -> None:
        """Forget the journal without touching it: this process is a fork."""


def journal_from(given: Any) -> Journal:
    """Return the journal that ``Engine(journal=…)`` means.

    Raises:
        ValueError: A URL of an unknown kind.
        TypeError: Neither a URL nor a journal.
    """
    if isinstance(given, Journal):
        return given
    if not isinstance(given, str):
        text = "journal must be a URL such as 'sqlite:///path' or a Journal"
        raise TypeError(f"{text}, got {given!r}")
    scheme, separator, path = given.partition(":///")
    if scheme != "sqlite" or not separator or not path:
        raise ValueError(f"journal must look like 'sqlite:///path', got {given!r}")
    # Only now: an engine without a journal does not pay for the import.
    from engine.journal.sqlite import SQLiteJournal

    return SQLiteJournal(path)
