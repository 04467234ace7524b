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
import traceback
from collections import deque
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from engine.actors.lane import Lane, Owed
from engine.exceptions import HookTimeout
from engine.hooks import TRANSACTION_KINDS, Hook, HookOutcome, HookStatus
from engine.logging import log
from engine.runs import view
from engine.states import safe_text, unwrap_stop_iteration
from engine.tracebacks import trim_traceback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from engine.actors.run import RunActor
    from engine.actors.supervisor import Supervisor
    from engine.dispatch.base import Dispatcher, Wake
    from engine.journal.exceptions import JournalError
    from engine.journal.recorder import Recorder
    from engine.runs import Transition

LANES_AT_ONCE: Final = 256
"""How many lanes go on before others may have the engine's lock."""


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
        self._on_transition = tuple(("on_transition", hook) for hook in on_transition)
        # Finds a server for a lane that has none, with the lock held; False leaves the
        # lane to the run's own thread.
        self._summon = summon
        self._ready: dict[Dispatcher, deque[Lane]] = {}
        self._servers: dict[Dispatcher, int] = {}
        # Where one was called that has yet to begin. Hooks that never wait are all
        # served by the first that does; where they do, each that begins calls another.
        self._called: set[Dispatcher] = set()
        self.due = 0
        self.counts: dict[HookStatus, int] = {
            "delivered": 0,
            "failed": 0,
            "timed_out": 0,
            "undelivered": 0,
        }
        self._open: set[Lane] = set()
        # Whether a recovery has yet to find what it has to deliver.
        self._expects_more = False
        self._closed = False
        self.recorder: Recorder | None = None
        self._waiters: list[Wake] = []

    def statistics(self) -> HookStatistics:
        """Return the counts so far."""
        with self._lock:
            return HookStatistics(due=self.due, **self.counts)

    def take(self, transition: Transition) -> None:
        """File the hooks that a transition owes; called with the lock held."""
        run = transition.actor
        due: tuple[tuple[str, Hook], ...]
        due = run.definition.hooks.due(transition.types)
        if self._on_transition:
            due = self._on_transition + due
        if not due:
            return
        lane = self._owe(
            run,
            *[Owed(transition, kind, hook, i) for i, (kind, hook) in enumerate(due)],
        )
        if self._closed:
            self._give_up(lane)
        elif not lane.is_served and self.recorder is None:
            lane.is_served = self._summon(run)

    def track(self, run: RunActor) -> Lane:
        """Return a run's lane, which is one that somebody waits for from now on."""
        lane = run.lane
        if lane is None:
            lane = run.lane = Lane(run)
        self._open.add(lane)
        return lane

    def _owe(self, run: RunActor, *owed: Owed) -> Lane:
        lane = self.track(run)
        lane.owed += owed
        self.due += len(owed)
        return lane

    def owe(self, run: RunActor, step: Any, kind: str, hook: Hook) -> Lane:
        """File a hook that no transition owes, such as a transaction's.

        The run may have settled long ago. Whoever files the hook has the lane served.
        """
        with self._lock:
            lane = run.lane
            if lane is None and run.settled:
                lane = run.lane = Lane(run)
                lane.outcomes = run.outcomes
            lane = self._owe(run, Owed(step, kind, hook))
            if self._closed:
                self._give_up(lane)
            return lane

    def claim(self, lane: Lane) -> bool:
        """Take it upon the caller to serve a lane that is owed and has no server."""
        with self._lock:
            if lane.is_served or not lane.is_servable:
                return False
            lane.is_served = True
            return True

    def attend(self, lane: Lane, wake: Wake) -> bool:
        """Have *wake* called when a lane can be claimed or is idle; False if it is."""
        with self._lock:
            if not lane.is_served and lane.is_servable:
                return False
            lane.is_attended = True
            return lane.subscribe_idle(wake)

    # What the journal tells.

    def go_on(self, lanes: Iterable[Lane]) -> None:
        """Go on with lanes whose commits are over."""
        # Each on the loop that drives it, if one does: a wake-up from another thread
        # costs ten times as much, and one will do for all.
        groups: dict[Any, list[Lane]] = {}
        for lane in lanes:
            on = lane.run.dispatcher
            on_loop = on is not None and on.can_interrupt
            groups.setdefault(on if on_loop else None, []).append(lane)
        self._advance_all(groups.pop(None, ()))
        for on, group in groups.items():
            on.call_soon(self._advance_all, group)

    def _advance_all(self, lanes: Sequence[Lane]) -> None:
        for start in range(0, len(lanes), LANES_AT_ONCE):
            with self._lock:
                for lane in lanes[start : start + LANES_AT_ONCE]:
                    self._advance(lane)

    def _advance(self, lane: Lane) -> None:
        if lane.is_served or self._closed:
            return
        if lane.is_servable:
            if lane.is_attended:
                lane.wake_waiters()
            else:
                lane.run.lane = lane  # a run that was refused has let go of it
                lane.is_served = self._summon(lane.run)
        elif lane.is_done:
            self._close_lane(lane)

    def refuse(self, error: JournalError) -> None:
        """Fail the runs whose bodies wait for a journal that cannot be written."""
        with self._lock:
            for lane in tuple(self._open):
                lane.refuse(error)

    def veto(self, run: RunActor, error: JournalError) -> None:
        """Fail a run before its body begins, since nobody would ever know of it.

        Children without hooks are not held up: nobody was going to be told of them.
        """
        if run.lane is None and (run.parent is None or run.definition.hooks.by_kind):
            run.lane = Lane(run)
        if run.lane is not None:
            run.lane.veto, run.lane.is_refused = error, True

    def expect(self) -> None:
        """Note that a recovery has begun to look for what it has to deliver."""
        self._expects_more = True

    def expect_no_more(self) -> None:
        """Note that the recovery has handed everything over."""
        with self._lock:
            self._expects_more = False
            self._let_go()

    def deliver_late(self, run: RunActor, owed: Sequence[Owed]) -> bool:
        """Deliver what an earlier process owed for a run; False if it is too late."""
        with self._lock:
            if self._closed:
                return False
            lane = self._owe(run, *owed)
            lane.is_served = self._summon(run)
            return True

    def enqueue(self, on: Any, lane: Lane) -> None:
        """Have a lane served where *on* drives; called with the lock held."""
        self._ready.setdefault(on, deque()).append(lane)
        if on not in self._called:
            self._call_server(on)

    def _call_server(self, on: Any) -> None:
        """Have one more server begin, within limits; called with the lock held."""
        servers = self._servers.get(on, 0)
        if servers < self._concurrency:
            self._called.add(on)
            self._servers[on] = servers + 1
            # In an empty context: a server outlives the run that it is called for.
            Context().run(on.spawn_service, self._begin_server, on)

    async def _begin_server(self, on: Any) -> None:
        with self._lock:
            self._called.discard(on)
        await self._supervisor.watch("hook actor", partial(self._serve_loop, on))

    async def _serve_loop(self, on: Any) -> None:
        ready = self._ready[on]
        while True:
            with self._lock:
                if not ready:
                    self._servers[on] -= 1
                    return
                lane = ready.popleft()
                if ready and on not in self._called:
                    self._call_server(on)  # in case that this one has to wait
            try:
                await self.serve(lane, on)
                del lane  # see engine.tracebacks
            except Exception:
                raise  # the supervisor starts this server again
            except BaseException:
                with self._lock:
                    self._servers[on] -= 1
                raise

    async def serve(self, lane: Lane, on: Dispatcher) -> None:
        """Call a lane's hooks, one after the other, until none is owed."""
        try:
            while True:
                with self._lock:
                    if not lane.is_servable:
                        self._leave(lane)
                        del lane  # see engine.tracebacks
                        return
                    lane.current, lane.owed = lane.owed[0], lane.owed[1:]
                if lane.run.is_lost and self.recorder is not None:
                    await self._announce(lane, self.recorder, on)
                await self._deliver(lane, lane.current, on)
        except BaseException:
            # The server itself is stopped: what is left is owed by nobody any more.
            with self._lock:
                self._give_up(lane)
            raise

    async def _announce(self, lane: Lane, recorder: Recorder, on: Dispatcher) -> None:
        """Have it on disk that a hook is tried, since it may end the process."""
        with self._lock:
            if lane.current is not None:
                recorder.begin(lane, lane.current)
        await on.wait(recorder.subscribe_written)

    async def _deliver(self, lane: Lane, owed: Owed | None, on: Dispatcher) -> None:
        if owed is None:
            return  # given up meanwhile
        transition, kind, hook, _ = owed
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
                if not on.contain():
                    raise
                status, error = "failed", unwrap_stop_iteration(caught)
                trim_traceback(error)
        self._end(lane, status, began, attempts, error)
        del lane, owed, transition, args, error  # see engine.tracebacks

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
            owed, lane.current = lane.current, None
            transition, kind, hook, position = owed
            seconds = time.monotonic() - began
            outcome = (
                hook.name, kind, lane.run.id, transition.sequence,
                transition.state.name, status, seconds, attempts, error,
            )  # fmt: skip
            self.counts[status] += 1
            lane.outcomes += outcome
            if status != "delivered" and hook.on_error == "fail_run":
                lane.veto = error
            if self.recorder is not None and position >= 0:
                self.recorder.outcome(lane, owed, HookOutcome._make(outcome))
        if status != "delivered":
            log_failure(lane.run, HookOutcome._make(outcome))
            if error is not None:
                # The hook's frames hold the run, whose outcomes hold the error.
                traceback.clear_frames(error.__traceback__)

    def _leave(self, lane: Lane) -> None:
        lane.is_served = False
        if lane.is_done:
            self._close_lane(lane)

    def _close_lane(self, lane: Lane) -> None:
        self._open.discard(lane)
        lane.became_idle()
        self._let_go()

    def _let_go(self) -> None:
        if not self._open and not self._expects_more:
            waiters, self._waiters = self._waiters, []
            for wake in waiters:
                wake()

    def _give_up(self, lane: Lane) -> None:
        if lane.current is not None:
            self._end(lane, "undelivered", time.monotonic(), 1, None)
        while lane.owed:
            lane.current, lane.owed = lane.owed[0], lane.owed[1:]
            self._end(lane, "undelivered", time.monotonic(), 0, None)
        self._close_lane(lane)

    def subscribe_idle(self, wake: Wake) -> bool:
        """Have *wake* called when no hook is owed; False if none is."""
        with self._lock:
            if not self._open and not self._expects_more:
                return False
            self._waiters.append(wake)
            return True

    def close(self, error: JournalError | None = None) -> None:
        """Take no more; what has not ended by now becomes undelivered.

        Args:
            error: Why the journal was given up. It fails the runs whose bodies wait for
                their hooks: a recovery will call those, and that must not be later.
        """
        with self._lock:
            self._closed = True
            for lane in tuple(self._open):
                if error is not None and lane.holds_body:
                    lane.veto, lane.is_refused = error, True
                self._give_up(lane)


def log_failure(run: RunActor, outcome: HookOutcome) -> None:
    """Log a hook that was not delivered."""
    log.error(
        "hook_failed",
        hook=outcome.hook,
        kind=outcome.kind,
        run_id=outcome.run_id,
        run=run.name,
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
    run, state = transition.actor, transition.state
    return (run.definition, view(run, state), state)
