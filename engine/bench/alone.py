"""Functions that are called in a process of their own; see `engine.bench.fresh`."""

from __future__ import annotations

import asyncio
import json
import selectors
import sys
from collections.abc import Callable
from typing import Any, Final

import anyio
import trio

from engine.bench import clock
from engine.bench.calling import sync_work
from engine.bench.counts import ratios
from engine.bench.fanout import hooked_work, stream
from engine.flows import flow
from engine.host import Engine


def streaming(
    loop: str, few: int, many: int, clock_name: clock.Name
) -> dict[str, float | None]:
    """Stream few items, many, and few again, timed by a clock.

    Returns:
        The seconds an item of each, and by how many bytes the peak of memory grew while
        they were many.
    """
    with clock.clock(clock_name):
        stream(loop, few)  # what is made once
        before = stream(loop, few).seconds / few
        peak = peak_memory()
        long = stream(loop, many)
        growth = None if peak is None else (peak_memory() or peak) - peak
        after = stream(loop, few).seconds / few
    return {
        "few": (before + after) / 2,
        "many": long.seconds / many,
        "growth": growth,
        "transitions": long.transitions,
    }


def peak_memory() -> int | None:
    """Return the most memory that the process ever had, in bytes, if it is known."""
    if sys.platform == "linux":
        # Its ru_maxrss begins with the peak of whoever started the process.
        with open("/proc/self/status") as status:
            lines = [line for line in status if line.startswith("VmHWM")]
        return int(lines[0].split()[1]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


class CountingSelector(selectors.DefaultSelector):
    """Counts how often the loop has looked for what there is to do."""

    looks = 0

    def select(self, timeout: float | None = None) -> Any:
        """Look, and count it."""
        self.looks += 1
        return super().select(timeout)


class CountingInstrument(trio.abc.Instrument):
    """Counts the same on trio."""

    looks = 0

    def before_io_wait(self, timeout: float) -> None:
        """Count one."""
        self.looks += 1


@flow
async def use_everything() -> None:
    """Make runs on the loop, in threads, and with hooks."""
    for work in (hooked_work, sync_work):
        for handle in [work.submit(i) for i in range(100)]:
            await handle


async def wake_ups(seconds: float, counter: Any) -> int:
    """Return how often the process woke while all it did was to sleep once.

    The looks of the loop, or the times that any thread gave up the processor by itself:
    whichever were more.
    """
    await anyio.sleep(seconds)  # what has just ended is over then
    looks, switches = int(counter.looks), switched()
    await anyio.sleep(seconds)
    return max(int(counter.looks) - looks, switched() - switches)


def switched() -> int:
    """Return how often threads of this process have gone to sleep."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


def idling(loop: str, seconds: float) -> dict[str, float]:
    """Return how often a bare loop woke, and one with an idle engine."""

    async def bare(counter: Any) -> int:
        return await wake_ups(seconds, counter)

    async def with_engine(counter: Any) -> int:
        async with Engine():
            await use_everything()
            return await wake_ups(seconds, counter)

    return {"bare": counted(bare, loop), "engine": counted(with_engine, loop)}


def counted(fn: Any, loop: str) -> int:
    """Call an async function on a loop whose looks are counted."""
    if loop == "trio":
        instrument = CountingInstrument()
        return int(trio.run(fn, instrument, instruments=[instrument]))
    selector = CountingSelector()
    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(selector)
    ) as runner:
        return int(runner.run(fn(selector)))


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "streaming": streaming,
    "idling": idling,
    "ratios": ratios,
}

if __name__ == "__main__":
    print(json.dumps(FUNCTIONS[sys.argv[1]](*json.loads(sys.argv[2]))))
