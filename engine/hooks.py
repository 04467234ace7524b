"""Hooks: what a user asks to be called when a run changes its state.

A hook takes ``(flow, flow_run, state)`` or ``(task, task_run, state)`` and may be a
function, an async function, a partial, a bound method or any callable object. Whatever
awaitable it returns is awaited. What it returns otherwise, and whatever it raises,
changes nothing about the run.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, NamedTuple, get_args

from engine.checks import Checker, with_article
from engine.exceptions import HookDefinitionError
from engine.states import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    CRASHED,
    FAILED,
    RUNNING,
    SCHEDULED,
    StateType,
)

HookKind = Literal[
    "on_running",
    "on_completion",
    "on_failure",
    "on_cancellation",
    "on_crashed",
    "on_retry",
]
KINDS: Final[tuple[HookKind, ...]] = get_args(HookKind)

TransactionHookKind = Literal["on_commit", "on_rollback"]
"""Hooks of a task's transaction: no transition owes them, its end does."""

TRANSACTION_KINDS: Final[tuple[TransactionHookKind, ...]] = get_args(
    TransactionHookKind
)

HookStatus = Literal["delivered", "failed", "timed_out", "undelivered"]

ON_ENTERING: Final[dict[StateType, HookKind]] = {
    RUNNING: "on_running",
    COMPLETED: "on_completion",
    FAILED: "on_failure",
    CRASHED: "on_crashed",
    CANCELLING: "on_cancellation",
    SCHEDULED: "on_retry",
}


ENTERED_FOR: Final[dict[HookKind, tuple[StateType, ...]]] = {
    "on_running": (RUNNING,),
    "on_completion": (COMPLETED,),
    "on_failure": (FAILED,),
    "on_crashed": (CRASHED,),
    "on_cancellation": (CANCELLING, CANCELLED),
    "on_retry": (SCHEDULED, RUNNING),
}
"""On entering states of which types a kind of hook may be due."""


def kinds_due(previous: StateType | None, entered: StateType) -> tuple[HookKind, ...]:
    """Return the kinds of hook that a transition owes, in the order they run."""
    if entered is RUNNING and previous is RUNNING:
        return ("on_retry", "on_running")
    if entered is CANCELLED:
        # A run that was asked to stop owed its hook on entering CANCELLING; one that
        # returned a cancelled state never was.
        return () if previous is CANCELLING else ("on_cancellation",)
    kind = ON_ENTERING.get(entered)
    return () if kind is None else (kind,)


class HookOutcome(NamedTuple):
    """What became of one hook that a transition, or a transaction's end, owed.

    Attributes:
        hook: The hook's name.
        kind: The list it was registered in, or ``on_transition`` for an engine's own.
        run_id: The run whose transition owed it.
        sequence: The transition's number; with *run_id* and *hook* the delivery's key.
            Of a transaction's hooks the number of the last transition before them.
        state: Name of the state that was entered; of a transaction's hooks
            ``Committed`` or ``RolledBack``.
        status: ``delivered``, ``failed`` (it raised), ``timed_out``, or
            ``undelivered`` (the engine shut down first).
        seconds: How long all attempts took together.
        attempts: How often it was called.
        error: What it raised last, or None.
    """

    hook: str
    kind: str
    run_id: str
    sequence: int
    state: str
    status: HookStatus
    seconds: float = 0.0
    attempts: int = 0
    error: BaseException | None = None


OUTCOME_FIELDS: Final = len(HookOutcome._fields)

Outcomes = tuple[Any, ...]
"""Fields of `HookOutcome`s, one after the other's, as a run keeps them: one object for
the garbage collector, which lets go of plain tuples that hold nothing to walk."""


def outcomes_of(kept: Outcomes) -> tuple[HookOutcome, ...]:
    """Return outcomes as others see them."""
    return tuple(
        map(HookOutcome._make, zip(*[iter(kept)] * OUTCOME_FIELDS, strict=True))
    )


class Hook:
    """A hook that needs more than the defaults.

    Args:
        fn: What to call.
        timeout: Seconds one call may take; None takes the engine's ``hook_timeout``.
        retries: How often a failed or timed-out call is repeated.
        on_error: ``"log"`` records a failure and goes on. ``"fail_run"``, for
            ``on_running`` and ``on_retry`` only, fails the run before its body starts;
            a terminal state is never changed by a hook.

    Raises:
        HookDefinitionError: *fn* is not callable, or a generator function.
        ValueError: *timeout*, *retries* or *on_error* is out of range.
    """

    __slots__ = ("fn", "is_async", "name", "on_error", "retries", "timeout")

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        timeout: float | None = None,
        retries: int = 0,
        on_error: Literal["log", "fail_run"] = "log",
    ) -> None:
        if not callable(fn):
            problem = f"it is {with_article(type(fn).__name__)}, not a callable"
            raise HookDefinitionError(repr(fn), "Hook", problem, "Hook(callable, ...)")
        self.fn = fn
        self.name = name_of(fn)
        self.is_async = is_async_callable(fn)
        check = Checker("hook", self.name)
        self.timeout = None
        if timeout is not None:
            self.timeout = check.seconds("timeout", timeout, zero=False)
        self.retries = check.count("retries", retries, 0)
        if on_error not in ("log", "fail_run"):
            text = f"on_error must be 'log' or 'fail_run', got {on_error!r}"
            raise check.bad_value(text)
        self.on_error = on_error

    def __repr__(self) -> str:
        return f"Hook({self.name})"


class Hooks:
    """The hooks of one flow or task, by kind, in the order of registration."""

    __slots__ = ("_due", "by_kind", "owner", "types")

    def __init__(self, owner: Literal["flow", "task"]) -> None:
        self.owner: Literal["flow", "task"] = owner
        self.by_kind: dict[str, tuple[Hook, ...]] = {}
        # Types of the states that may owe any of them: most transitions owe none.
        self.types: frozenset[StateType] = frozenset()
        # What has been found out by `due`.
        self._due: dict[Any, tuple[tuple[HookKind, Hook], ...]] = {}

    def __bool__(self) -> bool:
        return bool(self.by_kind)

    def add(
        self, kind: HookKind | TransactionHookKind, fn: Callable[..., Any] | Hook
    ) -> None:
        """Append a hook, after checking that it can be called as one.

        Raises:
            HookDefinitionError: It is not callable, takes other arguments, or is a
                generator function.
        """
        hook = fn if isinstance(fn, Hook) else Hook(self._callable(kind, fn))
        self._check(kind, hook)
        # A new tuple, because a run may be walking the old one in another thread.
        self.by_kind[kind] = (*self.by_kind.get(kind, ()), hook)
        self._index()

    def replace(
        self, kind: HookKind | TransactionHookKind, hooks: Iterable[Any]
    ) -> None:
        """Put *hooks* in place of the kind's list; an empty one clears it."""
        if isinstance(hooks, str) or not isinstance(hooks, Iterable):
            raise HookDefinitionError(
                safe_name(hooks),
                kind,
                f"it takes a list of hooks, got {type(hooks).__name__}",
                self._form(kind),
            )
        given = list(hooks)
        self.by_kind.pop(kind, None)
        self._index()
        for hook in given:
            self.add(kind, hook)

    def _index(self) -> None:
        self._due = {}
        self.types = frozenset(
            entered
            for kind, types in ENTERED_FOR.items()
            if kind in self.by_kind
            for entered in types
        )

    def copy(self) -> Hooks:
        """Return hooks that can be changed without changing these."""
        copy = Hooks(self.owner)
        copy.by_kind = dict(self.by_kind)
        copy.types = self.types
        return copy

    def due(
        self, step: tuple[StateType | None, StateType]
    ) -> tuple[tuple[HookKind, Hook], ...]:
        """Return what a transition between types owes, in the order it has to run."""
        due = self._due.get(step)
        if due is None:
            due = self._due[step] = tuple(
                (kind, hook)
                for kind in kinds_due(*step)
                for hook in self.by_kind.get(kind, ())
            )
        return due

    def _callable(self, kind: str, fn: Any) -> Callable[..., Any]:
        if callable(fn):
            return fn  # type: ignore[no-any-return]
        problem = f"it is {with_article(type(fn).__name__)}, not a callable"
        raise HookDefinitionError(safe_name(fn), kind, problem, self._form(kind))

    def _check(self, kind: HookKind | TransactionHookKind, hook: Hook) -> None:
        problem = signature_problem(hook.fn, 1 if kind in TRANSACTION_KINDS else 3)
        too_late = kind not in ("on_running", "on_retry")
        if problem is None and hook.on_error == "fail_run" and too_late:
            problem = "on_error='fail_run' is for on_running and on_retry only"
        if problem is not None:
            raise HookDefinitionError(hook.name, kind, problem, self._form(kind))

    def _form(self, kind: str) -> str:
        owner = self.owner
        takes = f"{owner}, {owner}_run, state"
        if kind in TRANSACTION_KINDS:
            takes = "transaction"
        return (
            f"A hook looks like this:\n\n"
            f"def hook({takes}): ...\n\n"
            f"@{owner}({kind}=[hook])\ndef my_{owner}(): ..."
        )


def transition_hook(fn: Any) -> Hook:
    """Check a hook that is called with every transition of an engine.

    Raises:
        HookDefinitionError: It is not callable with one argument.
    """
    form = "A hook looks like this:\n\ndef hook(transition): ..."
    problem = None
    if not isinstance(fn, Hook) and not callable(fn):
        problem = f"it is {with_article(type(fn).__name__)}, not a callable"
    if problem is None:
        hook = fn if isinstance(fn, Hook) else Hook(fn)
        problem = signature_problem(hook.fn, 1)
        if problem is None:
            return hook
    raise HookDefinitionError(safe_name(fn), "on_transition", problem, form)


def transition_hooks(hooks: Any) -> list[Hook]:
    """Check the list of an engine's own hooks.

    Raises:
        HookDefinitionError: It is no list, or `transition_hook` refuses one of them.
    """
    if isinstance(hooks, str) or not isinstance(hooks, Iterable):
        problem = f"it takes a list of hooks, got {type(hooks).__name__}"
        form = "Engine(on_transition=[hook])"
        raise HookDefinitionError(safe_name(hooks), "on_transition", problem, form)
    return [transition_hook(hook) for hook in hooks]


def name_of(fn: Any) -> str:
    """Return what to call *fn* in logs and outcomes."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(fn, "__name__", None) or type(fn).__name__


def safe_name(value: Any) -> str:
    """Return a short name for something that may be no callable at all."""
    return name_of(value) if callable(value) else repr(value)[:80]


def is_async_callable(fn: Any) -> bool:
    """Whether calling *fn* gives a coroutine, seen through partials and objects."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if inspect.iscoroutinefunction(fn):
        return True
    return inspect.iscoroutinefunction(call_of(fn))


def call_of(fn: Any) -> Any:
    """Return the function that calling an object runs, or None."""
    return getattr(type(fn), "__call__", None)  # noqa: B004 - wanted, not only tested


def signature_problem(fn: Any, arguments: int) -> str | None:
    """Say why *fn* cannot be called with so many positional arguments, or None."""
    inner = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    call = inner if inspect.isroutine(inner) else call_of(inner)
    if inspect.isasyncgenfunction(call) or inspect.isgeneratorfunction(call):
        return "it is a generator function, whose body would never run"
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return None  # some builtins have none; they are checked by being called
    try:
        signature.bind(*range(arguments))
    except TypeError as error:
        given = f"{arguments} positional argument{'s' if arguments > 1 else ''}"
        return f"it is called with {given}, but {error}"
    return None
