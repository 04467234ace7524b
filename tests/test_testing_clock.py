"""Virtual time, the same on asyncio and on trio."""

import asyncio
import socket
import threading
import time
from typing import Any, cast

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio.testing

from engine.testing import hold_virtual_time, run_in_virtual_time, virtual_time_options
from engine.testing.clock import Backend

HOUR = 3600.0
BACKENDS: list[Backend] = ["asyncio", "trio"]


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[Backend, dict[str, Any]]:
    return virtual_time_options(request.param)


def visit_loop(times: int = 50) -> None:
    """Let the loop of this worker thread run and fall idle many times."""
    for _ in range(times):
        anyio.from_thread.run_sync(int)


async def test_an_hour_takes_no_time() -> None:
    """A sleep of an hour ends at once, and the clock has moved by exactly an hour."""
    started = time.monotonic()
    assert anyio.current_time() == 0.0
    await anyio.sleep(HOUR)
    assert anyio.current_time() == HOUR
    assert time.monotonic() - started < 10


async def test_timers_fire_in_order_at_their_time() -> None:
    """Sleepers wake by their delays, not by when they started."""
    woken: list[tuple[float, float]] = []

    async def sleeper(delay: float) -> None:
        await anyio.sleep(delay)
        woken.append((delay, anyio.current_time()))

    async with anyio.create_task_group() as group:
        for delay in (30.0, 0.25, HOUR, 2.0, 1.0):
            group.start_soon(sleeper, delay)
    assert woken == [(d, d) for d in (0.25, 1.0, 2.0, 30.0, HOUR)]


async def test_deadlines_pass_at_their_time() -> None:
    """The nearest deadline ends the wait, at its time and not at the sleep's."""
    with pytest.raises(TimeoutError), anyio.fail_after(10):
        await anyio.sleep(20)
    assert anyio.current_time() == 10.0
    with anyio.move_on_after(60) as outer, anyio.move_on_after(5) as inner:
        await anyio.sleep_forever()
    assert inner.cancelled_caught
    assert not outer.cancelled_caught
    assert anyio.current_time() == 15.0


async def test_time_stands_still_while_tasks_run() -> None:
    """Checkpoints alone never move the clock, even with a timer pending."""
    with anyio.fail_after(1):
        for _ in range(1000):
            await anyio.lowlevel.checkpoint()
    assert anyio.current_time() == 0.0


async def test_ready_io_comes_before_timers() -> None:
    """A deadline does not pass while bytes wait to be read."""
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        right.send(b"x")
        with anyio.fail_after(1):
            await anyio.wait_readable(left)
    assert anyio.current_time() == 0.0


async def test_the_clock_jumps_past_a_busy_thread() -> None:
    """Without a hold, time passes for the loop while a worker thread waits."""
    woken = threading.Event()

    async def sleeper() -> None:
        await anyio.sleep(HOUR)
        woken.set()

    async with anyio.create_task_group() as group:
        group.start_soon(sleeper)
        assert await anyio.to_thread.run_sync(woken.wait)
    assert anyio.current_time() == HOUR


async def test_hold_stops_the_clock_for_a_busy_thread() -> None:
    """Under a hold, no deadline passes while a worker thread is busy."""
    with anyio.fail_after(1):
        with hold_virtual_time():
            await anyio.to_thread.run_sync(visit_loop)
        assert anyio.current_time() == 0.0
    await anyio.sleep(1)
    assert anyio.current_time() == 1.0


async def test_overlapping_holds_last_until_the_last() -> None:
    """Holds that are left in the order they were entered keep the clock to the end."""
    first, second = hold_virtual_time(), hold_virtual_time()
    with anyio.fail_after(1):
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        await anyio.to_thread.run_sync(visit_loop)
        assert anyio.current_time() == 0.0
        second.__exit__(None, None, None)
    await anyio.sleep(1)
    assert anyio.current_time() == 1.0


async def test_hold_ends_with_an_error() -> None:
    """An exception inside a hold leaves it, and the clock jumps again."""
    with pytest.raises(ZeroDivisionError), hold_virtual_time():
        raise ZeroDivisionError
    await anyio.sleep(1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_run_in_virtual_time_passes_arguments_and_result(backend: Backend) -> None:
    async def add(a: int, b: int) -> tuple[int, float]:
        await anyio.sleep(HOUR)
        return a + b, anyio.current_time()

    assert run_in_virtual_time(add, 1, 2, backend=backend) == (3, HOUR)
    assert run_in_virtual_time(add, 1, 2, backend=backend) == (3, HOUR), "a new clock"


@pytest.mark.parametrize("backend", BACKENDS)
def test_short_delays_still_work_after_years(backend: Backend) -> None:
    """Rounding of large clock values never leaves a due timer behind."""

    async def main() -> None:
        await anyio.sleep(100 * 365 * 24 * HOUR)
        before = anyio.current_time()
        for _ in range(100):
            await anyio.sleep(0.001)
            await anyio.sleep(1e-9)
        assert anyio.current_time() - before == pytest.approx(0.1, abs=0.001)

    run_in_virtual_time(main, backend=backend)


def test_calls_from_other_threads_come_before_timers() -> None:
    """On asyncio a call_soon_threadsafe is served before the clock moves on."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(done.set,))

        def call_from_thread() -> None:
            thread.start()
            thread.join()

        # From a timer's callback, so the call arrives when the loop is about to wait.
        loop.call_later(1, call_from_thread)
        async with asyncio.timeout(2):
            await done.wait()
        assert loop.time() == 1.0

    run_in_virtual_time(main)


def test_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="'asyncio' or 'trio', got 'curio'"):
        virtual_time_options(cast("Backend", "curio"))


def test_hold_without_a_loop_is_refused() -> None:
    with pytest.raises(RuntimeError, match="needs a loop under virtual time"):
        hold_virtual_time().__enter__()


@pytest.mark.parametrize("backend", BACKENDS)
def test_hold_under_the_real_clock_is_refused(backend: Backend) -> None:
    async def main() -> None:
        with hold_virtual_time():
            pytest.fail("must not be entered")

    with pytest.raises(RuntimeError, match="needs a loop under virtual time"):
        anyio.run(main, backend=backend)


def test_hold_restores_the_threshold_of_a_users_own_clock() -> None:
    async def main() -> None:
        with hold_virtual_time(), hold_virtual_time():
            assert clock.autojump_threshold == float("inf")
        assert clock.autojump_threshold == 0.01

    clock = trio.testing.MockClock(autojump_threshold=0.01)
    trio.run(main, clock=clock)
