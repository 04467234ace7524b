"""Making runs and putting them where their bodies execute.

*In place* is in the task or thread that calls: a direct call. *Submitted* is elsewhere:
async bodies on one of the engine's loops, sync bodies in its worker threads, never on a
loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextvars import copy_context
from functools import partial
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any, Final

from engine.actors import messages as m
from engine.actors.body import perform
from engine.actors.run import RunActor
from engine.actors.supervisor import lose_worker
from engine.context import CURRENT, IN_HOOK, TAGS
from engine.dispatch.caller import drive
from engine.dispatch.here import running_backend
from engine.exceptions import DeadlockError, EngineLoopError, Terminated
from engine.executors.background import dispatching
from engine.handles import RunHandle, refuse_to_block
from engine.logging import log
from engine.states import PENDING
from engine.upstream import Search, may_hold_runs

if TYPE_CHECKING:
    from engine.definition import Definition
    from engine.dispatch.base import Dispatcher
    from engine.host import Engine


Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Here = tuple["Dispatcher", int]
"""A loop and its site."""

FRAMES: Final = 30
"""Calls within calls that a run in place needs around its body, and its hooks' logs."""

LOOP_HELD_SECONDS: Final = 0.1
"""From how long on a sync call that held an event loop is worth a warning."""


def create(
    engine: Engine,
    definition: Definition[..., Any],
    args: Args,
    kwargs: Kwargs,
    *,
    parent: RunActor | None,
    site: int,
    wait_for: Iterable[Any] | None = None,
    on: Dispatcher | None = None,
) -> RunActor:
    """Make a run, Pending and announced; one whose arguments do not fit has Failed.

    Args:
        engine: The engine it belongs to.
        definition: Its flow or task.
        args: Positional arguments.
        kwargs: Keyword arguments.
        parent: The run it is a child of; None at the top.
        site: Which of the engine's loops serves it, see `Loops`.
        wait_for: Runs that have to complete first.
        on: Where it will be driven, if in place.

    Raises:
        EngineNotRunningError: The engine takes no runs.
        CancelledRun: *parent* was stopped.
        DeadlockError: It would wait for one of its own parents.
    """
    lineage, maker = None, parent
    if parent is not None:
        lineage = parent.lineage_below or parent.begin_lineage()
        if IN_HOOK.get():
            parent = None
            if on is None:
                maker = None  # a run that it submits may outlive the hook
    options = definition.options
    tags = TAGS.get()
    if options.tags:
        tags |= options.tags
    run = RunActor(engine, definition, args, kwargs, parent, lineage, site, tags)
    if on is not None:
        run.dispatcher = on
        if not on.can_interrupt:
            run.driver = get_ident()
    if options.validate or options.run_name is not None:
        run.is_prepared = False
    if wait_for is not None or may_hold_runs(args, kwargs):
        find_upstreams(run, wait_for)
    run.announce(maker)
    if on is not None and run.upstreams is None:
        run.take_place()
    binder = definition.binder
    if kwargs or not binder.least <= len(args) <= binder.most:
        try:
            binder.check(args, kwargs)
        except TypeError as error:
            run.send(m.Rejected(error.with_traceback(None)))
    return run


def find_upstreams(run: RunActor, wait_for: Iterable[Any] | None) -> None:
    """Note which runs *run* depends on."""
    if isinstance(wait_for, RunHandle):
        wait_for = (wait_for,)
    awaited = tuple(wait_for or ())
    search = Search()
    search.walk((run.args, run.kwargs, awaited))
    if search.is_plain:
        return
    for handle in search.handles:
        upstream = handle._actor
        if run.driver is not None and not upstream.settled and upstream.needs_loop:
            refuse_to_block(upstream, f"{run.definition.name}()")
        above = run.parent
        if above is not None and above.descends_from(handle._actor):
            raise DeadlockError(repr(run.definition), handle.name)
    run.upstreams = (search.handles, awaited)
    run.is_prepared = False


def submit(
    engine: Engine,
    definition: Definition[..., Any],
    args: Args,
    kwargs: Kwargs,
    *,
    parent: RunActor | None,
    wait_for: Iterable[Any] | None = None,
) -> RunHandle[Any]:
    """Start a run elsewhere, as soon as what it depends on has ended; never waits."""
    site = engine.loops.base_site if parent is None else parent.site
    run = create(
        engine, definition, args, kwargs, parent=parent, site=site, wait_for=wait_for
    )
    if run.upstreams is not None:
        context = copy_context()
        place_after(run, lambda: context.run(place, engine, run))
    elif run.state_type is PENDING:
        if engine.limiter is None:
            start(engine, run)
        else:
            place(engine, run)
    return RunHandle(run)


def place_after(run: RunActor, start: Callable[[], None]) -> None:
    """Call *start* when every run that *run* depends on has ended."""
    engine, left = run.engine, 1
    # Who tells of the end of another engine's run holds that one's lock, and must not
    # wait for this one's: such a start is made from a thread, of that engine.
    lock = Lock()

    def one_ended(of: Engine = engine) -> None:
        nonlocal left
        with lock:
            left -= 1
            ready = not left
        if not ready or run.state_type is not PENDING:
            return
        if of is engine:
            start()
        else:
            of.hook_threads.submit(start)

    for handle in run.upstreams[0]:
        with lock:
            left += 1
        upstream = handle._actor
        ended = partial(one_ended, upstream.engine)
        if not upstream.subscribe_settled(ended):
            one_ended()
    one_ended()


def place(engine: Engine, run: RunActor) -> None:
    """Start a Pending run, or queue it where the engine's concurrency is limited."""
    if engine.limiter is None:
        start(engine, run)
    else:
        context = copy_context()
        with engine.lock:
            engine.limiter.start(run, lambda: context.run(start, engine, run))


def start(engine: Engine, run: RunActor) -> None:
    """Hand a Pending run to a loop or to the worker threads; never waits."""
    if run.definition.is_async:
        engine.loops.at(run.site).spawn(perform, run)
    else:
        call = partial(work, engine, run, copy_context())
        engine.threads.submit(call, partial(lose, run))


def work(engine: Engine, run: RunActor, context: Any) -> None:
    """Drive a sync run in a worker thread."""
    on = engine.worker
    run.driver = get_ident()
    context.run(drive, perform(run, on))
    if run.lane is not None:
        drive(on.wait_for_lane(run.lane))
    run.driver = None
    del run, context  # see engine.tracebacks


def lose(run: RunActor, error: BaseException) -> None:
    """Do for a run what `work` can do no more: its thread was lost, or never there."""
    run.engine.worker.leave(run, None)
    run.driver = None
    run.send(lose_worker(error))
    lane = run.lane
    if lane is not None:
        lane.is_attended = False  # its hooks were left to the thread
        run.engine.hooks.go_on((lane,))


def check_stack() -> None:
    """Raise RecursionError now, rather than amid the steps of a run that has begun."""


def one_deeper(call: Callable[[], None]) -> Callable[[], None]:
    """Return what makes a call one frame further down."""
    return lambda: call()


for _ in range(FRAMES):
    check_stack = one_deeper(check_stack)


async def perform_in_place(
    engine: Engine,
    definition: Definition[..., Any],
    args: Args,
    kwargs: Kwargs,
    *,
    parent: RunActor | None,
    wait_for: Iterable[Any] | None,
    borrowed: Here | None = None,
) -> RunActor:
    """Run an async body in the calling task; return its run, which has ended."""
    if parent is not None:
        check_stack()
    here = borrowed or loop_here(engine, parent)
    if here is None:
        return await perform_on_foreign_loop(
            engine, definition, args, kwargs, parent=parent, wait_for=wait_for
        )
    on, site = here
    run = create(
        engine, definition, args, kwargs,
        parent=parent, site=site, wait_for=wait_for, on=on,
    )  # fmt: skip
    carry = await perform(run, on, in_place=True)
    if not run.settled and not isinstance(carry, GeneratorExit):
        carry = await on.wait_shielded(run.subscribe_settled) or carry
    try:
        if carry is not None:
            raise carry
        return run
    finally:
        del carry, run, parent  # see engine.tracebacks


async def perform_on_foreign_loop(
    engine: Engine, definition: Definition[..., Any], args: Args, kwargs: Kwargs,
    *, parent: RunActor | None, wait_for: Iterable[Any] | None,
) -> RunActor:  # fmt: skip
    """Run an async body on a loop that a sync run has started for it.

    That is what ``asyncio.run(my_task())`` in a sync flow does.

    Raises:
        EngineLoopError: No sync run has: the loop is somebody else's.
    """
    backend = running_backend()
    if parent is None or parent.dispatcher is None or parent.dispatcher.can_interrupt:
        raise EngineLoopError(f"{definition.name}()")
    assert backend is not None
    async with dispatching(backend, engine.hook_threads) as on:
        return await perform_in_place(
            engine, definition, args, kwargs,
            parent=parent, wait_for=wait_for, borrowed=(on, parent.site),
        )  # fmt: skip


def drive_in_place(
    engine: Engine,
    definition: Definition[..., Any],
    args: Args,
    kwargs: Kwargs,
    *,
    parent: RunActor | None,
    wait_for: Iterable[Any] | None,
) -> RunActor:
    """Run a sync body in the calling thread; return its run, which has ended."""
    if parent is not None:
        check_stack()
    backend = running_backend()
    on = engine.caller if backend is None else engine.holder
    began = time.monotonic()
    site = engine.loops.site_beside_here() if backend else engine.loops.base_site
    if parent is not None and parent.site > site:
        site = parent.site
    run = create(
        engine, definition, args, kwargs,
        parent=parent, site=site, wait_for=wait_for, on=on,
    )  # fmt: skip
    carry = drive(perform(run, on, in_place=True))
    if run.lane is not None:
        drive(on.wait_for_lane(run.lane))
    if not run.settled:
        carry = drive(on.wait_shielded(run.subscribe_settled)) or carry
    run.driver = None
    if engine.termination is not None and engine.termination.is_owed_by(run):
        carry = carry or Terminated()
    held = time.monotonic() - began
    if backend is not None and held > LOOP_HELD_SECONDS and holds_first(parent):
        log.warning(
            "event_loop_held",
            run_id=run.id,
            run=run.name,
            seconds=round(held, 3),
            hint=f"await {definition.name}.submit(...) runs it in a worker thread",
        )
    try:
        if carry is not None:
            raise carry
        return run
    finally:
        del carry, run, parent  # see engine.tracebacks


def loop_here(engine: Engine, parent: RunActor | None) -> Here | None:
    """Return the loop that runs in this thread, and its site; None if it is foreign."""
    on = None if parent is None else parent.dispatcher
    if parent is not None and on is not None and on.can_interrupt and on.is_current():
        return on, parent.site  # the common case, found without a search
    return engine.loops.here()


def holds_first(parent: RunActor | None) -> bool:
    """Whether a sync call on a loop's thread is the outermost one there."""
    on = None if parent is None else parent.dispatcher
    return on is None or on.can_interrupt


def current_run(engine: Engine) -> RunActor | None:
    """Return the run whose code calls, if it belongs to *engine*."""
    run = CURRENT.get()
    return run if run is not None and run.engine is engine else None
