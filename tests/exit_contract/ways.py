"""How runs are brought to their ends: what bodies do, and what is done to them.

Bodies are scripts: coroutines that wait only through the stage, so that they are the
same for sync and async.
"""

from __future__ import annotations

import asyncio
import signal
import types
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import trio

from engine.actors.mailbox import Mailbox
from engine.states import Cancelled, Completed, Crashed, Failed

from .observation import is_cancellation
from .tools import send_signal, strike_at

if TYPE_CHECKING:
    from .stage import Stage


class Abort(BaseException):
    """An exception of a kind that nobody else knows."""


# Bodies.


async def returns(stage: Stage, *_: Any) -> Any:
    return stage.value


async def raises(stage: Stage, *_: Any) -> Any:
    raise stage.error


async def raises_once(stage: Stage, *_: Any) -> Any:
    if stage.attempts == 1:
        raise stage.error
    return stage.value


async def stays(stage: Stage, *_: Any) -> Any:
    await stage.stay()
    return "a late result, which is dropped"


async def stays_once(stage: Stage, *_: Any) -> Any:
    if stage.attempts == 1:
        await stage.stay()
    return stage.value


async def returns_anyway(stage: Stage, *_: Any) -> Any:
    try:
        await stage.stay()
    except BaseException as error:
        if not is_cancellation(error):
            raise
    return stage.value


async def stays_on(stage: Stage, *_: Any) -> Any:
    try:
        await stage.stay()
    finally:
        with anyio.CancelScope(shield=True):
            await stage.released.wait()


async def is_terminated_in_cleanup(stage: Stage, *_: Any) -> Any:
    try:
        await stage.stay()
    finally:
        terminate(stage)
        with anyio.CancelScope(shield=True):
            for _ in range(5):  # until the loop has told the engine
                await anyio.lowlevel.checkpoint()


async def cleans_up_badly(stage: Stage, *_: Any) -> Any:
    try:
        await stage.stay()
    finally:
        raise stage.error


async def raises_stray_cancellation(stage: Stage, *_: Any) -> Any:
    if stage.case.is_async and trio.lowlevel.in_trio_run():
        # The only way to come by one of trio's is to keep one that was meant for
        # something else.
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as error:
                stage.error = error
    raise stage.error


async def awaits_cancelled_task(stage: Stage, *_: Any) -> Any:
    other = asyncio.create_task(anyio.sleep_forever())
    other.cancel()
    try:
        await other
    except asyncio.CancelledError as error:
        stage.error = error
        raise


async def loses_its_thread(stage: Stage, *_: Any) -> Any:
    strike_at(Mailbox.send, SystemExit)  # which is how its run learns of its end
    return "a value that gets lost"


async def returns_completed(stage: Stage, *_: Any) -> Any:
    return Completed(data=stage.value, name="Cached")


async def returns_failed(stage: Stage, *_: Any) -> Any:
    return Failed(data=stage.error)


async def returns_cancelled(stage: Stage, *_: Any) -> Any:
    return Cancelled(message="not today")


async def returns_crashed(stage: Stage, *_: Any) -> Any:
    return Crashed(data=stage.error)


async def returns_failed_child(stage: Stage, *_: Any) -> Any:
    return fails(stage).submit()


async def returns_states(stage: Stage, *_: Any) -> Any:
    child = fails(stage).submit()
    await stage.join(child)
    return [child.state, Completed()]


def fails(stage: Stage) -> Any:
    """Return a task that fails with the stage's error."""
    return stage.define("child", "task", raises, is_async=stage.case.is_async)


# Bodies with task groups of their own.


async def stays_in_task_group(stage: Stage, *_: Any) -> Any:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        await stage.stay()


async def stays_in_nursery(stage: Stage, *_: Any) -> Any:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await stage.stay()


async def stays_in_asyncio_group(stage: Stage, *_: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(anyio.sleep_forever())
        await stage.stay()


async def cleans_up_badly_in_task_group(stage: Stage, *_: Any) -> Any:
    async with anyio.create_task_group() as group:
        group.start_soon(cleans_up_badly, stage)
        await anyio.sleep_forever()


async def fails_in_task_group(stage: Stage, *_: Any) -> Any:
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(raises, stage)
            await anyio.sleep_forever()
    except BaseExceptionGroup as error:
        stage.error = error
        raise


async def raises_group(stage: Stage, *_: Any) -> Any:
    stage.error = BaseExceptionGroup("two at once", [stage.error, ValueError()])
    raise stage.error


# Flows around the subject.


async def calls(stage: Stage) -> Any:
    return await stage.call()


async def raises_beside(stage: Stage) -> Any:
    stage.subject.submit()
    await stage.reach(stage.entered)
    raise stage.error


async def streams(stage: Stage) -> Any:
    stage.error_words = "the sibling's error"
    if stage.case.is_on_loop:
        async for _ in stage.subject.stream(["stays", "fails"]):
            pass
    else:
        for _ in stage.subject.stream(["stays", "fails"]):
            pass


async def stays_or_fails(stage: Stage, what: str) -> Any:
    if what == "stays":
        await stage.stay()
    elif stage.case.is_async:
        await stage.entered.wait()
    else:
        stage.entered.block()
    raise stage.error


# Callers.


async def cancels_in_the_same_breath(stage: Stage) -> Any:
    handle = stage.start()
    handle.cancel()
    return await handle


async def closes_coroutine(stage: Stage) -> Any:
    await step_until(stage, stage.subject())


@types.coroutine
def step_until(stage: Stage, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any]:
    """Let a coroutine go on until its body stays, and close it there."""
    sent = None
    while True:
        wish = coroutine.send(sent)
        if stage.entered.is_set():
            coroutine.close()
            return
        sent = yield wish


# Preparations.


async def starts_blocker(stage: Stage) -> None:
    """Have a run that neither ends nor fails before it is cancelled."""
    blocker = stage.define("blocker", "flow", blocks, is_async=stage.case.is_async)
    stage.blocker = stage.engine.start(blocker)


async def blocks(stage: Stage) -> None:
    if stage.case.is_async:
        await anyio.sleep_forever()
    stage.unblocked.block()


async def depends_on_blocker(stage: Stage) -> None:
    await starts_blocker(stage)
    stage.args = (stage.blocker,)


async def depends_on_failure(stage: Stage) -> None:
    # As sync as the subject: one that held the loop could not wait for a loop's run.
    upstream = stage.define("upstream", "flow", raises, is_async=stage.case.is_async)
    stage.args = (stage.engine.start(upstream),)


# What is done to a run.


def cancel(stage: Stage) -> None:
    stage.handle.cancel()


def cancel_twice(stage: Stage) -> None:
    stage.handle.cancel()
    stage.handle.cancel()


def cancel_scope(stage: Stage) -> None:
    stage.scope.cancel()


def cancel_and_cancel_scope(stage: Stage) -> None:
    cancel(stage)
    cancel_scope(stage)


def cancel_scope_and_cancel(stage: Stage) -> None:
    cancel_scope(stage)
    cancel(stage)


def cancel_own_task(stage: Stage) -> None:
    stage.task.cancel()


def cancel_parent(stage: Stage) -> None:
    stage.watch.find("parent").cancel()


def leave_engine(stage: Stage) -> None:
    stage.left.set()


def terminate(stage: Stage) -> None:
    send_signal(signal.SIGTERM, stage.signalled)


def interrupt(stage: Stage) -> None:
    if stage.case.is_on_loop:
        # In the loop's own thread, whose handler has been called when this returns.
        signal.raise_signal(signal.SIGINT)
    else:
        send_signal(signal.SIGINT, stage.signalled)
