"""The table: how a run ends, its states and hooks, and what the caller sees.

States are those after Pending, with their type where it is not what they are called,
and their cause. Hooks are kinds, each called once for every hook registered. Rows that
are `listed` make up the README's table; the others are special cases of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from . import ways
from .cases import Entry, Omission, Place
from .observation import Observation
from .stage import Act, Script, SetUp


@attrs.frozen(kw_only=True, eq=False)
class ExitPath:
    """One row.

    Attributes:
        key: What its tests are called.
        how: How the run ends, in the README's words.
        states: The states after Pending.
        hooks: The kinds of hooks, in order.
        sees: What the caller sees.
        parent: The states of the flow around it, after Pending; None is not said.
        body: What its body does.
        error: Makes what it raises, if it does.
        options: Options of the flow or task.
        arguments: What it is called with.
        keywords: What else it is called with.
        annotation: The type of its positional arguments.
        set_up: What has to be there before.
        enter: How it is called, if not just so.
        around: The body of the flow that calls it; None where there is none.
        parent_options: Options of that flow.
        engine: Options of the engine.
        at: The moment when something is done to the run: its ``body`` stays, the first
            of its hooks of that kind is held up, or it enters the state of that name.
        then: What is done at that moment.
        waits: Whether the caller waits for the run.
        is_apart: Whether the caller is outside of the engine's block.
        has_own_task: Whether the caller is an asyncio task of its own.
        listed: Whether the README shows the row.
        omits: Cases that are left out.
    """

    key: str
    how: str
    states: tuple[str, ...]
    hooks: tuple[str, ...]
    sees: str
    parent: tuple[str, ...] | None = None
    body: Script = ways.returns
    error: Callable[[], BaseException] = lambda: ValueError("boom")
    options: Mapping[str, Any] = attrs.field(factory=dict)
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = attrs.field(factory=dict)
    annotation: Any = Any
    set_up: SetUp | None = None
    enter: Script | None = None
    around: Script | None = None
    parent_options: Mapping[str, Any] = attrs.field(factory=dict)
    engine: Mapping[str, Any] = attrs.field(factory=dict)
    at: str | None = None
    then: Act | None = None
    waits: bool = True
    is_apart: bool = False
    has_own_task: bool = False
    listed: bool = True
    omits: tuple[Omission, ...] = ()

    @property
    def has_deadline(self) -> bool:
        """Whether the clock decides how the run ends."""
        return "timeout_seconds" in {**self.options, **self.parent_options}

    def is_shown_by(self, seen: Observation) -> bool:
        """Whether a case has ended as the row says."""
        row = (self.states, self.hooks, self.sees, ())
        return row == (seen.states, seen.hooks, seen.sees, seen.complaints)


def cancelled(cause: str) -> tuple[str, str]:
    """Return the states of a run that was asked to stop and has stopped."""
    return f"Cancelling, cause {cause}", f"Cancelled, cause {cause}"


STOPPED = ("on_running", "on_cancellation")
DIRECT, ALONE, RUN, START, SUBMIT = Entry

NO_HANDLE = Omission(
    "a call without an engine can have its handle from nobody", entries=(ALONE,)
)
ASYNC_ONLY = Omission("a sync body has nothing like it", is_async=False)
LOOPS_ONLY = Omission("there is no loop", place=Place.THREAD)
NOT_ON_TRIO = Omission("asyncio has it, trio has not", place=Place.TRIO)
NOT_ON_ASYNCIO = Omission("trio has it, asyncio has not", place=Place.ASYNCIO)
FLOWS_ONLY = Omission("only flows are judged by their children", kind="task")
TASKS_ONLY = Omission("only tasks are streamed", kind="flow")
HOST_OMITS = (
    LOOPS_ONLY,
    Omission(
        "nobody can cancel a caller whose thread the body holds",
        is_async=False,
        entries=(DIRECT, ALONE),
    ),
    Omission("a started run is detached from its caller", entries=(START,)),
    Omission("a submitted run follows its parent, not its caller", entries=(SUBMIT,)),
)
PARENT_OMITS = (
    Omission("without an engine around it a call is at the top", entries=(ALONE,)),
    Omission("engine.start() makes runs at the top", entries=(START,)),
)
SUBMITTED_ONLY = Omission(
    "a parent that waits in its child cannot raise", entries=(DIRECT, ALONE, RUN, START)
)
HOLDS_LOOP = tuple(
    Omission(
        "it holds the loop on which that would happen",
        is_async=False,
        place=place,
        entries=(DIRECT,),
    )
    for place in (Place.ASYNCIO, Place.TRIO)
)
SIGNAL_OMITS = (
    Omission("an engine for one call leaves signals alone", entries=(ALONE,)),
)

TABLE: Final = (
    ExitPath(
        key="returns",
        how="returns a value",
        states=("Running", "Completed"),
        hooks=("on_running", "on_completion"),
        sees="the value",
    ),
    ExitPath(
        key="retries",
        how="raises an `Exception`, retries left",
        states=("Running", "Retrying (type Running)", "Completed"),
        hooks=("on_running", "on_retry", "on_running", "on_completion"),
        sees="the value",
        body=ways.raises_once,
        options={"retries": 1},
    ),
    ExitPath(
        key="retries_later",
        how="the same, with a delay",
        states=(
            "Running",
            "AwaitingRetry (type Scheduled)",
            "Retrying (type Running)",
            "Completed",
        ),
        hooks=("on_running", "on_retry", "on_running", "on_completion"),
        sees="the value",
        body=ways.raises_once,
        options={"retries": 1, "retry_delay_seconds": 0.001},
    ),
    ExitPath(
        key="raises",
        how="raises an `Exception`, none left",
        states=("Running", "Failed"),
        hooks=("on_running", "on_failure"),
        sees="the same exception object",
        body=ways.raises,
    ),
    ExitPath(
        key="raises_again",
        how="raises an `Exception` in its last retry",
        states=("Running", "Retrying (type Running)", "Failed"),
        hooks=("on_running", "on_retry", "on_running", "on_failure"),
        sees="the same exception object",
        body=ways.raises,
        options={"retries": 1},
        listed=False,
    ),
    ExitPath(
        key="times_out",
        how="`timeout_seconds` passes",
        states=("Running", "TimedOut (type Failed)"),
        hooks=("on_running", "on_failure"),
        sees="`TimeoutError`",
        body=ways.stays,
        options={"timeout_seconds": 0.01},
        at="body",
    ),
    ExitPath(
        key="times_out_and_retries",
        how="`timeout_seconds` passes, retries left",
        states=("Running", "Retrying (type Running)", "Completed"),
        hooks=("on_running", "on_retry", "on_running", "on_completion"),
        sees="the value",
        body=ways.stays_once,
        options={"timeout_seconds": 0.01, "retries": 1},
        listed=False,
        omits=(Omission("a sync body is given up without a retry", is_async=False),),
    ),
    ExitPath(
        key="times_out_in_thread",
        how="`timeout_seconds` passes in a sync body, retries left",
        states=("Running", "TimedOut (type Failed)"),
        hooks=("on_running", "on_failure"),
        sees="`TimeoutError`",
        body=ways.stays,
        options={"timeout_seconds": 0.01, "retries": 1},
        at="body",
        listed=False,
        omits=(Omission("an async body is stopped, and retried", is_async=True),),
    ),
    ExitPath(
        key="swallows_timeout",
        how="swallows the cancellation that its deadline brings, and returns",
        states=("Running", "TimedOut (type Failed)"),
        hooks=("on_running", "on_failure"),
        sees="`TimeoutError`",
        body=ways.returns_anyway,
        options={"timeout_seconds": 0.01},
        at="body",
        listed=False,
        omits=(ASYNC_ONLY,),
    ),
    ExitPath(
        key="bad_arguments",
        how="bad arguments",
        states=("Failed, cause arguments",),
        hooks=("on_failure",),
        sees="`TypeError`",
        keywords={"unknown": 1},
    ),
    ExitPath(
        key="invalid_arguments",
        how="arguments that pydantic refuses",
        states=("Failed, cause arguments",),
        hooks=("on_failure",),
        sees="`ParameterTypeError`",
        arguments=("one",),
        annotation=int,
        options={"validate_parameters": True},
        listed=False,
        omits=(Omission("only flows validate", kind="task"),),
    ),
    ExitPath(
        key="not_ready",
        how="an upstream did not complete",
        states=("NotReady (type Failed), cause upstream",),
        hooks=("on_failure",),
        sees="`UpstreamNotCompleted`, with the upstream's error as cause",
        set_up=ways.depends_on_failure,
        omits=(Omission("without an engine there is no other run", entries=(ALONE,)),),
    ),
    ExitPath(
        key="returns_completed_state",
        how="returns a `Completed` state",
        states=("Running", "Cached (type Completed)"),
        hooks=("on_running", "on_completion"),
        sees="the value",
        body=ways.returns_completed,
        listed=False,
    ),
    ExitPath(
        key="returns_failed_state",
        how="returns a `Failed` state",
        states=("Running", "Failed"),
        hooks=("on_running", "on_failure"),
        sees="the same exception object",
        body=ways.returns_failed,
    ),
    ExitPath(
        key="returns_cancelled_state",
        how="returns a `Cancelled` state",
        states=("Running", "Cancelled"),
        hooks=("on_running", "on_cancellation"),
        sees="`CancelledRun`",
        body=ways.returns_cancelled,
        listed=False,
    ),
    ExitPath(
        key="returns_crashed_state",
        how="returns a `Crashed` state",
        states=("Running", "Crashed"),
        hooks=("on_running", "on_crashed"),
        sees="the same exception object",
        body=ways.returns_crashed,
        listed=False,
    ),
    ExitPath(
        key="returns_failed_child",
        how="returns the handle of a child that failed",
        states=("Running", "Failed"),
        hooks=("on_running", "on_failure"),
        sees="the same exception object",
        body=ways.returns_failed_child,
        omits=(FLOWS_ONLY,),
    ),
    ExitPath(
        key="returns_states",
        how="returns states of its children, not all completed",
        states=("Running", "Failed"),
        hooks=("on_running", "on_failure"),
        sees="the collection",
        body=ways.returns_states,
        omits=(FLOWS_ONLY,),
    ),
    ExitPath(
        key="cancelled",
        how="`handle.cancel()`",
        states=("Running", *cancelled("user")),
        hooks=STOPPED,
        sees="`CancelledRun`",
        body=ways.stays,
        at="body",
        then=ways.cancel,
        omits=(NO_HANDLE,),
    ),
    ExitPath(
        key="cancelled_twice",
        how="`handle.cancel()`, twice",
        states=("Running", *cancelled("user")),
        hooks=STOPPED,
        sees="`CancelledRun`",
        body=ways.stays,
        at="body",
        then=ways.cancel_twice,
        listed=False,
        omits=(NO_HANDLE,),
    ),
    ExitPath(
        key="cancelled_at_start",
        how="`handle.cancel()` right after `start()` or `submit()`",
        states=cancelled("user"),
        hooks=("on_cancellation",),
        sees="`CancelledRun`",
        enter=ways.cancels_in_the_same_breath,
        around=None,
        listed=False,
        omits=(
            LOOPS_ONLY,
            Omission("its thread may have begun already", is_async=False),
            Omission("its caller has no handle", entries=(DIRECT, ALONE, RUN)),
        ),
    ),
    ExitPath(
        key="cancelled_before_upstream",
        how="`handle.cancel()` while it waits for an upstream",
        states=cancelled("user"),
        hooks=("on_cancellation",),
        sees="`CancelledRun`",
        set_up=ways.depends_on_blocker,
        at="Pending",
        then=ways.cancel,
        listed=False,
        omits=(NO_HANDLE,),
    ),
    ExitPath(
        key="cancelled_in_queue",
        how="`handle.cancel()` while `max_concurrency` keeps it from starting",
        states=cancelled("user"),
        hooks=("on_cancellation",),
        sees="`CancelledRun`",
        engine={"max_concurrency": 1},
        set_up=ways.starts_blocker,
        at="Pending",
        then=ways.cancel,
        listed=False,
        omits=(
            NO_HANDLE,
            Omission("a call in place is not limited", entries=(DIRECT,)),
            Omission("a call in place is not limited", is_async=True, entries=(RUN,)),
        ),
    ),
    ExitPath(
        key="cancelled_awaiting_retry",
        how="`handle.cancel()` while it waits for a retry",
        states=("Running", "AwaitingRetry (type Scheduled)", *cancelled("user")),
        hooks=("on_running", "on_retry", "on_cancellation"),
        sees="`CancelledRun`",
        body=ways.raises,
        options={"retries": 1, "retry_delay_seconds": 3600},
        at="AwaitingRetry",
        then=ways.cancel,
        listed=False,
        omits=(NO_HANDLE,),
    ),
    ExitPath(
        key="cancelled_in_hook",
        how="`handle.cancel()` during an `on_running` hook",
        states=("Running", *cancelled("user")),
        hooks=STOPPED,
        sees="`CancelledRun`",
        body=ways.returns,
        at="on_running",
        then=ways.cancel,
        listed=False,
        omits=(NO_HANDLE,),
    ),
    ExitPath(
        key="cancelled_too_late",
        how="`handle.cancel()` during an `on_completion` hook",
        states=("Running", "Completed"),
        hooks=("on_running", "on_completion"),
        sees="the value",
        at="on_completion",
        then=ways.cancel,
        listed=False,
        omits=(NO_HANDLE,),
    ),
    ExitPath(
        key="swallows_cancel",
        how="swallows the cancellation of `handle.cancel()`, and returns",
        states=("Running", *cancelled("user")),
        hooks=STOPPED,
        sees="`CancelledRun`",
        body=ways.returns_anyway,
        at="body",
        then=ways.cancel,
        listed=False,
        omits=(NO_HANDLE,),
    ),
    ExitPath(
        key="cleans_up_badly",
        how="`handle.cancel()`, and its cleanup raises",
        states=("Running", *cancelled("user")),
        hooks=STOPPED,
        sees="`CancelledRun`",
        body=ways.cleans_up_badly,
        at="body",
        then=ways.cancel,
        listed=False,
        omits=(NO_HANDLE,),
    ),
    ExitPath(
        key="cleans_up_by_exit",
        how="`handle.cancel()`, and its cleanup raises `SystemExit`",
        states=("Running", "Cancelling, cause user", "Crashed, cause SystemExit"),
        hooks=("on_running", "on_cancellation", "on_crashed"),
        sees="the same exception object",
        body=ways.cleans_up_badly,
        error=lambda: SystemExit(3),
        at="body",
        then=ways.cancel,
        listed=False,
        omits=(
            NO_HANDLE,
            Omission("a sync body is over before it cleans up", is_async=False),
        ),
    ),
    ExitPath(
        key="cancelled_in_task_group",
        how="`handle.cancel()` in a task group",
        states=("Running", *cancelled("user")),
        hooks=STOPPED,
        sees="`CancelledRun`",
        body=ways.stays_in_task_group,
        at="body",
        then=ways.cancel,
        listed=False,
        omits=(NO_HANDLE, ASYNC_ONLY),
    ),
    ExitPath(
        key="cancelled_in_nursery",
        how="`handle.cancel()` in a nursery",
        states=("Running", *cancelled("user")),
        hooks=STOPPED,
        sees="`CancelledRun`",
        body=ways.stays_in_nursery,
        at="body",
        then=ways.cancel,
        listed=False,
        omits=(NO_HANDLE, ASYNC_ONLY, NOT_ON_ASYNCIO, LOOPS_ONLY),
    ),
    ExitPath(
        key="cancelled_in_asyncio_group",
        how="`handle.cancel()` in an `asyncio.TaskGroup`",
        states=("Running", *cancelled("user")),
        hooks=STOPPED,
        sees="`CancelledRun`",
        body=ways.stays_in_asyncio_group,
        at="body",
        then=ways.cancel,
        listed=False,
        omits=(NO_HANDLE, ASYNC_ONLY, NOT_ON_TRIO),
    ),
    ExitPath(
        key="cleans_up_badly_in_task_group",
        how="`handle.cancel()`, and a task of its group raises in its cleanup",
        states=("Running", *cancelled("user")),
        hooks=STOPPED,
        sees="`CancelledRun`",
        body=ways.cleans_up_badly_in_task_group,
        at="body",
        then=ways.cancel,
        listed=False,
        omits=(NO_HANDLE, ASYNC_ONLY),
    ),
    ExitPath(
        key="fails_in_task_group",
        how="a task of its task group raises",
        states=("Running", "Failed"),
        hooks=("on_running", "on_failure"),
        sees="the same exception object",
        body=ways.fails_in_task_group,
        listed=False,
        omits=(ASYNC_ONLY,),
    ),
    ExitPath(
        key="host_cancelled",
        how="the caller's scope is cancelled",
        states=("Running", *cancelled("host")),
        hooks=STOPPED,
        sees="the cancellation",
        body=ways.stays,
        at="body",
        then=ways.cancel_scope,
        omits=HOST_OMITS,
    ),
    ExitPath(
        key="host_task_cancelled",
        how="the caller's task is cancelled",
        states=("Running", *cancelled("host")),
        hooks=STOPPED,
        sees="the cancellation",
        body=ways.stays,
        at="body",
        then=ways.cancel_own_task,
        has_own_task=True,
        omits=(*HOST_OMITS, NOT_ON_TRIO),
    ),
    ExitPath(
        key="host_cancelled_in_nursery",
        how="the caller's scope is cancelled, the body is in a nursery",
        states=("Running", *cancelled("host")),
        hooks=STOPPED,
        sees="the cancellation",
        body=ways.stays_in_nursery,
        at="body",
        then=ways.cancel_scope,
        listed=False,
        omits=(*HOST_OMITS, ASYNC_ONLY, NOT_ON_ASYNCIO),
    ),
    ExitPath(
        key="host_cancelled_in_task_group",
        how="the caller's scope is cancelled, the body is in a task group",
        states=("Running", *cancelled("host")),
        hooks=STOPPED,
        sees="the cancellation",
        body=ways.stays_in_task_group,
        at="body",
        then=ways.cancel_scope,
        listed=False,
        omits=(*HOST_OMITS, ASYNC_ONLY),
    ),
    ExitPath(
        key="host_cancelled_before_upstream",
        how="the caller's scope is cancelled while the run waits for an upstream",
        states=cancelled("host"),
        hooks=("on_cancellation",),
        sees="the cancellation",
        set_up=ways.depends_on_blocker,
        at="Pending",
        then=ways.cancel_scope,
        listed=False,
        omits=(
            *HOST_OMITS,
            Omission("without an engine there is no other run", entries=(ALONE,)),
        ),
    ),
    ExitPath(
        key="host_cancelled_awaiting_retry",
        how="the caller's scope is cancelled while the run waits for a retry",
        states=("Running", "AwaitingRetry (type Scheduled)", *cancelled("host")),
        hooks=("on_running", "on_retry", "on_cancellation"),
        sees="the cancellation",
        body=ways.raises,
        options={"retries": 1, "retry_delay_seconds": 3600},
        at="AwaitingRetry",
        then=ways.cancel_scope,
        listed=False,
        omits=HOST_OMITS,
    ),
    ExitPath(
        key="host_cancelled_in_hook",
        how="the caller's scope is cancelled during an `on_running` hook",
        states=("Running", *cancelled("host")),
        hooks=STOPPED,
        sees="the cancellation",
        at="on_running",
        then=ways.cancel_scope,
        listed=False,
        omits=HOST_OMITS,
    ),
    ExitPath(
        key="host_cancelled_too_late",
        how="the caller's scope is cancelled during an `on_completion` hook",
        states=("Running", "Completed"),
        hooks=("on_running", "on_completion"),
        sees="the cancellation",
        at="on_completion",
        then=ways.cancel_scope,
        listed=False,
        omits=HOST_OMITS,
    ),
    ExitPath(
        key="host_task_cancelled_too_late",
        how="the caller's task is cancelled during an `on_completion` hook",
        states=("Running", "Completed"),
        hooks=("on_running", "on_completion"),
        sees="the cancellation",
        at="on_completion",
        then=ways.cancel_own_task,
        has_own_task=True,
        listed=False,
        omits=(*HOST_OMITS, NOT_ON_TRIO),
    ),
    ExitPath(
        key="swallows_host_cancel",
        how="swallows the cancellation of the caller's scope, and returns",
        states=("Running", "Completed"),
        hooks=("on_running", "on_completion"),
        sees="the cancellation",
        body=ways.returns_anyway,
        at="body",
        then=ways.cancel_scope,
        listed=False,
        omits=(*HOST_OMITS, ASYNC_ONLY),
    ),
    ExitPath(
        key="host_cleans_up_badly",
        how="the caller's scope is cancelled, and the body's cleanup raises",
        states=("Running", *cancelled("host")),
        hooks=STOPPED,
        sees="the same exception object",
        body=ways.cleans_up_badly,
        at="body",
        then=ways.cancel_scope,
        listed=False,
        omits=(*HOST_OMITS, ASYNC_ONLY),
    ),
    ExitPath(
        key="cancelled_then_host",
        how="`handle.cancel()`, then the caller's scope is cancelled",
        states=("Running", *cancelled("user")),
        hooks=STOPPED,
        sees="the cancellation",
        body=ways.stays,
        at="body",
        then=ways.cancel_and_cancel_scope,
        listed=False,
        omits=(*HOST_OMITS, NO_HANDLE),
    ),
    ExitPath(
        key="host_then_cancelled",
        how="the caller's scope is cancelled, then `handle.cancel()`",
        states=("Running", *cancelled("user")),
        hooks=STOPPED,
        sees="the cancellation",
        body=ways.stays,
        at="body",
        then=ways.cancel_scope_and_cancel,
        listed=False,
        omits=(*HOST_OMITS, NO_HANDLE),
    ),
    ExitPath(
        key="closed",
        how="the awaited coroutine is closed",
        states=("Running", *cancelled("host")),
        hooks=STOPPED,
        sees="—",
        body=ways.stays,
        enter=ways.closes_coroutine,
        waits=False,
        listed=False,
        omits=(
            ASYNC_ONLY,
            LOOPS_ONLY,
            Omission(
                "an engine for one call cannot close without await", entries=(ALONE,)
            ),
            Omission(
                "only a call in place is a coroutine", entries=(RUN, START, SUBMIT)
            ),
        ),
    ),
    ExitPath(
        key="parent_cancelled",
        how="the parent run is cancelled",
        states=("Running", *cancelled("parent")),
        hooks=STOPPED,
        sees="—",
        parent=("Running", *cancelled("user")),
        body=ways.stays,
        around=ways.calls,
        at="body",
        then=ways.cancel_parent,
        waits=False,
        omits=PARENT_OMITS,
    ),
    ExitPath(
        key="parent_cancelled_before_upstream",
        how="the parent run is cancelled while the child waits for an upstream",
        states=cancelled("parent"),
        hooks=("on_cancellation",),
        sees="—",
        parent=("Running", *cancelled("user")),
        set_up=ways.depends_on_blocker,
        around=ways.calls,
        at="Pending",
        then=ways.cancel_parent,
        waits=False,
        listed=False,
        omits=PARENT_OMITS,
    ),
    ExitPath(
        key="parent_cancelled_awaiting_retry",
        how="the parent run is cancelled while the child waits for a retry",
        states=("Running", "AwaitingRetry (type Scheduled)", *cancelled("parent")),
        hooks=("on_running", "on_retry", "on_cancellation"),
        sees="—",
        parent=("Running", *cancelled("user")),
        body=ways.raises,
        options={"retries": 1, "retry_delay_seconds": 3600},
        around=ways.calls,
        at="AwaitingRetry",
        then=ways.cancel_parent,
        waits=False,
        listed=False,
        omits=PARENT_OMITS,
    ),
    ExitPath(
        key="parent_fails",
        how="the parent run ends before it",
        states=("Running", *cancelled("parent")),
        hooks=STOPPED,
        sees="—",
        parent=("Running", "Failed"),
        body=ways.stays,
        around=ways.raises_beside,
        at="body",
        waits=False,
        omits=(SUBMITTED_ONLY,),
    ),
    ExitPath(
        key="parent_exits",
        how="the parent run crashes",
        states=("Running", *cancelled("parent")),
        hooks=STOPPED,
        sees="—",
        parent=("Running", "Crashed, cause SystemExit"),
        body=ways.stays,
        error=lambda: SystemExit(3),
        around=ways.raises_beside,
        at="body",
        waits=False,
        listed=False,
        omits=(SUBMITTED_ONLY,),
    ),
    ExitPath(
        key="parent_times_out",
        how="the parent run's `timeout_seconds` pass",
        states=("Running", *cancelled("parent")),
        hooks=STOPPED,
        sees="—",
        parent=("Running", "TimedOut (type Failed)"),
        body=ways.stays,
        around=ways.calls,
        parent_options={"timeout_seconds": 0.01},
        at="body",
        waits=False,
        listed=False,
        omits=(*PARENT_OMITS, *HOLDS_LOOP),
    ),
    ExitPath(
        key="sibling_failed",
        how="a sibling failed in a fan-out that stops on error",
        states=("Running", *cancelled("sibling")),
        hooks=STOPPED,
        sees="the sibling's error",
        parent=("Running", "Failed"),
        body=ways.stays_or_fails,
        around=ways.streams,
        at="body",
        omits=(
            TASKS_ONLY,
            Omission("a stream submits its runs", entries=(DIRECT, ALONE, RUN, START)),
        ),
    ),
    ExitPath(
        key="shutdown",
        how="the engine shuts down",
        states=("Running", *cancelled("shutdown")),
        hooks=STOPPED,
        sees="`CancelledRun`",
        body=ways.stays,
        at="body",
        then=ways.leave_engine,
        is_apart=True,
        omits=(
            Omission("an engine for one call closes after it", entries=(ALONE,)),
            Omission("a submitted run is shut down with its parent", entries=(SUBMIT,)),
            *HOLDS_LOOP,
        ),
    ),
    ExitPath(
        key="shutdown_in_vain",
        how="the engine shuts down, and it does not stop within the grace",
        states=("Running", "Cancelling, cause shutdown", "Crashed, cause abandoned"),
        hooks=("on_running", "on_cancellation", "on_crashed"),
        sees="`CrashedRun`",
        body=ways.stays_on,
        engine={"shutdown_grace": 0.01},
        at="body",
        then=ways.leave_engine,
        is_apart=True,
        listed=False,
        omits=(
            Omission("an engine for one call closes after it", entries=(ALONE,)),
            Omission("a submitted run is shut down with its parent", entries=(SUBMIT,)),
            Omission("a sync body is given up at once", is_async=False),
        ),
    ),
    ExitPath(
        key="system_exit",
        how="raises `SystemExit`",
        states=("Running", "Crashed, cause SystemExit"),
        hooks=("on_running", "on_crashed"),
        sees="the same exception object",
        body=ways.raises,
        error=lambda: SystemExit(3),
    ),
    ExitPath(
        key="keyboard_interrupt",
        how="raises `KeyboardInterrupt`",
        states=("Running", "Crashed, cause KeyboardInterrupt"),
        hooks=("on_running", "on_crashed"),
        sees="the same exception object",
        body=ways.raises,
        error=KeyboardInterrupt,
    ),
    ExitPath(
        key="base_exception",
        how="raises any other `BaseException`, such as `Abort`",
        states=("Running", "Crashed, cause Abort"),
        hooks=("on_running", "on_crashed"),
        sees="the same exception object",
        body=ways.raises,
        error=ways.Abort,
    ),
    ExitPath(
        key="generator_exit",
        how="raises `GeneratorExit`",
        states=("Running", "Crashed, cause GeneratorExit"),
        hooks=("on_running", "on_crashed"),
        sees="the same exception object",
        body=ways.raises,
        error=GeneratorExit,
        listed=False,
        omits=(
            Omission("it closes a coroutine", is_async=True),
            Omission("it would close the flow around it", entries=(SUBMIT,)),
        ),
    ),
    ExitPath(
        key="base_exception_group",
        how="raises a group with a `SystemExit` in it",
        states=("Running", "Crashed, cause BaseExceptionGroup"),
        hooks=("on_running", "on_crashed"),
        sees="the same exception object",
        body=ways.raises_group,
        error=lambda: SystemExit(3),
        listed=False,
    ),
    ExitPath(
        key="exit_with_retries",
        how="raises `SystemExit`, retries left",
        states=("Running", "Crashed, cause SystemExit"),
        hooks=("on_running", "on_crashed"),
        sees="the same exception object",
        body=ways.raises,
        error=lambda: SystemExit(3),
        options={"retries": 1},
        listed=False,
    ),
    ExitPath(
        key="stray_cancel",
        how="raises a `CancelledError` that nobody asked for",
        states=("Running", "Crashed, cause stray_cancel"),
        hooks=("on_running", "on_crashed"),
        sees="`CrashedRun`, with the original as cause",
        body=ways.raises_stray_cancellation,
        error=asyncio.CancelledError,
    ),
    ExitPath(
        key="awaits_cancelled_task",
        how="awaits a task that somebody else has cancelled",
        states=("Running", "Crashed, cause stray_cancel"),
        hooks=("on_running", "on_crashed"),
        sees="`CrashedRun`, with the original as cause",
        body=ways.awaits_cancelled_task,
        listed=False,
        omits=(ASYNC_ONLY, NOT_ON_TRIO),
    ),
    ExitPath(
        key="worker_lost",
        how="its worker thread is lost",
        states=("Running", "Crashed, cause worker_lost"),
        hooks=("on_running", "on_crashed"),
        sees="`CrashedRun`",
        body=ways.loses_its_thread,
        omits=(
            Omission("an async body is on a loop, in nobody's worker", is_async=True),
            Omission("the thread is the caller's own", entries=(DIRECT, ALONE)),
        ),
    ),
    ExitPath(
        key="terminated",
        how="SIGTERM, and no cancel asked",
        states=("Running", "Crashed, cause terminated"),
        hooks=("on_running", "on_crashed"),
        sees="the termination",
        body=ways.stays,
        engine={"signals": True},
        at="body",
        then=ways.terminate,
        omits=SIGNAL_OMITS,
    ),
    ExitPath(
        key="terminated_while_cancelling",
        how="SIGTERM after `handle.cancel()`, while it cleans up",
        states=("Running", *cancelled("user")),
        hooks=STOPPED,
        sees="the termination",
        parent=("Running", "Crashed, cause terminated"),
        body=ways.is_terminated_in_cleanup,
        engine={"signals": True},
        at="body",
        then=ways.cancel,
        listed=False,
        omits=(*SIGNAL_OMITS, ASYNC_ONLY, LOOPS_ONLY),
    ),
    ExitPath(
        key="interrupted",
        how="Ctrl-C in a sync body",
        states=("Running", "Crashed, cause KeyboardInterrupt"),
        hooks=("on_running", "on_crashed"),
        sees="the interrupt",
        body=ways.stays,
        at="body",
        then=ways.interrupt,
        listed=False,
        omits=(
            Omission("a loop takes the signal", place=Place.ASYNCIO),
            Omission("a loop takes the signal", place=Place.TRIO),
            Omission(
                "the main thread is not in the body", entries=(RUN, START, SUBMIT)
            ),
        ),
    ),
    ExitPath(
        key="interrupted_on_asyncio",
        how="Ctrl-C, which asyncio makes a cancellation of",
        states=("Running", *cancelled("host")),
        hooks=STOPPED,
        sees="the interrupt",
        body=ways.stays,
        at="body",
        then=ways.interrupt,
        listed=False,
        omits=(
            ASYNC_ONLY,
            LOOPS_ONLY,
            NOT_ON_TRIO,
            Omission("the main task is not in the body", entries=(START, SUBMIT)),
        ),
    ),
    ExitPath(
        key="interrupted_on_trio",
        how="Ctrl-C, which trio raises in the main task",
        states=("Running", "Crashed, cause KeyboardInterrupt"),
        hooks=("on_running", "on_crashed"),
        sees="the interrupt",
        body=ways.stays,
        at="body",
        then=ways.interrupt,
        listed=False,
        omits=(
            ASYNC_ONLY,
            LOOPS_ONLY,
            NOT_ON_ASYNCIO,
            Omission("the main task is not in the body", entries=(START, SUBMIT)),
        ),
    ),
    ExitPath(
        key="interrupted_elsewhere",
        how="Ctrl-C, which makes the program leave the engine's block",
        states=("Running", *cancelled("shutdown")),
        hooks=STOPPED,
        sees="the interrupt",
        body=ways.stays,
        at="body",
        then=ways.interrupt,
        listed=False,
        omits=(
            Omission("the caller is in the body", entries=(DIRECT, ALONE, RUN)),
            Omission("its parent is in the main task", entries=(SUBMIT,)),
        ),
    ),
)

NOT_REACHABLE: Final = {
    "process_lost": "it is written by whoever recovers, from a journal",
}
"""Causes of the contract that nothing brings about yet, and why."""
