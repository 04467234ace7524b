"""The bodies and hooks of runs, which do what their plans say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from typing import Any

import anyio
from exit_contract.tools import drive
from support import HOOKS

from engine import Hook, RunHandle, flow, task
from engine.exceptions import EngineNotRunningError
from engine.runtime import get_run_context
from engine.states import State

from .notes import Call, Notes
from .programs import Child, Join, Part, Plan, Sleep, Stop

Handles = list[RunHandle[Any]]


class Oops(Exception):
    """What bodies and hooks fail with."""


class Abort(BaseException):
    """What bodies and hooks die of."""


class Stray(asyncio.CancelledError):
    """A cancellation that nobody has asked for, on either loop."""


class Bodies:
    """Makes the flows and tasks of a program, and has their bodies noted."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    def make(self, child: Child) -> Any:
        """Make the flow or task of a plan."""
        plan = child.plan
        self.notes.children[plan.name] = child
        hooks: dict[str, list[Hook]] = {kind: [] for kind in HOOKS}
        for number, (kind, how) in enumerate(plan.hooks):
            hooks[kind].append(self.hook(kind, number, how))

        async def body(*_: Any) -> Any:
            return await self.live(plan)

        def sync_body(*_: Any) -> Any:
            return drive(self.live(plan))

        return (flow if plan.kind == "flow" else task)(
            name=plan.name,
            retries=plan.retries,
            retry_delay_seconds=plan.delay,
            timeout_seconds=plan.timeout,
            **hooks,
        )(sync_body if plan.is_sync else body)

    def hook(self, kind: str, number: int, how: str) -> Hook:
        """Make a hook that notes its call, and then does as it is told."""

        def note(definition: Any, run: Any, state: State[Any]) -> None:
            self.notes.calls[run.id].append(Call(kind, number, how, state))
            if how == "cancels":
                self.notes.cancel(self.notes.handle(run.id))
            elif how in ("fails", "dies"):
                raise {"fails": Oops, "dies": Abort}[how]

        async def note_and_wait(*args: Any) -> None:
            note(*args)
            await anyio.sleep(1000 if how == "hangs" else 0)

        fn: Callable[..., Any] = note if how == "sync" else note_and_wait
        return Hook(fn, timeout=1.0 if how == "hangs" else None)

    async def live(self, plan: Plan) -> Any:
        """Be one attempt of a body; that of a sync one never suspends."""
        context = get_run_context()
        run = getattr(context, "task_run", None) or context.flow_run
        me = self.notes.handle(run.id)
        self.notes.begun[me.id] += 1
        # In this order: for the hooks of what stops it in between, no body waits.
        if self.notes.awaits_hooks(me) and me.state.is_running():
            self.notes.wrong.append(f"the body of {me} began before its hooks ended")
        ends = self.notes.ends[me.id]
        handles: Handles = []
        try:
            for step in plan.steps:
                await self.take(step, me, handles, plan.is_sync)
            value = end(plan, self.notes.begun[me.id])
        except BaseException as error:
            ends.append(("raised", error))
            raise
        else:
            ends.append(("returned", value))
            return value
        finally:
            if me.state.is_final() and not plan.is_sync:
                self.notes.wrong.append(f"{me} is over before its body is")

    async def take(
        self, step: Part, me: RunHandle[Any], handles: Handles, is_sync: bool
    ) -> None:
        """Take one step of a body."""
        match step:
            case Sleep():
                await sleep(step)
            case Stop(which) if which < 0 or handles:
                self.notes.cancel(me if which < 0 else handles[which % len(handles)])
            case Join(catch):
                for handle in tuple(handles):
                    with suppress(Exception) if catch else nullcontext():
                        handle.result() if is_sync else await self.wait(handle, handle)
            case Child(catch=catch, within=within):
                # An engine that shuts down starts nothing that has no parent.
                caught = Exception if catch else EngineNotRunningError
                scope = anyio.move_on_after(within) if within else nullcontext()
                with suppress(caught), scope:
                    await self.bear(step, handles)

    async def bear(self, child: Child, handles: Handles) -> None:
        """Have a run made, and wait for it where that is part of it."""
        fn = self.make(child)
        after = tuple(handles) if child.after else None
        match child.how:
            case "call" if child.plan.is_sync:
                fn(wait_for=after)
            case "call":
                await self.wait(fn, fn(wait_for=after))
            case "run":
                await self.wait(fn, self.notes.engine.run(fn))
            case "submit":
                handles.append(fn.submit(wait_for=after))
            case "map":
                handles.extend(fn.map(range(2), wait_for=after))
            case "start":
                self.notes.engine.start(fn)
            case "stream":
                async with fn.stream(range(3), limit=2) as stream:
                    async for handle in stream:
                        await self.wait(handle, handle)

    async def wait(self, which: Any, awaitable: Awaitable[Any]) -> None:
        """Wait for a run; what that gives has to be what its state says."""
        try:
            self.notes.compare(which, await awaitable)
        except Exception as error:  # who waits may be cancelled too, which says nothing
            self.notes.compare(which, error)
            raise


async def sleep(step: Sleep) -> None:
    """Sleep as a step says."""
    with anyio.CancelScope(shield=step.how == "shielded"):
        try:
            await anyio.sleep(step.seconds)
        except anyio.get_cancelled_exc_class():
            if step.how != "swallow":
                raise


def end(plan: Plan, attempt: int) -> object:
    """End an attempt as planned."""
    if attempt <= plan.fails or plan.end == "error":
        raise Oops(f"{plan.name} in attempt {attempt}")
    if plan.end != "value":
        raise {"abort": Abort, "stray": Stray}[plan.end](plan.name)
    return object()
