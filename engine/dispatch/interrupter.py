"""Interrupting runs: of many that are asked to stop, some in each turn of the loop.

Each of them is Cancelling at once. Only its body goes on until it is its turn.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from engine.dispatch.turns import Turns

if TYPE_CHECKING:
    from engine.actors.run import RunActor


class Interrupter:
    """Interrupts the bodies of one loop."""

    def __init__(self) -> None:
        self._stops = Turns(self.next_turn, self._stop_next)

    if TYPE_CHECKING:
        thread_id: int

        def call_soon(self, call: Callable[..., Any], *args: Any) -> None:
            """Have *call* called on the loop, from any thread."""

        def next_turn(self, call: Callable[[], None]) -> None:
            """Have *call* called in the loop's next turn; on its thread."""

        def cancel(self, run: RunActor, host: Any) -> None:
            """Cancel what executes a body, if it still does; on the loop's thread."""

    def interrupt(self, run: RunActor) -> None:
        """Stop the body of *run*, from any thread."""
        if get_ident() != self.thread_id:
            self.call_soon(self.cancel, run, run.host)
        # One that may be tried again only at once: later it might be the next attempt.
        elif not run.is_stopped or self._stops.take():
            self.cancel(run, run.host)
        else:
            self._stops.waiting.append(run)

    def _stop_next(self) -> bool:
        run = self._stops.waiting.popleft()
        self.cancel(run, run.host)
        return True
