"""Runs one case for real, from its caller's end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cache
from typing import Any
from unittest import mock

import anyio
from anyio.lowlevel import checkpoint

from engine import Engine, shutdown

from .cases import Case, Entry
from .conductor import Conductor
from .invariants import complaints
from .observation import (
    Observation,
    is_cancellation,
    kinds_called,
    sees,
    states_after_pending,
)
from .stage import Stage
from .tools import (
    PATIENCE,
    beside,
    call_soon_here,
    drive,
    note_signals,
    survive_signals,
)


class Leave(Exception):
    """Makes the engine's block end at once."""


@cache
def observe(case: Case) -> Observation:
    """Run a case, once in this process.

    A busy machine lets short deadlines pass too early: of a case with a deadline, only
    what shows at every pace counts against it.
    """
    for pace in (1, 10):
        seen = perform(Stage(case, pace))
        if not case.path.has_deadline or case.path.is_shown_by(seen):
            return seen
    return perform(Stage(case, 50))


def perform(stage: Stage) -> Observation:
    """Run a case and say what was seen."""
    with stage.watch.any_for_one_call(), give_up_soon(), survive_signals():
        try:
            if stage.case.is_on_loop:
                anyio.run(on_loop, stage, backend=stage.case.place.value)
            else:
                on_thread(stage)
        except KeyboardInterrupt as error:  # asyncio makes one of a cancellation
            stage.raised = error
    stage.watch.read()
    colours = stage.colours["subject"]
    return Observation(
        states=states_after_pending(stage.watch.steps("subject")),
        hooks=tuple(kinds_called(stage.calls("subject"), colours)),
        sees=sees(stage),
        parent=states_after_pending(stage.watch.steps("parent")),
        complaints=tuple(complaints(stage)),
    )


@contextmanager
def give_up_soon() -> Iterator[None]:
    """Have a body that does not stop at a shutdown given up without a second's wait."""
    with mock.patch.object(shutdown, "STOP_SECONDS", 0.02):
        yield


async def on_loop(stage: Stage) -> None:
    """Run a case on this loop."""
    with anyio.fail_after(2 * PATIENCE), ExitStack() as beyond:
        if stage.case.entry is Entry.ALONE:
            begin(stage, beyond, call_soon_here())
            await caller(stage)
        elif stage.path.is_apart:
            async with anyio.create_task_group() as apart:
                with suppress(Leave):
                    await in_block(stage, beyond, apart)
        else:
            try:
                await in_block(stage, beyond)
            except BaseException as error:
                stage.raised = error
                if is_cancellation(error):
                    raise


async def in_block(stage: Stage, beyond: ExitStack, apart: Any = None) -> None:
    """Run a case in an engine's block; its caller in another task, if *apart*."""
    async with stage.watch.begin(Engine(**stage.path.engine)):
        note_signals(stage.signalled, signal.SIGTERM)
        await set_up(stage)
        begin(stage, beyond, call_soon_here())
        if apart is not None:
            apart.start_soon(caller, stage)
            await stage.left.wait()
            raise Leave
        await caller(stage)
        clear(stage)


def on_thread(stage: Stage) -> None:
    """Run a case in this thread."""
    with ExitStack() as beyond:
        try:
            if stage.case.entry is Entry.ALONE:
                note_signals(stage.signalled, signal.SIGINT)
                begin(stage, beyond)
                drive(caller(stage))
            else:
                in_blocking_block(stage, beyond)
        except Leave:
            pass
        except BaseException as error:
            stage.raised = error


def in_blocking_block(stage: Stage, beyond: ExitStack) -> None:
    """Run a case in an engine's block; its caller in another thread, if apart."""
    with stage.watch.begin(Engine(**stage.path.engine)):
        note_signals(stage.signalled, signal.SIGTERM, signal.SIGINT)
        drive(set_up(stage))
        begin(stage, beyond)
        if stage.path.is_apart:
            beyond.enter_context(beside(lambda: drive(caller(stage))))
            stage.left.block()
            raise Leave
        drive(caller(stage))
        clear(stage)


async def set_up(stage: Stage) -> None:
    """Have there what has to be there before."""
    if stage.path.set_up is not None:
        await stage.path.set_up(stage)


def begin(
    stage: Stage,
    beyond: ExitStack,
    call_soon: Callable[[Callable[[], Any]], Any] | None = None,
) -> None:
    """Have the row's act done when its moment comes."""
    if stage.path.at is not None:
        conductor = Conductor(stage, call_soon)
        beyond.enter_context(beside(conductor.conduct))


def clear(stage: Stage) -> None:
    """Leave nothing behind that would hold the engine's block open."""
    stage.watch.read()
    stage.unblocked.set()
    if stage.blocker is not None and stage.case.is_async:
        stage.blocker.cancel()


async def caller(stage: Stage) -> None:
    """Call, and note what comes of it."""
    if stage.path.has_own_task:
        stage.task = asyncio.create_task(call_in_scope(stage))
        await asyncio.wait((stage.task,))
        stage.was_cancelled = stage.task.cancelled()
    else:
        await call_in_scope(stage)
    if stage.case.is_on_loop and not stage.was_cancelled:
        # Whatever was asked of the run is used up: the next await is undisturbed.
        await checkpoint()
        stage.cancellations_left = cancellations_of_this_task()


async def call_in_scope(stage: Stage) -> None:
    """Call where the caller can be cancelled."""
    with anyio.CancelScope() if stage.case.is_on_loop else nullcontext() as scope:
        stage.scope = scope
        try:
            stage.returned = await enter(stage)
            if scope is not None and scope.cancel_called:
                await checkpoint()  # it has to show at the next await at the latest
        except BaseException as error:
            stage.raised = error
            if is_cancellation(error) or stage.was_signalled:
                raise
        finally:
            stage.calls_when_seen = tuple(stage.hook_calls)
            stage.entered.set()  # if not by now, then never
    stage.was_cancelled = scope is not None and scope.cancelled_caught


async def enter(stage: Stage) -> Any:
    """Have the subject run, in a flow if its row or its entry takes one."""
    path, is_async = stage.path, stage.case.is_on_loop
    script = path.around or path.enter or Stage.call
    if path.around is None and stage.case.entry is not Entry.SUBMIT:
        return await script(stage)
    parent = stage.define(
        "parent",
        "flow",
        script,
        is_async=is_async,
        colours=("sync", "async"),
        **path.parent_options,
    )
    result = parent()
    return await result if is_async else result


def cancellations_of_this_task() -> int:
    """Return how many cancellations asyncio's task was left with; 0 on trio."""
    try:
        current = asyncio.current_task()
    except RuntimeError:
        return 0
    return 0 if current is None else current.cancelling()
