"""The loops of one engine: its host's, and those it starts in the background.

Each run has a *site*, the index of the loop that serves it: where its async children
are driven, and its async hooks and timers if it is driven on a thread itself. Site 0 is
the host's loop. A sync run that holds the thread of loop *n* is served by loop *n* + 1,
and so is everything below it: served by the loop that it holds, it would wait for ever.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from engine.executors.background import BackgroundLoop

if TYPE_CHECKING:
    from engine.dispatch.base import LoopDispatcher
    from engine.dispatch.here import Backend
    from engine.executors.thread import ThreadPool

STOP_SECONDS: Final = 2.0


class Loops:
    """Finds and starts an engine's loops.

    Attributes:
        backend: The kind of loop that is started in the background.
    """

    def __init__(self, hook_threads: ThreadPool) -> None:
        self._hook_threads = hook_threads
        self._lock = Lock()
        self._loops: list[LoopDispatcher | None] = [None]
        self._backgrounds: list[BackgroundLoop] = []
        self.backend: Backend = "asyncio"

    @property
    def home(self) -> LoopDispatcher | None:
        """The host's loop, or None."""
        return self._loops[0]

    def settle_at(self, home: LoopDispatcher, backend: Backend) -> None:
        """Take a loop as the host's; background ones will be of its kind."""
        self._loops[0] = home
        self.backend = backend

    @property
    def base_site(self) -> int:
        """The site of runs that hold up no loop."""
        return 0 if self._loops[0] is not None else 1

    def at(self, site: int) -> Any:
        """Return the loop of a site, starting one in the background if need be."""
        loops = self._loops
        if site < len(loops) and (loop := loops[site]) is not None:
            return loop
        with self._lock:
            self._loops.extend([None] * (site + 1 - len(self._loops)))
            if self._loops[site] is None:
                background = BackgroundLoop(self.backend, self._hook_threads)
                # Before: it is to be stopped even if a signal interrupts this.
                self._backgrounds.append(background)
                self._loops[site] = background.start()
            return self._loops[site]

    def started(self, site: int) -> LoopDispatcher | None:
        """Return the loop of a site if there is one yet."""
        return self._loops[site] if site < len(self._loops) else None

    def here(self) -> tuple[LoopDispatcher, int] | None:
        """Return the loop that runs in this thread, and its site; None if foreign."""
        for site, loop in enumerate(self._loops):
            if loop is not None and loop.is_current():
                return loop, site
        return None

    def site_beside_here(self) -> int:
        """Return the site for a sync run that holds this thread and what runs in it."""
        for site, loop in enumerate(self._loops):
            if loop is not None and loop.is_current():
                return site + 1
        return self.base_site

    @property
    def has_background(self) -> bool:
        """Whether any loop was started in the background."""
        return bool(self._backgrounds)

    def stop(self) -> None:
        """End the background loops, the last one first; blocks for a bounded time."""
        for background in reversed(self._backgrounds):
            background.stop(STOP_SECONDS)
