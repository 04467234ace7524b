"""A lane: the hooks that one run is owed, in the order in which they have to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from engine.states import RUNNING

if TYPE_CHECKING:
    from engine.actors.run import RunActor
    from engine.dispatch.base import Wake
    from engine.hooks import Hook, Outcomes
    from engine.journal.exceptions import JournalError


class Owed(NamedTuple):
    """A hook that is owed.

    Attributes:
        transition: The transition, or other step of a run, that owes it.
        kind: The list that the hook was registered in.
        hook: The hook.
        position: Which of the transition's hooks it is, counted from 0; -1 if no
            transition owes it.
    """

    transition: Any
    kind: str
    hook: Hook
    position: int = -1

    @property
    def key(self) -> str:
        """What tells it from the transition's other hooks."""
        return f"{self.kind}[{self.position}]:{self.hook.name}"


class Commit:
    """Something that is on its way to the disk, and may never get there.

    Attributes:
        is_over: Whether nobody has to wait for it any more.
        is_kept: Whether it got there.
        error: Why it never got there; None if it did, or still may.
    """

    __slots__ = ("error", "is_kept", "is_over")

    def __init__(self, *, is_over: bool = False) -> None:
        self.is_over = self.is_kept = is_over
        self.error: JournalError | None = None

    def finish(self, error: JournalError | None = None) -> None:
        """Let nobody wait any more."""
        self.is_over = True
        self.is_kept = error is None
        self.error = error


NOTHING: Final = Commit(is_over=True)
"""What a lane waits for without a journal."""


class Lane:
    """The hooks that one run is owed, in order.

    With a journal every run that somebody outside of the process is told about has one:
    nobody is told before the disk has been.

    Attributes:
        step: The commit of the run's last step: what its hooks wait for, its body and
            its caller.
        gate: The commit of the last hook's outcome: what the next hook waits for.
        is_attended: Whether the run's own thread waits to serve it.
        is_refused: Whether the journal failed before the body began, so that the run
            fails without waiting for it.
        veto: What fails the run: the error of an on_running or on_retry hook, or of
            the journal.
    """

    __slots__ = (
        "_waiters",
        "current",
        "gate",
        "is_attended",
        "is_refused",
        "is_served",
        "outcomes",
        "owed",
        "run",
        "step",
        "veto",
    )

    def __init__(self, run: RunActor) -> None:
        self.run = run
        # Tuples, since empty ones cost nothing: with a journal many runs have a lane
        # and never a hook.
        self.owed: tuple[Owed, ...] = ()
        self.is_served = False
        self.is_attended = False
        self.is_refused = False
        self.step = NOTHING
        self.gate = NOTHING
        self.current: Owed | None = None
        self.outcomes: Outcomes = ()
        self.veto: BaseException | None = None
        self._waiters: tuple[Wake, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether nothing is owed, no hook is running, and all of it is on disk."""
        return not self.owed and not self.is_served and self.step.is_over

    @property
    def is_servable(self) -> bool:
        """Whether the next hook may be called: all that comes before it is on disk."""
        return bool(self.owed) and self.step.is_kept and self.gate.is_kept

    @property
    def holds_body(self) -> bool:
        """Whether the run's body waits for any of its hooks to be called."""
        left = self.owed if self.current is None else (self.current, *self.owed)
        return any(owed.kind in ("on_running", "on_retry") for owed in left)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing that the run has to wait for."""
        return self.is_refused or self.is_done

    def subscribe_idle(self, wake: Wake) -> bool:
        """Have *wake* called when the lane is idle; False if it is."""
        with self.run.engine.lock:
            if self.is_idle:
                return False
            self._waiters = (*self._waiters, wake)
            return True

    def became_idle(self) -> None:
        """Let go of everybody who waits; called with the lock held."""
        self.is_served = False
        self.wake_waiters()
        if self.run.settled:
            self.run.keep_outcomes()
        elif self.run.is_over:
            self.run.settle()

    def wake_waiters(self) -> None:
        """Have everybody who waits look again; called with the lock held."""
        self.is_attended = False
        waiters, self._waiters = self._waiters, ()
        for wake in waiters:
            wake()

    def refuse(self, error: JournalError) -> None:
        """Fail the run if its body waits for the journal; called with the lock held."""
        run = self.run
        waits = run.host is not None and run.state_type is RUNNING and self._waiters
        if waits and not self.is_served and not self.step.is_over:
            self.veto, self.is_refused = error, True
            self.wake_waiters()
