"""A limit on how many runs execute at once.

A run counts while it has no live child: a parent that waits for its children gives its
place to them, so nested fan-outs cannot deadlock, whatever the limit. A parent whose
last child has ended counts again at once, even past the limit, since making it wait
would stop work that has begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.actors.family import Kin


class Limiter:
    """Starts runs in the order they came, never more than *limit* at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._holders: set[Kin] = set()
        self._waiting: deque[tuple[Kin, Callable[[], None]]] = deque()

    @property
    def waiting(self) -> int:
        """How many runs wait for a place."""
        return len(self._waiting)

    def start(self, run: Kin, start: Callable[[], None]) -> None:
        """Call *start* when there is a place for *run*; with the engine's lock held."""
        self._waiting.append((run, start))
        self._fill()

    def hold(self, run: Kin) -> None:
        """Give *run* a place, past the limit if need be."""
        self._holders.add(run)

    def release(self, run: Kin) -> None:
        """Take the place of *run*, if it has one, for the next."""
        self._holders.discard(run)
        self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._holders) < self._limit:
            run, start = self._waiting.popleft()
            if not run.is_over:
                self._holders.add(run)
            start()  # in any case: a thread may wait for it
