"""Direct calls and submissions: which engine they use, and whose children they are.

A call uses the engine of the current run, else the one whose block it is inside of,
else the only one entered in this process, else one opened for the length of the call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from engine.context import CURRENT, SCOPE
from engine.dispatch.here import running_backend
from engine.exceptions import EngineLoopError, NoEngineError, ReturnStateError
from engine.handles import outcome_of_run
from engine.host import Engine
from engine.placement import (
    drive_in_place,
    perform_in_place,
    submit,
)
from engine.registry import ENTERED

if TYPE_CHECKING:
    from engine.actors.run import RunActor
    from engine.definition import Definition
    from engine.dispatch.base import LoopDispatcher
    from engine.handles import RunHandle

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def find_engine() -> Engine | None:
    """Return the engine that a call outside of any run uses; None if there is none."""
    scope: Engine | None = SCOPE.get()
    if scope is not None and not scope.is_closed and not scope.is_forked:
        return scope
    if len(ENTERED) != 1:
        return None
    only = ENTERED[0]
    # One that lives on another loop than ours could not drive an async body here.
    return only if only.is_usable_here(running_backend() is not None) else None


def engine_and_parent() -> tuple[Engine | None, RunActor | None]:
    """Return the engine that a call here uses, and the run that makes the call."""
    current = CURRENT.get()
    if current is None or current.engine.is_forked:
        return find_engine(), None
    return current.engine, current


def call(definition: Definition[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Run a flow or task in place: its value, or a coroutine for an async one.

    ``return_state`` and ``wait_for`` among the keyword arguments are the call's own.
    """
    return_state = wait_for = None
    if kwargs:
        return_state = kwargs.pop("return_state", None)
        wait_for = kwargs.pop("wait_for", None)
    if definition.is_async:
        coroutine: Any = call_async(definition, args, kwargs, return_state, wait_for)
        coroutine.__qualname__ = definition.name  # for who forgets to await it
        return coroutine
    engine, parent = engine_and_parent()
    if engine is not None:
        run = drive_in_place(
            engine, definition, args, kwargs, parent=parent, wait_for=wait_for
        )
    else:
        with Engine.for_one_call() as engine:
            run = drive_in_place(
                engine, definition, args, kwargs, parent=None, wait_for=wait_for
            )
    try:
        return run.state if return_state else outcome_of_run(run)
    finally:
        del parent, run  # see engine.tracebacks


async def call_async(
    definition: Definition[..., Any],
    args: Args,
    kwargs: Kwargs,
    return_state: bool | None,
    wait_for: Iterable[Any] | None,
) -> Any:
    """Run an async flow or task in the calling task."""
    engine, parent = engine_and_parent()
    if engine is not None:
        run = await perform_in_place(
            engine, definition, args, kwargs, parent=parent, wait_for=wait_for
        )
    else:
        async with Engine.for_one_call() as engine:
            run = await perform_in_place(
                engine, definition, args, kwargs, parent=None, wait_for=wait_for
            )
    try:
        return run.state if return_state else outcome_of_run(run)
    finally:
        del parent, run  # see engine.tracebacks


def submit_here(
    definition: Definition[..., Any],
    args: Args,
    kwargs: Kwargs,
    wait_for: Iterable[Any] | None = None,
    call: str = "submit",
) -> RunHandle[Any]:
    """Start a run as a child of the current one.

    Raises:
        NoEngineError: There is no engine that could own it.
    """
    engine, parent = engine_and_parent()
    if engine is None:
        raise NoEngineError(f"{definition.name}.{call}()")
    return submit(engine, definition, args, kwargs, parent=parent, wait_for=wait_for)


def take_wait_for(
    definition: Definition[..., Any], call: str, kwargs: Kwargs
) -> Iterable[Any] | None:
    """Take what is a submission's own out of its keyword arguments.

    Raises:
        ReturnStateError: It asks for a state, as only a call can.
    """
    if kwargs.pop("return_state", None):
        raise ReturnStateError(f"{definition.name}.{call}()")
    wait_for: Iterable[Any] | None = kwargs.pop("wait_for", None)
    return wait_for


def loop_and_run_here() -> tuple[LoopDispatcher, RunActor | None]:
    """Return the loop and the run of the calling code, for what works beside it.

    Raises:
        NoEngineError: No engine is to be found.
        EngineLoopError: The loop is not the engine's.
    """
    engine, parent = engine_and_parent()
    if engine is None:
        raise NoEngineError("stream()")
    here = engine.loops.here()
    if here is None:
        raise EngineLoopError("stream()")
    return here[0], parent
