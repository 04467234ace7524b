"""Virtual time: code that waits for hours is tested in milliseconds, on both loops.

Under virtual time the loop's clock starts at 0.0 and stands still while anything can
run. Once every task waits and no I/O is ready, it jumps to the next timer, so sleeps,
delays and deadlines fire in their order, at exactly their time, without waiting for it.
Trio brings this with its ``MockClock``; for asyncio it is a loop whose selector moves
the clock where others would wait.

What is outside of the loop is not seen. While a worker thread, a subprocess or a peer
elsewhere is still busy, all tasks of the loop wait, and the clock jumps: deadlines pass
that the real clock would not have come near. Wrap such waiting in `hold_virtual_time`.
Only the loop's clock is virtual; ``time.time()``, ``time.monotonic()`` and what blocks
in other threads stay real.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from contextlib import contextmanager
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    TypeAlias,
    TypeVar,
    TypeVarTuple,
    get_args,
)

import anyio
import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

__all__ = [
    "Backend",
    "hold_virtual_time",
    "run_in_virtual_time",
    "virtual_time_options",
]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Backend: TypeAlias = Literal["asyncio", "trio"]


def virtual_time_options(
    backend: Backend = "asyncio",
) -> tuple[Backend, dict[str, Any]]:
    """Make what `anyio.run` and anyio's pytest plugin need for virtual time.

    Each call makes options for one clock. With pytest, make them in the fixture, so
    that every test starts at 0.0::

        @pytest.fixture(params=["asyncio", "trio"])
        def anyio_backend(request):
            return virtual_time_options(request.param)

    Before version 4.14, `anyio.run` (not its pytest plugin) ignores options on trio;
    `run_in_virtual_time` works with every version.

    On asyncio, ``anyio.wait_all_tasks_blocked()`` polls with short sleeps, which move
    the virtual clock by 0.1 s each.

    Args:
        backend: Event loop to run on.

    Returns:
        The backend's name and its options, the two arguments of `anyio.run`.

    Raises:
        ValueError: There is no such backend.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be 'asyncio' or 'trio', got {backend!r}")
    if backend == "asyncio":
        return backend, {"loop_factory": _VirtualTimeLoop}
    return backend, {"clock": trio.testing.MockClock(autojump_threshold=0)}


def run_in_virtual_time(
    fn: Callable[[*Ts], Awaitable[T]],
    /,
    *args: *Ts,
    backend: Backend = "asyncio",
) -> T:
    """Run an async function to its end in an event loop of its own, under virtual time.

    Args:
        fn: Async function to run.
        *args: Positional arguments for it.
        backend: Event loop to run on.

    Returns:
        What *fn* returns; what it raises is raised.

    Raises:
        ValueError: There is no such backend.
        RuntimeError: An event loop already runs in this thread.
    """
    _, options = virtual_time_options(backend)
    if backend == "trio":
        # Before 4.14, anyio.run drops the options of trio, and with them the clock.
        return trio.run(fn, *args, **options)
    return anyio.run(fn, *args, backend_options=options)


@contextmanager
def hold_virtual_time() -> Generator[None]:
    """Keep the virtual clock from jumping while something outside of the loop is busy.

    Put it around the waiting for worker threads, subprocesses and sockets::

        with hold_virtual_time():
            await anyio.to_thread.run_sync(work)

    The clock stands still for all tasks of the loop until the last holder has left, so
    inside wait only for what ends without the clock: a sleep in here never returns.
    Holds may nest and overlap in any order. Enter and leave in the loop's thread.

    Raises:
        RuntimeError: The calling thread runs no loop under virtual time.
    """
    clock = _current_clock()
    clock.hold()
    try:
        yield
    finally:
        clock.release()


def _current_clock() -> _ClockSelector | _TrioHolds:
    if trio.lowlevel.in_trio_run():
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, trio.testing.MockClock):
            try:
                return _TRIO_HOLDS.get()
            except LookupError:
                holds = _TrioHolds(clock)
                _TRIO_HOLDS.set(holds)
                return holds
    elif isinstance(loop := asyncio._get_running_loop(), _VirtualTimeLoop):
        return loop.clock
    raise RuntimeError(
        "hold_virtual_time() needs a loop under virtual time in this thread: "
        "run the code with run_in_virtual_time() or virtual_time_options()"
    )


class _ClockSelector(selectors.DefaultSelector):
    """A selector that owns the time of its loop and moves it on instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._holds = 0

    def hold(self) -> None:
        self._holds += 1

    def release(self) -> None:
        self._holds -= 1

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        # The loop passes 0 when callbacks are ready and None when it has no timer.
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if self._holds:
            return super().select(None)
        # Calls from other threads arrive as bytes in the loop's own socket pair, so
        # they count as I/O here and come before any timer.
        ready = super().select(0)
        if not ready:
            self.now += timeout
        return ready


class _VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop that lives in the time of its selector."""

    def __init__(self) -> None:
        self.clock = _ClockSelector()
        super().__init__(self.clock)
        # asyncio runs a timer once time() + resolution is past it. From half a year on,
        # a float cannot hold the real clock's nanosecond beside the seconds: a timer
        # that is due would never run, and time would never move. Microseconds do.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self.clock.now


class _TrioHolds:
    """Counts the holders of one trio run's clock; the clock itself is a final class."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self._clock = clock
        self._holds = 0
        self._threshold = clock.autojump_threshold

    def hold(self) -> None:
        if self._holds == 0:
            self._threshold = self._clock.autojump_threshold
            self._clock.autojump_threshold = math.inf
        self._holds += 1

    def release(self) -> None:
        self._holds -= 1
        if self._holds == 0:
            self._clock.autojump_threshold = self._threshold


_TRIO_HOLDS: trio.lowlevel.RunVar[_TrioHolds] = trio.lowlevel.RunVar("engine.holds")
