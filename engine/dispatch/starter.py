"""Starting submitted runs: some in each turn of the loop, in the order they came.

Until its turn a run is an actor and a context. Started, it is a task, a coroutine for
each level and their frames as well.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from threading import get_ident
from typing import TYPE_CHECKING, Any

from engine.dispatch.turns import Turns
from engine.states import PENDING

if TYPE_CHECKING:
    from engine.actors.run import RunActor
    from engine.dispatch.base import Perform


class Starter:
    """Starts runs in tasks of one loop."""

    def __init__(self) -> None:
        # What waits: how to perform it, the run, its context; and so on.
        self._starts = Turns(self.next_turn, self._start_next)

    if TYPE_CHECKING:
        thread_id: int

        def call_soon(self, call: Callable[..., Any], *args: Any) -> None:
            """Have *call* called on the loop, from any thread."""

        def next_turn(self, call: Callable[[], None]) -> None:
            """Have *call* called in the loop's next turn; on its thread."""

        def start(
            self, context: Context | None, perform: Perform, run: RunActor
        ) -> None:
            """Have a task perform *run*, in *context* or in a copy of this."""

    def spawn(self, perform: Perform, run: RunActor) -> None:
        """Start a run in a copy of the caller's context, from any thread."""
        if get_ident() != self.thread_id:
            self.call_soon(copy_context().run, self.spawn, perform, run)
        elif run.state_type is not PENDING:
            return  # stopped on its way here: the loop may take no more tasks
        elif self._starts.take():
            self.start(None, perform, run)
        else:
            self._starts.waiting += (perform, run, copy_context())

    def _start_next(self) -> bool:
        take = self._starts.waiting.popleft
        perform, run, context = take(), take(), take()
        if run.state_type is not PENDING:
            return False  # it was stopped while it waited
        self.start(context, perform, run)
        return True
