"""Starting submitted runs: some in each turn of the loop, in the order they came.

Until its turn a run is an actor and a context. Started, it is a task, a coroutine for
each level and their frames as well; of a large fan-out, all of it would be made before
the first run begins, and the garbage collector would walk it again and again. A few at
a time, most runs are over before the collector ever sees them, in memory that the ones
before have just left. And no turn is longer than it takes to begin so many: timers and
other tasks of the loop are not held up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from engine.states import PENDING

if TYPE_CHECKING:
    from engine.actors.run import RunActor
    from engine.dispatch.base import Perform

RUNS_A_TURN: Final = 64
"""How many runs are started between two turns of the loop. Together they make fewer
objects than the youngest generation of the garbage collector takes (700)."""


class Starter:
    """Starts runs in tasks of one loop."""

    def __init__(self) -> None:
        # How many more may start at once; none while a next turn is under way.
        self._room = RUNS_A_TURN
        # What to perform, the run and its context, one after the other: a tuple for
        # each run would be one more object to walk.
        self._waiting: deque[Any] = deque()

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
        elif self._room:
            self._room -= 1
            if not self._room:
                self.next_turn(self._go_on)
            self.start(None, perform, run)
        else:
            self._waiting += (perform, run, copy_context())

    def _go_on(self) -> None:
        """Start those that come next."""
        waiting, room = self._waiting, RUNS_A_TURN
        take = waiting.popleft
        try:
            while waiting and room:
                perform, run, context = take(), take(), take()
                if run.state_type is PENDING:  # else it was stopped while it waited
                    room -= 1
                    self.start(context, perform, run)
        finally:
            self._room = 0 if waiting else room
            if not self._room:
                self.next_turn(self._go_on)
