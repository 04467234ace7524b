"""The performance of a program, from its first run to what the rules say of it."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any
from unittest import mock

import anyio
import anyio.lowlevel
from structlog.testing import capture_logs

from engine import Engine
from engine.dispatch import turns
from engine.testing import run_in_virtual_time
from engine.testing.clock import Backend

from .bodies import Abort, Bodies, Oops, Stray
from .notes import Notes
from .programs import Act, Child, Program
from .rules import complaints

Scopes = dict[anyio.CancelScope, Child]


class Hang(BaseException):
    """A program does not end; of no type that has hypothesis try smaller ones."""


def perform(program: Program, backend: Backend, patience: float) -> list[str]:
    """Perform a program to its end; return all that is wrong with it.

    Args:
        program: What to perform.
        backend: The loop to perform it on.
        patience: Seconds by the real clock until it is said to hang.

    Raises:
        Hang: It does.
    """
    performance = Performance(program)
    errors: list[BaseException] = []

    def work() -> None:
        # Virtual time would jump while a thread works, so there is none to tell then.
        run: Any = anyio.run if program.has_threads else run_in_virtual_time
        try:
            run(performance.main, backend=backend)
        except BaseException as error:
            errors.append(error)

    # In a thread that can be left behind: what hangs takes no cancellation either.
    thread = threading.Thread(target=work, daemon=True)
    with (
        mock.patch.object(turns, "RUNS_A_TURN", program.runs_a_turn),
        capture_logs(),
    ):
        thread.start()
        thread.join(patience)
    if thread.is_alive():
        runs = ", ".join(map(repr, performance.notes.recorder.runs()))
        raise Hang(f"{program} on {backend}, with {runs}")
    return [repr(error) for error in errors] or list(complaints(performance.notes))


class Performance:
    """Performs a program, each root in a host of its own, and each act in an actor.

    Attributes:
        program: The program.
        notes: What is noted of it.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        engine = Engine(
            max_concurrency=program.limit,
            hook_concurrency=program.hooks_at_once,
            shutdown_grace=100.0,
        )
        self.notes = Notes(engine)
        self._bodies = Bodies(self.notes)

    async def main(self) -> None:
        """Perform the program; its end is that of its hosts, or an act."""
        scopes = {anyio.CancelScope(): root for root in self.program.roots}
        leave = anyio.Event()
        async with anyio.create_task_group() as group:
            with suppress(Oops):
                async with self.notes.engine:
                    group.start_soon(self._host_all, scopes, leave)
                    async with anyio.create_task_group() as actors:
                        for act in self.program.acts:
                            actors.start_soon(self._act, act, scopes, leave)
                        await leave.wait()
                        actors.cancel_scope.cancel()
                    if "raise" in self.notes.acts:
                        raise Oops

    async def _host_all(self, scopes: Scopes, leave: anyio.Event) -> None:
        async with anyio.create_task_group() as hosts:
            for scope, root in scopes.items():
                hosts.start_soon(self._host, scope, root)
        leave.set()

    async def _host(self, scope: anyio.CancelScope, root: Child) -> None:
        with scope:
            try:
                await self._call(root)
            except* (Exception, Abort, Stray):
                pass
            await anyio.lowlevel.checkpoint()  # where a late cancellation is raised
        if scope.cancel_called and not scope.cancelled_caught:
            self.notes.wrong.append(f"a cancellation of {root} was swallowed")

    async def _call(self, root: Child) -> None:
        if root.how == "start":
            handle = self.notes.engine.start(self._bodies.make(root))
            await self._bodies.wait(handle, handle)
        else:
            await self._bodies.bear(root, [])

    async def _act(self, act: Act, scopes: Scopes, leave: anyio.Event) -> None:
        """Do something from outside, when its time has come."""
        await anyio.sleep(act.at)
        for _ in range(act.turns):
            await anyio.lowlevel.checkpoint()
        self.notes.acts.add(act.what)
        if act.what == "host":
            tuple(scopes)[act.which % len(scopes)].cancel()
        elif act.what != "cancel":
            leave.set()
        elif runs := self.notes.recorder.runs():
            self.notes.cancel(runs[act.which % len(runs)])
