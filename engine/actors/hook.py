"""The hook actor: takes the transitions that owe hooks, and sees that they are called.

Each run with hooks has a *lane*: its owed hooks in the order of its transitions, and in
one transition in the order of registration. A lane is served by one server at a time,
one hook after the other, so the order within a run is strict; different lanes are
served side by side, up to a limit, so a slow hook delays no other run's.

Who serves a lane depends on where its run is driven. A run on a loop is served by a few
tasks of that loop. A run on a thread serves its own lane whenever it waits for its
hooks; while its body is busy, a hook thread does.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from engine.exceptions import HookTimeout
from engine.hooks import TRANSACTION_KINDS, Hook, HookKind, HookOutcome, HookStatus
from engine.logging import log
from engine.states import safe_text, unwrap_stop_iteration
from engine.tracebacks import trim_traceback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from engine.actors.run import RunActor
    from engine.actors.supervisor import Supervisor
    from engine.dispatch.base import Dispatcher, Wake
    from engine.runs import Transition


@attrs.frozen(kw_only=True)
class HookStatistics:
    """How many hooks were owed, and what became of them.

    ``delivered + failed + timed_out + undelivered + waiting == due``, always.
    """

    due: int
    delivered: int
    failed: int
    timed_out: int
    undelivered: int

    @property
    def waiting(self) -> int:
        """Hooks that are owed and have not ended."""
        ended = self.delivered + self.failed + self.timed_out + self.undelivered
        return self.due - ended


class Lane:
    """The hooks that one run is owed, in order."""

    __slots__ = ("_waiters", "current", "is_served", "outcomes", "owed", "run", "veto")

    def __init__(self, run: RunActor) -> None:
        self.run = run
        self.owed: deque[tuple[Transition, str, Hook]] = deque()
        self.is_served = False
        self.current: tuple[Transition, str, Hook] | None = None
        self.outcomes: list[HookOutcome] = []
        # The error of an on_running or on_retry hook that fails its run.
        self.veto: BaseException | None = None
        self._waiters: list[Wake] = []

    @property
    def is_idle(self) -> bool:
        """Whether nothing is owed and no hook is running."""
        return not self.owed and not self.is_served

    def subscribe_idle(self, wake: Wake) -> bool:
        """Have *wake* called when the lane is idle; False if it is."""
        with self.run.engine.lock:
            if self.is_idle:
                return False
            self._waiters.append(wake)
            return True

    def became_idle(self) -> None:
        """Let go of everybody who waits; called with the lock held."""
        self.is_served = False
        waiters, self._waiters = self._waiters, []
        for wake in waiters:
            wake()
        if self.run.settled:
            self.run.keep_outcomes()
        elif self.run.is_over:
            self.run.settle()


class HookActor:
    """Owns the lanes of one engine's runs and the count of what they are owed."""

    def __init__(
        self,
        lock: Any,
        supervisor: Supervisor,
        *,
        timeout: float,
        concurrency: int,
        on_transition: Iterable[Hook],
        summon: Callable[[RunActor], bool],
    ) -> None:
        self._lock = lock
        self._supervisor = supervisor
        self._timeout = timeout
        self._concurrency = concurrency
        self._on_transition = tuple(on_transition)
        # Finds a server for a lane that has none, with the lock held; False leaves the
        # lane to the run's own thread.
        self._summon = summon
        self._ready: dict[Dispatcher, deque[Lane]] = {}
        self._servers: dict[Dispatcher, int] = {}
        self.due = 0
        self.counts: dict[HookStatus, int] = {
            "delivered": 0,
            "failed": 0,
            "timed_out": 0,
            "undelivered": 0,
        }
        self._open: set[Lane] = set()
        self._closed = False
        self._waiters: list[Wake] = []

    def statistics(self) -> HookStatistics:
        """Return the counts so far."""
        with self._lock:
            return HookStatistics(due=self.due, **self.counts)

    def take(self, transition: Transition) -> None:
        """File the hooks that a transition owes; called with the lock held."""
        run = transition.actor
        lane = run.lane
        owed = len(lane.owed) if lane is not None else 0
        for hook in self._on_transition:
            lane = self._owe(run, lane, transition, "on_transition", hook)
        hooks = run.definition.hooks
        for kind, hook in hooks.due(transition.previous, transition.state):
            lane = self._owe(run, lane, transition, kind, hook)
        if lane is None or len(lane.owed) == owed:
            return
        if self._closed:
            self._give_up(lane)
        elif not lane.is_served:
            lane.is_served = self._summon(run)

    def _owe(
        self,
        run: RunActor,
        lane: Lane | None,
        transition: Transition,
        kind: HookKind | str,
        hook: Hook,
    ) -> Lane:
        if lane is None:
            lane = run.lane = Lane(run)
        self._open.add(lane)
        lane.owed.append((transition, kind, hook))
        self.due += 1
        return lane

    def owe(self, run: RunActor, step: Any, kind: str, hook: Hook) -> Lane:
        """File a hook that no transition owes, such as a transaction's.

        The run may have settled long ago. Whoever files the hook has the lane served.
        """
        with self._lock:
            lane = run.lane
            if lane is None and run.settled:
                lane = run.lane = Lane(run)
                lane.outcomes.extend(run.outcomes)
            lane = self._owe(run, lane, step, kind, hook)
            if self._closed:
                self._give_up(lane)
            return lane

    def claim(self, lane: Lane) -> bool:
        """Take it upon the caller to serve a lane that is owed and has no server."""
        with self._lock:
            if lane.is_served or not lane.owed:
                return False
            lane.is_served = True
            return True

    def enqueue(self, on: Any, lane: Lane) -> None:
        """Have a lane served where *on* drives; called with the lock held."""
        ready = self._ready.setdefault(on, deque())
        ready.append(lane)
        servers = self._servers.get(on, 0)
        if servers < self._concurrency:
            self._servers[on] = servers + 1
            serve = partial(self._serve_loop, on)
            on.spawn_service(self._supervisor.watch, "hook actor", serve)

    async def _serve_loop(self, on: Any) -> None:
        ready = self._ready[on]
        while True:
            with self._lock:
                if not ready:
                    self._servers[on] -= 1
                    return
                lane = ready.popleft()
            await self.serve(lane, on)

    async def serve(self, lane: Lane, on: Dispatcher) -> None:
        """Call a lane's hooks, one after the other, until none is owed."""
        try:
            while True:
                with self._lock:
                    if not lane.owed:
                        self._close_lane(lane)
                        return
                    lane.current = lane.owed.popleft()
                await self._deliver(lane, *lane.current, on)
        except BaseException:
            # The server itself is stopped: what is left is owed by nobody any more.
            with self._lock:
                self._give_up(lane)
            raise

    async def _deliver(
        self, lane: Lane, transition: Transition, kind: str, hook: Hook, on: Dispatcher
    ) -> None:
        timeout = hook.timeout or self._timeout
        began = time.monotonic()
        args = hook_arguments(kind, transition)
        error: BaseException | None = None
        status: HookStatus = "failed"
        attempts = 0
        while attempts <= hook.retries and status != "delivered":
            attempts += 1
            try:
                await on.call_hook(lane.run, hook, args, timeout)
                status, error = "delivered", None
            except HookTimeout as caught:
                status, error = "timed_out", caught
            except BaseException as caught:
                # Whatever a hook raises is its own affair, unless it is the server
                # that is being cancelled.
                if on.is_cancelled(lane.run, caught):
                    raise
                status, error = "failed", unwrap_stop_iteration(caught)
                trim_traceback(error)
        self._end(lane, status, began, attempts, error)

    def _end(
        self,
        lane: Lane,
        status: HookStatus,
        began: float,
        attempts: int,
        error: BaseException | None,
    ) -> None:
        """Record how the lane's current hook ended, unless it was given up before."""
        with self._lock:
            if lane.current is None:
                return
            (transition, kind, hook), lane.current = lane.current, None
            outcome = HookOutcome(
                hook=hook.name,
                kind=kind,
                run_id=lane.run.id,
                sequence=transition.sequence,
                state=transition.state.name,
                status=status,
                seconds=time.monotonic() - began,
                attempts=attempts,
                error=error,
            )
            self.counts[status] += 1
            lane.outcomes.append(outcome)
            if status != "delivered" and hook.on_error == "fail_run":
                lane.veto = error
        if status != "delivered":
            log_failure(outcome)

    def _close_lane(self, lane: Lane) -> None:
        self._open.discard(lane)
        lane.became_idle()
        if not self._open:
            waiters, self._waiters = self._waiters, []
            for wake in waiters:
                wake()

    def _give_up(self, lane: Lane) -> None:
        if lane.current is not None:
            self._end(lane, "undelivered", time.monotonic(), 1, None)
        while lane.owed:
            lane.current = lane.owed.popleft()
            self._end(lane, "undelivered", time.monotonic(), 0, None)
        self._close_lane(lane)

    def subscribe_idle(self, wake: Wake) -> bool:
        """Have *wake* called when no hook is owed; False if none is."""
        with self._lock:
            if not self._open:
                return False
            self._waiters.append(wake)
            return True

    def close(self) -> None:
        """Take no more; what has not ended by now becomes undelivered."""
        with self._lock:
            self._closed = True
            for lane in tuple(self._open):
                self._give_up(lane)


def log_failure(outcome: HookOutcome) -> None:
    """Log a hook that was not delivered."""
    log.error(
        "hook_failed",
        hook=outcome.hook,
        kind=outcome.kind,
        run_id=outcome.run_id,
        state=outcome.state,
        status=outcome.status,
        attempts=outcome.attempts,
        error=None if outcome.error is None else safe_text(outcome.error),
        # A hook that hangs was nowhere in particular: its message says it all.
        exc_info=None if isinstance(outcome.error, HookTimeout) else outcome.error,
    )


def hook_arguments(kind: str, transition: Any) -> tuple[Any, ...]:
    """Return what a hook is called with."""
    if kind == "on_transition":
        return (transition,)
    if kind in TRANSACTION_KINDS:
        return (transition.transaction,)
    return (transition.actor.definition, transition.run, transition.state)
