"""One run at a time for one cache key: the others wait, and use what it has made.

A run that is about to make the result of a key is *flying*; who wants the same result
meanwhile waits for it to land, once. Waiting is an economy and must never be a
deadlock, so nobody waits for a flight that cannot land before he does, nor on a thread
that the flight needs.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Final

from engine.exceptions import BlockingCallError
from engine.handles import refuse_to_block

if TYPE_CHECKING:
    from engine.actors.family import Kin
    from engine.actors.run import RunActor
    from engine.dispatch.base import Dispatcher, Wake

Place = tuple[str, str]
"""A store's name and a key."""


class Flight:
    """The making of one key's result."""

    __slots__ = ("has_landed", "place", "run", "waiters")

    def __init__(self, place: Place, run: RunActor) -> None:
        self.place = place
        self.run = run
        self.has_landed = False
        self.waiters: dict[Wake, None] = {}


class Flights:
    """All flights of this process."""

    def __init__(self) -> None:
        self.was_forked()

    def was_forked(self) -> None:
        """Forget everything: in this process, which is a fork, none of it flies."""
        self._lock = Lock()
        self._flying: dict[Place, Flight] = {}
        # The runs that fly, and for whom those that wait below one of them wait. Who
        # keeps no flight from landing is not among them.
        self._pilots: set[Kin] = set()
        self._blocked: dict[RunActor, RunActor] = {}

    def take_off(self, place: Place, run: RunActor) -> Flight | None:
        """Begin the flight of a key; None if there is one."""
        with self._lock:
            if place in self._flying:
                return None
            flight = self._flying[place] = Flight(place, run)
            self._pilots.add(run)
            return flight

    def land(self, flight: Flight) -> None:
        """End a flight, and let go of everybody who waits for it."""
        with self._lock:
            del self._flying[flight.place]
            self._pilots.discard(flight.run)
            flight.has_landed = True
            waiters, flight.waiters = flight.waiters, {}
        for wake in waiters:
            wake()

    async def wait(self, place: Place, run: RunActor, on: Dispatcher) -> None:
        """Wait until a key's flight has landed, if there is one and that is safe."""
        with self._lock:
            flight = self._flying.get(place)
            if flight is None or self._needs(flight.run, run):
                return
            if not may_block(flight.run, on):
                return
            if self._is_below_pilot(run):
                self._blocked[run] = flight.run
        try:
            await on.wait(
                lambda wake: self._subscribe(flight, wake),
                lambda wake: self._unsubscribe(flight, wake),
            )
        finally:
            with self._lock:
                self._blocked.pop(run, None)

    def _needs(self, pilot: RunActor, run: RunActor) -> bool:
        """Whether *pilot* cannot land before *run* ends; with the lock held.

        The waits that there are have no circle among them, so this ends.
        """
        return run.descends_from(pilot) or any(
            blocked.descends_from(pilot) and self._needs(other, run)
            for blocked, other in self._blocked.items()
        )

    def _is_below_pilot(self, run: RunActor) -> bool:
        above: Kin | None = run
        while above is not None:
            if above in self._pilots:
                return True
            above = above.parent
        return False

    def _subscribe(self, flight: Flight, wake: Wake) -> bool:
        with self._lock:
            if flight.has_landed:
                return False
            flight.waiters[wake] = None
            return True

    def _unsubscribe(self, flight: Flight, wake: Wake) -> None:
        with self._lock:
            flight.waiters.pop(wake, None)


FLIGHTS: Final = Flights()


def may_block(pilot: RunActor, on: Dispatcher) -> bool:
    """Whether waiting from here leaves *pilot* what it needs to land."""
    if on.can_interrupt:
        return True
    try:
        refuse_to_block(pilot, "")
    except BlockingCallError:
        return False
    return True
