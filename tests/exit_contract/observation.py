"""What one run of a case showed, in the words of the table."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import attrs
import trio

from engine.exceptions import CrashedRun, Terminated, UpstreamNotCompleted
from engine.states import State

if TYPE_CHECKING:
    from engine import RunHandle, Transition

    from .stage import Stage


@attrs.frozen
class HookCall:
    """One call of a hook, as the hook itself noted it."""

    run_id: str
    kind: str
    colour: str
    state: str


@attrs.frozen(kw_only=True)
class Observation:
    """What can be compared with a row of the table.

    Attributes:
        states: The states of the run after Pending.
        hooks: The kinds of its hooks, in the order in which they ran.
        sees: What became of the caller.
        parent: The states of the flow around it after Pending; empty without one.
        complaints: What broke a rule that holds for every run.
    """

    states: tuple[str, ...]
    hooks: tuple[str, ...]
    sees: str
    parent: tuple[str, ...]
    complaints: tuple[str, ...]


def definition_name(seen: Transition | RunHandle[Any]) -> str:
    """Return the name of the flow or task of a step's, or a handle's, run."""
    run: Any = seen.run
    return run.flow_name if hasattr(run, "flow_name") else run.task_name


def state_words(state: State[Any]) -> str:
    """Return a state's name, its type where that is not the same, and its cause."""
    words, kind = state.name, state.type.value.capitalize()
    if kind != state.name:
        words = f"{words} (type {kind})"
    return words if state.cause is None else f"{words}, cause {state.cause}"


def states_after_pending(transitions: Iterable[Transition]) -> tuple[str, ...]:
    """Return the states of one run, less the first."""
    states = [transition.state for transition in transitions]
    return tuple(state_words(state) for state in states[1:])


def kinds_called(calls: Iterable[HookCall], colours: tuple[str, ...]) -> list[str]:
    """Return the kinds of hook that were called, each once for all its *colours*.

    A call that is missing, doubled or out of order stays in the list as itself.
    """
    left, kinds = list(calls), []
    while left:
        same = [call.colour for call in left[: len(colours)]]
        alike = len({(call.kind, call.state) for call in left[: len(colours)]}) == 1
        if tuple(same) == colours and alike:
            kinds.append(left[0].kind)
            del left[: len(colours)]
        else:
            kinds.append(f"only the {left[0].colour} {left[0].kind}")
            del left[0]
    return kinds


def is_cancellation(error: BaseException) -> bool:
    """Whether *error* is how a loop cancels; a nursery makes a group of it."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_cancellation, error.exceptions))
    return isinstance(error, asyncio.CancelledError | trio.Cancelled)


def sees(stage: Stage) -> str:
    """Say what the caller got."""
    if not stage.path.waits:
        return "—"
    error = stage.raised
    if error is None:
        return returned(stage)
    if error is stage.error:
        return stage.error_words
    if isinstance(error, Terminated):
        return "the termination"
    if isinstance(error, KeyboardInterrupt):
        return "the interrupt"
    if is_cancellation(error):
        return "the cancellation" if stage.was_cancelled else "a stray cancellation"
    if isinstance(error, CrashedRun) and error.__cause__ is stage.error:
        return "`CrashedRun`, with the original as cause"
    if isinstance(error, UpstreamNotCompleted) and error.__cause__ is stage.error:
        return "`UpstreamNotCompleted`, with the upstream's error as cause"
    return f"`{type(error).__name__}`"


def returned(stage: Stage) -> str:
    """Say what the caller was given."""
    value = stage.returned
    if value is stage.value:
        return "the value"
    if isinstance(value, list) and value and all(isinstance(v, State) for v in value):
        return "the collection"
    return repr(value)
