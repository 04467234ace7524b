"""The guard around a body: drives one run from Pending to its end.

`perform` is the one implementation for sync and async, tasks of a loop and threads. It
waits only through its dispatcher, so on a thread it never suspends.

Everything an attempt waits for (its delay, its upstreams, its on_running hooks, the
body itself, the children it left behind) happens between ``enter`` and ``leave``, where
a cancellation reaches it and is told apart: asked for through the run, by its deadline,
by its host, or by nobody.
"""

from __future__ import annotations

import inspect
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from engine.actors import messages as m
from engine.actors.run import failed_text, timed_out_text
from engine.actors.supervisor import Exit, ExitKind, classify
from engine.actors.task_transaction import attempt_in_transaction
from engine.context import bind, unbind
from engine.exceptions import UpstreamNotCompleted
from engine.logging import log
from engine.runs import view
from engine.states import (
    FAILED,
    PENDING,
    RUNNING,
    State,
    aggregate,
    is_states,
    safe_text,
    unwrap_stop_iteration,
)
from engine.tracebacks import trim_traceback
from engine.upstream import ATOMS, Judge, Resolve, Search

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from engine.actors.broadcast import Buffer
    from engine.actors.run import RunActor
    from engine.dispatch.base import Dispatcher


NOTHING: Final = m.Asked.NOTHING

Carry = BaseException | None
"""What the host has to see in spite of how the run ends: a cancellation of its own, or
an exception such as `SystemExit`."""


async def perform(run: RunActor, on: Dispatcher, in_place: bool = False) -> Carry:
    """Drive *run* to the end of its body; its children may take a little longer.

    Args:
        run: A run that is Pending, else nothing happens.
        on: Where it is driven.
        in_place: Whether the context is the caller's, who goes on in it.
    """
    if run.state_type is not PENDING:
        return None  # cancelled before it began
    binding = bind(run)
    if not in_place:
        binding = ()  # nobody goes on in it, and it keeps the run that was current
    run.dispatcher = on
    has_hooks = run.definition.hooks.by_kind or run.engine.broadcast.owes_always
    if has_hooks:
        run.context = copy_context()
    failed: m.Message | None = None
    error: BaseException | None = None
    carry: Carry = None
    try:
        while True:
            verdict: m.Message = m.STOPPED
            error = None
            on.enter(run)
            try:
                verdict = await attempt(run, on, failed, in_place)
            except BaseException as caught:
                error = caught
            error = on.leave(run, error)
            if error is not None or run.asked is not NOTHING:
                verdict, carry = await examine(run, on, error, in_place)
            if verdict.__class__ is m.Returned or carry is not None:
                break
            if verdict is failed or not is_retriable(run, verdict):
                break
            failed = verdict
    except BaseException as ours:
        # Not the body's: it must not leave the run alive.
        verdict, carry = m.Lost("engine", safe_text(ours), ours), ours
    if has_hooks and not run.settled:
        run.context = copy_context()  # so that hooks see what the body has set
    unbind(binding)
    run.send(verdict)
    try:
        return carry
    finally:
        del run, binding, failed, verdict, error, carry  # see engine.tracebacks


async def attempt(
    run: RunActor, on: Dispatcher, failed: m.Message | None, in_place: bool
) -> m.Message:
    """Try the body once; return the verdict of a body that returned.

    Args:
        run: The run.
        on: Where it is driven.
        failed: How the attempt before ended; None at the first. It is the verdict again
            where the user wants no other.
        in_place: Whether the task is the caller's.
    """
    if failed is not None and not await back_off(run, on, failed):
        return failed
    definition = run.definition
    if run.is_prepared is False:
        await prepare(run, on)
    for buffer in run.engine.broadcast.blocking:
        if len(buffer.items) >= buffer.size:
            await wait_for_room(run, on, buffer)
    if run.state_type is not RUNNING:
        run.send(m.STARTED)
    timeout = definition.options.timeout
    stop_timer = None if timeout is None else start_timer(run, on, timeout)
    value: Any = None
    try:
        if run.lane is not None:
            await wait_for_hooks(run, on)
        if run.state_type is not RUNNING:
            return m.STOPPED  # another thread stopped it meanwhile
        if definition.is_transactional:
            call = partial(execute, in_place=in_place)
            return await attempt_in_transaction(run, on, call, stop_timer)
        value = definition.fn(*run.args, **run.kwargs)
        if definition.is_async:
            value = await exposed(value, on, in_place)
        if value.__class__ in ATOMS and not run.children:
            return m.Returned(value)
        return await judge(run, on, value)
    finally:
        if stop_timer is not None:
            stop_timer()
        del run, value  # see engine.tracebacks


async def execute(run: RunActor, on: Dispatcher, in_place: bool) -> m.Message:
    """Call the body of a task in a transaction; return its verdict."""
    value = run.definition.fn(*run.args, **run.kwargs)
    if run.definition.is_async:
        value = await exposed(value, on, in_place)
    return await judge(run, on, value)


def exposed(body: Awaitable[Any], on: Dispatcher, in_place: bool) -> Awaitable[Any]:
    """Return what awaits a body.

    In a task of the engine's own, Ctrl-C is raised in the body and nowhere else; in the
    caller's, wherever the caller has it.
    """
    return body if in_place or on.expose is None else on.expose(body)


def start_timer(run: RunActor, on: Dispatcher, timeout: float) -> Any:
    """Have the run told when this attempt's time is up; return what stops that."""
    return on.call_later(run, timeout, partial(run.send, m.DeadlinePassed(run.attempt)))


async def examine(
    run: RunActor, on: Dispatcher, error: BaseException | None, in_place: bool
) -> tuple[m.Message, Carry]:
    """Find out how an attempt ended that did not just return."""
    withdrawn: Carry = None
    if run.interrupts and not isinstance(error, GeneratorExit):
        withdrawn = await on.withdraw(run, in_place)
    if error is not None and not run.definition.is_async:
        error = unwrap_stop_iteration(error)
    by_host = on.is_cancelled(run, error)
    if run.is_over:
        # The body of an abandoned thread has come back; nobody waits for it any more,
        # but an interrupt of the process must not get lost with it.
        # One that is no cancellation, or the host's own.
        died = classify(error)[0] is ExitKind.DIED
        return m.STOPPED, trimmed(error) if died or by_host else None
    ended = Exit(run, error, by_host)
    carry: Carry = None
    if ended.asked is m.Asked.HOST or ended.kind in (ExitKind.DIED, ExitKind.CLOSED):
        carry = error
    elif withdrawn is not None:
        carry = withdrawn  # asked twice, by us and by the host
    elif ended.kind is ExitKind.CANCELLED and by_host:
        carry = error
    if carry is error or ended.verdict is not m.STOPPED:
        trimmed(error)
        if ended.error is not error:
            trimmed(ended.error)  # the part of a group that counts
    return ended.verdict, carry


def trimmed(error: BaseException | None) -> BaseException | None:
    """Take this library's frames off an error that others will see."""
    if error is not None:
        trim_traceback(error)
    return error


def is_retriable(run: RunActor, verdict: m.Message) -> bool:
    """Whether the options leave another attempt after *verdict*."""
    if run.attempt > run.definition.options.retries or run.attempt == 0:
        return False
    if isinstance(verdict, m.Concluded):
        return verdict.state.type is FAILED
    return isinstance(verdict, m.Raised | m.TimedOut)


async def back_off(run: RunActor, on: Dispatcher, failed: m.Message) -> bool:
    """Wait for the time of the next attempt; False if there is to be none."""
    options = run.definition.options
    with run.engine.lock:
        if run.asked is m.Asked.DEADLINE:  # else another thread has asked meanwhile
            run.asked = NOTHING
    state = state_of(run, failed)
    if not await wants_retry(run, on, state):
        return False
    run.stop_children()
    await on.wait(run.subscribe_childless)
    delay = options.retry_delay(run.attempt)
    error = state.data
    if delay:
        run.send(m.RetryScheduled(error, delay, state))
        await on.sleep(run, delay)
    else:
        run.send(m.Retried(error))
    return True


async def wants_retry(run: RunActor, on: Dispatcher, state: State[Any]) -> bool:
    """Ask the user's condition, if there is one."""
    condition = run.definition.options.condition
    if condition is None:
        return True
    try:
        answer = condition(run.definition, view(run), state)
        if inspect.isawaitable(answer):
            answer = await on.resolve(run, answer)
    except Exception as error:
        log.error("retry_condition_failed", run_id=run.id, error=safe_text(error))
        return False
    return bool(answer)


def state_of(run: RunActor, failed: m.Message) -> State[Any]:
    """Return the state that a failure would end in, were there no retry."""
    if isinstance(failed, m.Concluded):
        return failed.state
    definition = run.definition
    error: BaseException
    if isinstance(failed, m.TimedOut):
        name, text = "TimedOut", timed_out_text(definition, failed.timeout)
        error = TimeoutError(text)
    else:
        assert isinstance(failed, m.Raised)
        error = failed.error
        name, text = "Failed", failed_text(definition, error)
    return State(FAILED, name, text, error, None, run.attempt, run.id)


async def prepare(run: RunActor, on: Dispatcher) -> None:
    """Make the arguments ready: upstreams awaited, resolved, validated; then the name.

    A refusal ends the run here, straight from Pending.
    """
    run.is_prepared = True
    binder = run.definition.binder
    if run.upstreams is not None:
        handles, awaited = run.upstreams
        for handle in handles:
            await on.wait(handle._actor.subscribe_settled)
        run.upstreams = None
        # Not before: the upstreams may have been waiting for that place.
        run.take_place()
        try:
            run.args, run.kwargs, _ = Resolve().walk((run.args, run.kwargs, awaited))
        except UpstreamNotCompleted as error:
            run.send(m.UpstreamFailed(error.with_traceback(None)))
            return
    try:
        run.args, run.kwargs = binder.validate(run.args, run.kwargs)
        run.name = run.definition.run_name(run) or run.name
    except Exception as error:
        trim_traceback(error)
        run.send(m.Rejected(error))
    del run  # see engine.tracebacks


async def wait_for_room(run: RunActor, on: Dispatcher, buffer: Buffer) -> None:
    """Wait until a subscriber that must lose nothing is no longer behind.

    Unless it may be waiting itself, for the loop that a sync body of this run's family
    holds: then there is more in the buffer than its size.
    """
    if buffer.needs_loop and run.site > run.engine.loops.base_site:
        return
    await on.wait(buffer.await_room, buffer.forget_writer)
    if run.asked is not NOTHING or run.state_type is RUNNING:
        # Another thread stopped it, or it is a retry: it will publish nothing now.
        buffer.pass_turn()


async def wait_for_hooks(run: RunActor, on: Dispatcher) -> None:
    """Wait until the hooks owed so far are done; raise if one of them fails the run.

    So does a journal that was given up before it had the step: nobody would ever know
    that the body has begun.
    """
    lane = run.lane
    assert lane is not None
    await on.wait_for_lane(lane)
    if lane.step.error is not None:
        lane.is_refused = True
        lane.veto = lane.veto or lane.step.error
    if lane.veto is not None:
        veto, lane.veto = lane.veto, None
        raise veto
    del run, lane  # see engine.tracebacks


async def judge(run: RunActor, on: Dispatcher, value: Any) -> m.Message:
    """Decide how a body ends that returned *value*, after its children."""
    if inspect.isgenerator(value):
        value = list(value)
    if run.definition.kind == "flow":
        search = Search()
        search.walk(value)
        for handle in search.handles:
            await on.wait(handle._actor.subscribe_settled)
        if not search.is_plain:
            value = Judge().walk(value)
    if run.children:
        await on.wait(run.subscribe_childless)
    if isinstance(value, State):
        if value.run_id is None and value.is_final():
            return m.Concluded(value)
        judged = aggregate((value,), value.data if value.is_completed() else value)
        return m.Concluded(judged)
    if is_states(value):
        return m.Concluded(aggregate(value, value))
    return m.Returned(value)
