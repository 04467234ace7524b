"""Handles: addresses of runs, to ask, wait for and cancel them."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, overload

from engine.actors import messages as m
from engine.checks import Checker
from engine.context import run_of_this_thread
from engine.dispatch.here import loop_waiter, running_backend
from engine.exceptions import BlockingCallError
from engine.executors.thread import block
from engine.runs import view
from engine.states import COMPLETED, CRASHED, State, failure, is_states

if TYPE_CHECKING:
    from engine.actors.run import RunActor
    from engine.hooks import HookOutcome
    from engine.runs import FlowRun, TaskRun

R_co = TypeVar("R_co", covariant=True)

CAUGHT_CRASHES: Final = frozenset(("stray_cancel", "worker_lost", "abandoned"))
"""Causes of a crash for which the original error would say nothing to the caller."""


class RunHandle(Generic[R_co]):
    """The address of a run: ask it how the run is doing, wait for it, or cancel it.

    ``await handle`` gives the value, or raises what the run raised. Waiting and giving
    up on waiting do nothing to the run; only `cancel` does. A handle outlives its run
    and keeps its terminal state.
    """

    __slots__ = ("__weakref__", "_actor")

    def __init__(self, actor: RunActor) -> None:
        self._actor = actor

    @property
    def id(self) -> str:
        """The run's identity."""
        return self._actor.id

    @property
    def name(self) -> str:
        """What the run is called."""
        return self._actor.name

    @property
    def run(self) -> FlowRun | TaskRun:
        """The run as it is now."""
        return view(self._actor)

    @property
    def state(self) -> State[R_co]:
        """The state the run is in now."""
        return self._actor.state

    @property
    def hook_outcomes(self) -> tuple[HookOutcome, ...]:
        """What became of the hooks called so far, in the order they were called."""
        return self._actor.hook_outcomes()

    @property
    def unobserved(self) -> tuple[RunHandle[Any], ...]:
        """Children that failed or crashed and whose end nobody looked at."""
        return tuple(RunHandle(child) for child in self._actor.failures or ())

    def cancel(self, reason: str | None = None) -> None:
        """Ask the run to stop; from any thread, at any time, any number of times.

        Returns at once: the run is Cancelling, its children likewise, and Cancelled
        when all of them have stopped. Use `join` to wait for that. A run that has
        ended is left as it is.

        Args:
            reason: A sentence for the state's message; None takes a default one.
        """
        self._actor.send(m.CancelRequested("user", reason))

    def __await__(self) -> Generator[Any, Any, R_co]:
        """Wait for the run and its hooks; give its value or raise its error."""
        if not self._actor.settled:
            yield from self._settled().__await__()
        if self._actor.state_type is COMPLETED:
            return self._actor.value  # type: ignore[no-any-return]
        self._actor.observe()
        states = [self._actor.state]
        del self  # see State.result
        return outcome(states.pop())  # type: ignore[no-any-return]

    async def join(self) -> State[R_co]:
        """Wait for the run and its hooks; return the terminal state.

        Never raises the run's own error. Being cancelled while waiting does not cancel
        the run.
        """
        if not self._actor.settled:
            await self._settled()
        self._actor.observe()
        return self._actor.state

    async def _settled(self) -> None:
        actor = self._actor
        actor.observe()
        waiter = loop_waiter()
        await waiter.wait(actor.subscribe_settled, actor.unsubscribe_settled)

    def wait(self, timeout: float | None = None) -> State[R_co]:
        """Block until the run and its hooks are done; return the state it is in then.

        For sync code. Never raises the run's own error.

        Args:
            timeout: Seconds to wait at most; None waits for ever.

        Raises:
            BlockingCallError: Called on the event loop that the run needs to end.
        """
        return self._wait(timeout, "handle.wait()")

    def _wait(self, timeout: float | None, call: str) -> State[R_co]:
        """Wait as *call*, which complaints name."""
        if timeout is not None:
            Checker("call", call).seconds("timeout", timeout, zero=True)
        actor = self._actor
        actor.observe()
        if not actor.settled:
            refuse_to_block(actor, call)
            event = threading.Event()
            if actor.subscribe_settled(event.set):
                try:
                    block(event, timeout)
                finally:
                    actor.unsubscribe_settled(event.set)
        return actor.state

    @overload
    def result(
        self, timeout: float | None = None, raise_on_failure: Literal[True] = True
    ) -> R_co: ...
    @overload
    def result(
        self, timeout: float | None = None, *, raise_on_failure: bool
    ) -> R_co | BaseException: ...
    def result(
        self, timeout: float | None = None, raise_on_failure: bool = True
    ) -> Any:
        """Block until the run is done; give its value or raise its error.

        For sync code.

        Args:
            timeout: Seconds to wait at most; None waits for ever.
            raise_on_failure: False returns the exception instead of raising it.

        Raises:
            TimeoutError: The run was not done in time; it goes on.
            BlockingCallError: Called on the event loop that the run needs to end.
        """
        try:
            return self._result(timeout, raise_on_failure, "handle.result()")
        finally:
            del self  # see State.result

    def _result(self, timeout: float | None, raise_on_failure: bool, call: str) -> Any:
        """Give the result as *call*, which complaints name."""
        states = [self._wait(timeout, call)]
        if not self._actor.settled:
            raise TimeoutError(f"run {self.name!r} was not done after {timeout:g} s")
        if not raise_on_failure and states[0].type is not COMPLETED:
            return states[0].result(raise_on_failure=False)
        del self  # see State.result
        return outcome(states.pop())

    def observe(self) -> None:
        """Note that somebody looks at how the run ends: it is not `unobserved`."""
        self._actor.observe()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunHandle) and other._actor is self._actor

    def __hash__(self) -> int:
        return hash(self._actor)

    def __repr__(self) -> str:
        actor = self._actor
        return f"<RunHandle {actor.name!r} id={actor.id} {actor.state.name}>"


def outcome_of_run(run: RunActor) -> Any:
    """Give the caller what a run that has ended owes: its value or its error."""
    if run.state_type is COMPLETED:
        return run.value
    states = [run.state]
    del run  # see State.result
    return outcome(states.pop())


def outcome(state: State[Any]) -> Any:
    """Give the caller what a run that ended in *state* owes: its value or its error.

    A run judged by a collection of states that it returned gives the collection,
    however it ended.
    """
    if state.type is COMPLETED or is_states(state.data):
        return state.data
    data = state.data
    raised = isinstance(data, BaseException)
    if state.type is CRASHED and raised and state.cause not in CAUGHT_CRASHES:
        error = data
    else:
        error = failure(state)
    try:
        raise error
    finally:
        del error, data, state  # see State.result


def refuse_to_block(actor: RunActor, call: str) -> None:
    """Raise if blocking this thread would keep *actor* from ever ending.

    Code on a loop's thread must not wait for what that loop has to do. A sync flow that
    holds the loop may wait for what it started itself, which runs elsewhere.
    """
    if running_backend() is None:
        return
    current = run_of_this_thread()
    if current is None or actor.site < current.site:
        raise BlockingCallError(call)
