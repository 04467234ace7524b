"""Doing a lot on an event loop: some in each turn of it, in the order it came.

What is begun or ended for each of a hundred thousand runs at once makes a hundred
thousand times the objects that wait for the loop together, and the garbage collector
walks them again and again before the first is done with. A few at a time, most are over
before it ever sees them, in memory that the ones before have just left. And no turn is
longer than a few take: timers and other tasks of the loop are not held up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

RUNS_A_TURN: Final = 64
"""How many runs are served between two turns of the loop. Together they make fewer
objects than the youngest generation of the garbage collector takes (700)."""


class Turns:
    """One kind of thing to do, on the loop's thread.

    Args:
        next_turn: Has something called in the loop's next turn.
        do_next: Takes from *waiting* what comes next, and does it; False if there was
            nothing to do for it.

    Attributes:
        waiting: What has to wait for its turn: of one thing perhaps several entries,
            since a tuple for each would be one more object to walk.
    """

    __slots__ = ("_do_next", "_next_turn", "_room", "waiting")

    def __init__(
        self,
        next_turn: Callable[[Callable[[], None]], None],
        do_next: Callable[[], bool],
    ) -> None:
        self._next_turn = next_turn
        self._do_next = do_next
        # How many more may be done at once; none while a next turn is under way.
        self._room = RUNS_A_TURN
        self.waiting: deque[Any] = deque()

    def take(self) -> bool:
        """Whether one more may be done at once, without waiting for a turn."""
        if not self._room:
            return False
        self._room -= 1
        if not self._room:
            self._next_turn(self._go_on)
        return True

    def _go_on(self) -> None:
        waiting, room = self.waiting, RUNS_A_TURN
        try:
            while waiting and room:
                room -= self._do_next()
        finally:
            self._room = 0 if waiting else room
            if not self._room:
                self._next_turn(self._go_on)
