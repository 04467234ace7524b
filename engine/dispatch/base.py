"""What the core asks of a dispatcher."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from engine.actors.lane import Lane
    from engine.actors.run import RunActor
    from engine.hooks import Hook

Wake = Callable[[], None]
Subscribe = Callable[[Wake], bool]
"""Registers a callback, or returns False when there is nothing to wait for."""

Perform = Callable[["RunActor", "Dispatcher"], Coroutine[Any, Any, Any]]


class Dispatcher(Protocol):
    """A place where runs are driven.

    Attributes:
        can_interrupt: Whether a body that is being driven here can be stopped.
        expose: What awaits a body in a task of the engine's own, which Ctrl-C does not
            interrupt; None where it needs nothing.
    """

    @property
    def can_interrupt(self) -> bool:
        """Whether a body that is being driven here can be stopped."""
        ...

    @property
    def expose(self) -> Callable[[Awaitable[Any]], Awaitable[Any]] | None:
        """What awaits a body so that Ctrl-C interrupts it; None needs nothing."""
        ...

    def is_current(self) -> bool:
        """Whether the caller runs on what this dispatcher drives."""
        ...

    def enter(self, run: RunActor) -> None:
        """Make *run* interruptible: its body begins here."""
        ...

    def leave(self, run: RunActor, error: BaseException | None) -> BaseException | None:
        """End what `enter` began; return what is left of the body's *error*."""
        ...

    async def withdraw(self, run: RunActor, in_place: bool) -> BaseException | None:
        """Take back interruptions that the body did not use up.

        Args:
            run: The run whose body is over.
            in_place: Whether its task is the caller's, who may be cancelled as well.

        Returns:
            The host's own cancellation, if there was one as well; else None.
        """
        ...

    def is_cancelled(self, run: RunActor, error: BaseException | None) -> bool:
        """Whether somebody else cancels the task or scope that *run* is driven in."""
        ...

    def contain(self) -> bool:
        """Undo what a hook did to its server's task; False if that is being stopped."""
        ...

    def interrupt(self, run: RunActor) -> None:
        """Stop the body of *run*, or go on without it; from any thread."""
        ...

    async def wait(
        self, subscribe: Subscribe, unsubscribe: Callable[[Wake], None] | None = None
    ) -> None:
        """Wait until what was subscribed to happens."""
        ...

    async def wait_shielded(self, subscribe: Subscribe) -> BaseException | None:
        """Wait like `wait`, through cancellations; return one that came meanwhile."""
        ...

    async def wait_for_lane(self, lane: Lane) -> None:
        """Wait until a run's owed hooks are done, serving them where nobody does."""
        ...

    async def wait_within(self, subscribe: Subscribe, seconds: float) -> bool:
        """Wait like `wait`, for a time; whether it happened."""
        ...

    async def resolve(self, run: RunActor, awaitable: Awaitable[Any]) -> Any:
        """Await something of the user's for *run*, on a loop."""
        ...

    async def sleep(self, run: RunActor, seconds: float) -> None:
        """Wait for a time, or on a thread until *run* is over."""
        ...

    def call_later(
        self, run: RunActor, seconds: float, call: Callable[[], None]
    ) -> Callable[[], None]:
        """Have *call* called after a time, from any thread; return a way to cancel."""
        ...

    def shield(self) -> AbstractContextManager[Any]:
        """Return a block that cancellations of what surrounds it do not reach."""
        ...

    async def call_hook(
        self, run: RunActor, hook: Hook, args: tuple[Any, ...], timeout: float
    ) -> None:
        """Call a hook in a copy of the context of *run* and await what it returns.

        Raises:
            HookTimeout: It did not end in time.
        """
        ...


class LoopDispatcher(Dispatcher, Protocol):
    """A dispatcher that drives coroutines on an event loop."""

    @property
    def backend(self) -> str:
        """The loop's name, as anyio spells it."""
        ...

    def wake_at_signals(self) -> Callable[[], object]:
        """Have SIGTERM wake a loop that waits; return what ends that.

        A handler that Python calls is called between two bytecodes. A signal that comes
        after the last one before a wait would be left until something else happens.
        """
        ...

    def call_soon(self, call: Callable[..., Any], *args: Any) -> None:
        """Have *call* called on the loop, from any thread."""
        ...

    def spawn_service(
        self, perform: Callable[..., Coroutine[Any, Any, Any]], *args: Any
    ) -> None:
        """Start a task that nobody else refers to, from any thread."""
        ...

    def spawn(self, perform: Perform, run: RunActor) -> None:
        """Start a run in a copy of the caller's context, from any thread.

        Many are started some in each turn of the loop, in the order they came.
        """
        ...
