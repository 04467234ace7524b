"""Parents and children: who a run belongs to, and whose end comes first.

A run is among its parent's children from its first state to its terminal one, and its
parent ends after it. The reference to the parent is dropped at the run's end, so that
neither keeps the other: a finished run is freed when nobody holds it.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from engine.actors import messages as m
from engine.actors.mailbox import Mailbox
from engine.exceptions import CancelledRun
from engine.states import CANCELLING, CRASHED, FAILED, TERMINAL, State, StateType

if TYPE_CHECKING:
    from engine.definition import Definition
    from engine.dispatch.base import Wake
    from engine.host import Engine


class Lineage:
    """Who stands above a run; shared by all children of one parent."""

    __slots__ = ("_flow", "flow_run_id", "parent_id", "root_id")

    def __init__(self, parent: Kin) -> None:
        above = parent.lineage
        self.parent_id = parent.id
        self.root_id: str = parent.id if above is None else above.root_id
        self.flow_run_id: str | None = None
        # Weak: a child that somebody keeps must not keep its parents.
        self._flow: weakref.ref[Kin] | None = None
        if parent.definition.kind == "flow":
            self.flow_run_id = parent.id
            self._flow = weakref.ref(parent)
        elif above is not None:
            self.flow_run_id = above.flow_run_id
            self._flow = above._flow

    @property
    def flow(self) -> Any:
        """The actor of the nearest flow run above, while it is there; else None."""
        return self._flow() if self._flow is not None else None


class Kin(Mailbox):
    """The part of a run's actor that knows its parent and its children."""

    __slots__ = (
        "children",
        "engine",
        "failures",
        "lineage",
        "lineage_below",
        "observed",
        "on_childless",
        "parent",
        "siblings",
        "verdict",
    )

    if TYPE_CHECKING:
        id: str

        @property
        def name(self) -> str:
            """What the run is called."""
            ...

        @property
        def state(self) -> State[Any]:
            """The state the run is in."""
            ...

        definition: Definition[..., Any]
        host: Any
        state_type: StateType
        engine: Engine
        lineage: Lineage | None
        observed: bool
        # Of a live run only, and of a failed one that its parent keeps as unobserved.
        parent: Kin | None
        siblings: dict[Any, None]
        children: dict[Any, None] | None
        # Children that failed, until somebody looks at them.
        failures: dict[Any, None] | None
        # What waits for the last child to end: the body, or the run's own end.
        on_childless: Wake | None
        verdict: m.Message | None
        lineage_below: Lineage | None

    @property
    def is_over(self) -> bool:
        """Whether the run is in its terminal state."""
        return self.state_type in TERMINAL

    @property
    def is_stopped(self) -> bool:
        """Whether the run was asked to stop, and has not yet."""
        return self.state_type is CANCELLING

    def begin_lineage(self) -> Lineage:
        """Make the lineage that this run's children share."""
        self.lineage_below = Lineage(self)
        return self.lineage_below

    def descends_from(self, other: Kin) -> bool:
        """Whether *other* is this run or one of its parents."""
        run: Kin | None = self
        while run is not None:
            if run is other:
                return True
            run = run.parent
        return False

    def check_may_start_children(self) -> None:
        """Refuse to start work for a run that was stopped.

        Raises:
            CancelledRun: The run has ended, or was asked to, while its body goes on.
        """
        if self.state_type is CANCELLING or self.is_over:
            text = f"run {self.name!r} is {self.state.name} and starts nothing more"
            raise CancelledRun(text, self.state.cause)

    def subscribe_childless(self, wake: Wake) -> bool:
        """Have *wake* called when no child is left; False if none is."""
        with self._lock:
            if not self.children:
                return False
            self.on_childless = wake
            return True

    def observe(self) -> None:
        """Note that somebody looks at how the run ends."""
        if self.observed:
            return
        with self._lock:
            self.observed = True
            parent = self.parent
            if parent is not None and self.is_over:
                if parent.failures is not None:
                    parent.failures.pop(self, None)
                self.parent = None

    def stop_children(self) -> None:
        """Ask every live child to stop that was not asked before."""
        if self.children:
            request = m.CancelRequested("parent")
            for child in tuple(self.children):
                if not child.is_stopped:
                    child.send(request)

    def adopt(self, helper: Any) -> None:
        """Count something that is no run, but works for this one, as a child."""
        with self._lock:
            if self.children is None:
                self.children = {}
            self.children[helper] = None

    def release(self, helper: Any) -> None:
        """Let go of what was adopted."""
        with self._lock:
            if self.children is not None and helper in self.children:
                del self.children[helper]
                if not self.children:
                    self.last_child_ended()

    def leave_family(self) -> None:
        """Let go of the parent, at the run's end; with the lock held."""
        parent, self.parent = self.parent, None
        if parent is None:
            return
        if self.state_type in (FAILED, CRASHED) and not self.observed:
            self.parent = parent
            if parent.failures is None:
                parent.failures = {}
            parent.failures[self] = None
        if not parent.children:
            parent.last_child_ended()

    def take_place(self) -> None:
        """Count among the runs that execute, past their limit if need be."""
        if self.engine.limiter is not None:
            with self._lock:
                if not self.is_over:  # another thread may have stopped it
                    self.engine.limiter.hold(self)

    def last_child_ended(self) -> None:
        """Go on with what waited for the children."""
        self.take_place()
        wake, self.on_childless = self.on_childless, None
        if wake is not None:
            wake()
        if self.verdict is not None:
            verdict, self.verdict = self.verdict, None
            self.send(verdict)

    def disown_failures(self) -> None:
        """Let go of unobserved children, which refer to this run as it does to them."""
        for child in self.failures or ():
            child.parent = None
