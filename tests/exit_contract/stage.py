"""The stage of one case: what its bodies, hooks and callers meet on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio

from engine import RunHandle, flow, task
from engine.exceptions import Terminated
from engine.hooks import KINDS

from .cases import Case, Entry, Kind
from .observation import HookCall
from .tools import Flag, drive
from .watch import Watch

Script = Callable[..., Coroutine[Any, Any, Any]]
"""A body, written once: for a sync one its waits block, so that it never suspends."""


class Stage:
    """One case: its subject, the flags it is directed by, and what is noted.

    Attributes:
        value: What a body returns that returns something.
        error: What a body raises that raises something.
        error_words: What the caller is said to see when it gets just that.
        args: What the subject is called with.
        entered: The body stays, or a hook holds it up.
        released: A sync body that stays may go.
        opened: The hook may go.
        left: The engine's block is to be left.
        unblocked: A sync run that others wait for may go.
        signalled: A signal's handler was called.
    """

    def __init__(self, case: Case, pace: float = 1.0) -> None:
        self.case, self.path, self.pace = case, case.path, pace
        self.value = object()
        self.error: BaseException = case.path.error()
        self.error_words = "the same exception object"
        self.args: tuple[Any, ...] = case.path.arguments
        self.entered, self.released, self.opened = Flag(), Flag(), Flag()
        self.left, self.unblocked, self.signalled = Flag(), Flag(), Flag()
        # Who is who.
        self.watch = Watch()
        self.handle: RunHandle[Any] | None = None
        self.blocker: RunHandle[Any] | None = None
        self.scope: anyio.CancelScope | None = None
        self.task: asyncio.Task[None] | None = None
        # What is noted.
        self.attempts = 0
        self.hook_calls: list[HookCall] = []
        self.colours: dict[str, tuple[str, ...]] = {}
        self.returned: Any = None
        self.raised: BaseException | None = None
        self.calls_when_seen: tuple[HookCall, ...] = ()
        self.was_cancelled = False
        self.cancellations_left = 0
        self.was_published_on_time = False
        self.blocked_threads = 0
        self.abandoned_threads = (0, 0)
        self.subject = self._make_subject()

    @property
    def engine(self) -> Any:
        """The engine that the subject runs in."""
        return self.watch.engine

    @property
    def was_signalled(self) -> bool:
        """Whether the caller got what a signal makes, which ends programs."""
        is_own = self.raised is self.error
        return isinstance(self.raised, Terminated | KeyboardInterrupt) and not is_own

    def calls(self, name: str) -> list[HookCall]:
        """Return the calls of the hooks of the first run of a flow or task."""
        ids = {step.run.id for step in self.watch.steps(name)}
        return [call for call in self.hook_calls if call.run_id in ids]

    # Flows and tasks.

    def _make_subject(self) -> Any:
        # Flows have hooks of both colours, which takes a second loop or a thread; tasks
        # only of their own, so that the way that needs neither is taken as well.
        own = ("async",) if self.case.is_async else ("sync",)
        return self.define(
            "subject",
            self.case.kind,
            self.path.body,
            is_async=self.case.is_async,
            colours=("sync", "async") if self.case.kind == "flow" else own,
            **self.path.options,
        )

    def define(
        self,
        name: str,
        kind: Kind,
        script: Script,
        *,
        is_async: bool,
        colours: tuple[str, ...] = (),
        **options: Any,
    ) -> Any:
        """Make a flow or task with hooks of every kind, one in each colour."""

        async def perform(*args: Any) -> Any:
            if name == "subject":
                self.attempts += 1
            return await script(self, *args)

        def perform_sync(*args: Any) -> Any:
            return drive(perform(*args))

        fn = perform if is_async else perform_sync
        fn.__annotations__["args"] = self.path.annotation
        if "timeout_seconds" in options:
            options["timeout_seconds"] *= self.pace
        self.colours[name] = colours
        hooks = {kind: [self._hook(kind, c) for c in colours] for kind in KINDS}
        decorate: Any = flow if kind == "flow" else task
        return decorate(name=name, **hooks, **options)(fn)

    def _hook(self, kind: str, colour: str) -> Callable[..., Any]:
        def hook(definition: Any, run: Any, state: Any) -> None:
            if self._note_hook(kind, colour, definition, run, state):
                self.opened.block()

        async def async_hook(definition: Any, run: Any, state: Any) -> None:
            if self._note_hook(kind, colour, definition, run, state):
                await self.opened.wait()

        return hook if colour == "sync" else async_hook

    def _note_hook(
        self, kind: str, colour: str, definition: Any, run: Any, state: Any
    ) -> bool:
        """Note a call; say whether it is the one that holds its run up."""
        self.hook_calls.append(HookCall(run.id, kind, colour, state.name))
        if definition.name != "subject":
            return False
        if self.handle is None:
            # Here, while it surely is live: what comes next may end it at once.
            self.handle = self.watch.find("subject")
        if self.path.at != kind or self.entered.is_set():
            return False
        self.entered.set()
        return True

    # What scripts do.

    async def stay(self) -> None:
        """Be in the subject's body until stopped, or until released if sync."""
        self.entered.set()
        if self.case.is_async:
            await anyio.sleep_forever()
        self.blocked_threads += 1
        try:
            self.released.block()
        finally:
            self.blocked_threads -= 1

    async def join(self, handle: RunHandle[Any]) -> None:
        """Wait for a run in the subject's body."""
        if self.case.is_async:
            await handle.join()
        else:
            handle.wait()

    async def call(self) -> Any:
        """Have the subject run, the way the case says, and wait for it."""
        keywords = self.path.keywords
        match self.case.entry:
            case Entry.DIRECT | Entry.ALONE:
                result = self.subject(*self.args, **keywords)
                return await result if self.case.is_async else result
            case Entry.RUN:
                return await self.engine.run(self.subject, *self.args, **keywords)
            case Entry.START | Entry.SUBMIT:
                return await self.outcome(self.start())

    def start(self) -> RunHandle[Any]:
        """Start the subject, or submit it."""
        if self.case.entry is Entry.SUBMIT:
            return self.subject.submit(*self.args, **self.path.keywords)
        return self.engine.start(self.subject, *self.args, **self.path.keywords)

    async def outcome(self, handle: RunHandle[Any]) -> Any:
        """Wait for a run where the caller is; give its value or raise its error."""
        return await handle if self.case.is_on_loop else handle.result()

    async def reach(self, flag: Flag) -> None:
        """Wait for a flag where the caller is."""
        if self.case.is_on_loop:
            await flag.wait()
        else:
            flag.block()


Act = Callable[[Stage], None]
SetUp = Callable[[Stage], Awaitable[None]]
