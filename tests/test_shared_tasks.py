"""Runs and hooks that share a task of the loop notice nothing of each other.

On trio, bodies that never wait are performed one after the other in one task and in one
cancel scope, and so are the hooks that one server calls.
"""

import signal
import sys
import threading
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from types import FrameType
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from engine import Engine, Hook, RunHandle, task
from engine.dispatch import scopes
from engine.dispatch.turns import RUNS_A_TURN
from engine.runtime import task_run

MANY = RUNS_A_TURN // 2
"""So many begin in one turn."""

AMPLE = 0.2
"""Seconds that are a short time to wait for in vain, and more than a checkpoint takes
on a busy machine."""

WHERE: ContextVar[int] = ContextVar("where", default=-1)


@pytest.fixture(params=["shared", "each its own"])
def sharing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether calls share scopes: they do not if trio does not say what is entered."""
    if request.param != "shared":
        monkeypatch.setattr(scopes, "innermost", lambda _: None)
    way: str = request.param
    return way


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio_says_which_scope_is_entered() -> None:
    """Nothing fails if it does not, but then nothing is shared either."""
    current = trio.lowlevel.current_task()
    outside = scopes.innermost(current)
    scope = scopes.enter()
    assert scopes.innermost(current) not in (None, outside)
    scopes.leave(scope, None)
    assert scopes.innermost(current) is outside is not None


async def test_each_has_its_own_context() -> None:
    @task
    async def body(number: int) -> int:
        before = WHERE.get()
        WHERE.set(number)
        return before

    async with Engine():
        assert await body.map(range(MANY)) == [-1] * MANY


async def test_one_that_waits_holds_up_nobody() -> None:
    """Whoever waits for a run that was submitted later meets it."""
    begun = [anyio.Event() for _ in range(MANY)]

    @task
    async def body(number: int) -> int:
        begun[number].set()
        if number % 3 == 0 and number + 1 < MANY:
            await begun[number + 1].wait()
        if number % 5 == 0:
            await begun[-1].wait()
        return number

    async with Engine():
        assert await body.map(range(MANY)) == list(range(MANY))


async def test_bodies_may_wait_now_and_then() -> None:
    """In some turns all of them, in some none, in some a few."""
    counts = [0, 1, 5, MANY, RUNS_A_TURN, 0, 3]

    @task
    async def body(number: int) -> int:
        turn, place = divmod(number, RUNS_A_TURN)
        if place < counts[turn % len(counts)]:
            await anyio.lowlevel.checkpoint()
        return number

    async with Engine():
        numbers = list(range(20 * RUNS_A_TURN))
        assert await body.map(numbers) == numbers


async def test_one_that_stops_itself_stops_no_other(sharing: str) -> None:
    @task
    async def body(number: int) -> int:
        if number % 3 == 0:
            handles[number].cancel()
        if number % 2:
            await anyio.lowlevel.checkpoint()
        return number

    async with Engine():
        handles = [body.submit(number) for number in range(MANY)]
        for handle in handles:
            await handle.join()
    for number, handle in enumerate(handles):
        assert handle.state.is_cancelled() == (number % 3 == 0), number
        assert handle.state.is_final()


async def test_a_cancellation_from_a_thread_hits_no_later_run(sharing: str) -> None:
    """It comes to the loop when the body is over, and the next one waits there."""

    @task
    async def body(number: int) -> int:
        if number == 0:
            thread = threading.Thread(target=handles[0].cancel)
            thread.start()
            thread.join()
        else:
            for _ in range(10):  # until the loop has been told
                await anyio.lowlevel.checkpoint()
        return number

    async with Engine():
        handles = [body.submit(number) for number in range(MANY)]
        for handle in handles:
            await handle.join()
    assert handles[0].state.is_cancelled()
    assert [one.state.data for one in handles[1:]] == list(range(1, MANY))


async def test_failures_stay_with_who_failed(sharing: str) -> None:
    """With errors of every kind among them."""
    errors = (ValueError, SystemExit, GeneratorExit, ExceptionGroup, None)

    @task
    async def body(number: int) -> int:
        error = errors[number % 5]
        if error is ExceptionGroup:
            raise ExceptionGroup("some", [ValueError()])
        if error is not None:
            raise error
        if number % 2:
            await anyio.lowlevel.checkpoint()
        return number

    async with Engine():
        handles = [body.submit(number) for number in range(MANY)]
        ends = [(await handle.join()).name for handle in handles]
    names = ("Failed", "Crashed", "Cancelled", "Failed", "Completed")
    assert ends == [names[number % 5] for number in range(MANY)]


async def test_each_has_the_time_it_was_given(sharing: str) -> None:
    @task
    async def body(number: int) -> int:
        if number % 3 == 0:
            await anyio.sleep_forever()
        return number

    async with Engine():
        hasty = body.with_options(timeout_seconds=0.01)
        handles = [hasty.submit(number) for number in range(MANY)]
        ends = [(await handle.join()).name for handle in handles]
    assert ends == ["Completed" if number % 3 else "TimedOut" for number in range(MANY)]


async def test_another_attempt_is_not_inside_of_the_one_before(sharing: str) -> None:
    """Neither after a failure nor after a deadline."""

    @task(retries=2, timeout_seconds=AMPLE)
    async def body(number: int) -> int:
        attempt = task_run.attempt
        if attempt == 1 and number % 2:
            raise ValueError
        if attempt == 2 and number % 3:
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()
        return number

    async with Engine():
        assert await body.map(range(MANY)) == list(range(MANY))


class Left:
    """A generator that is left in the middle of a scope, which trio forbids."""

    scope: trio.CancelScope

    async def items(self) -> AsyncGenerator[int]:
        with trio.CancelScope() as self.scope:
            yield 1
            yield 2

    async def leave(self) -> None:
        self.generator = self.items()
        await self.generator.__anext__()


@pytest.mark.parametrize("anyio_backend", ["trio"])
@pytest.mark.parametrize("culprit", [0, 1, MANY - 1])
async def test_a_scope_left_open_is_the_fault_of_who_left_it(
    sharing: str, culprit: int
) -> None:
    """The others go on, even when somebody cancels that scope."""
    left = Left()

    @task
    async def body(number: int) -> int:
        if number == culprit:
            await left.leave()
        elif number > culprit:
            left.scope.cancel()
            await trio.lowlevel.checkpoint()
        return number

    async with Engine():
        handles = [body.submit(number) for number in range(MANY)]
        for handle in handles:
            await handle.join()
    failed = handles.pop(culprit)
    assert failed.state.is_failed()
    assert "Cancel scope stack corrupted" in (failed.state.message or "")
    assert all(handle.state.is_completed() for handle in handles)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_hook_that_leaves_a_scope_open_is_the_one_that_failed(
    sharing: str,
) -> None:
    left = Left()

    async def hook(_: Any, run: Any, __: Any) -> None:
        number = run.parameters["number"]
        if number == 3:
            await left.leave()
        elif number > 3:
            left.scope.cancel()
            await trio.lowlevel.checkpoint()

    @task(on_completion=[hook])
    async def body(number: int) -> None: ...

    async with Engine() as engine:
        handles = [body.submit(number) for number in range(MANY)]
        for handle in handles:
            await handle
        assert engine.statistics().hooks.failed == 1
    statuses = [handle.hook_outcomes[0].status for handle in handles]
    assert statuses.pop(3) == "failed"
    assert set(statuses) == {"delivered"}


async def test_a_hook_that_hangs_ends_alone(sharing: str) -> None:
    """Those after it, of its run and of others, have their own time."""

    async def quick(*_: Any) -> None: ...

    async def hangs(_: Any, run: Any, __: Any) -> None:
        if run.parameters["number"] % 3 == 0:
            await anyio.sleep_forever()

    async def waits(*_: Any) -> None:
        await anyio.lowlevel.checkpoint()

    @task(on_completion=[quick, Hook(hangs, timeout=0.01), waits, quick])
    async def body(number: int) -> None: ...

    async with Engine():
        handles = [body.submit(number) for number in range(MANY)]
        for handle in handles:
            await handle
    for number, handle in enumerate(handles):
        status = "delivered" if number % 3 else "timed_out"
        statuses = [outcome.status for outcome in handle.hook_outcomes]
        assert statuses == ["delivered", status, "delivered", "delivered"]


async def test_a_hook_that_fails_as_its_time_is_up_has_failed(sharing: str) -> None:
    """What it raises then is not lost, alone or beside the cancellation."""

    async def fail() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError

    async def alone(*_: Any) -> None:
        await fail()

    async def beside(*_: Any) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            await anyio.sleep_forever()

    @task(on_completion=[alone, beside])
    async def body() -> None: ...

    async with Engine(hook_timeout=AMPLE):
        handle = body.submit()
        await handle
    assert [one.status for one in handle.hook_outcomes] == ["failed"] * 2
    kinds = [type(one.error) for one in handle.hook_outcomes]
    assert kinds == [ValueError, ExceptionGroup]


async def test_the_time_of_a_hook_ends_with_it(sharing: str) -> None:
    """One that has waited in time does not cut what its server waits for later."""
    time_is_up = threading.Event()

    async def waits(*_: Any) -> None:
        await anyio.lowlevel.checkpoint()

    def waits_longer(*_: Any) -> None:
        time_is_up.wait()

    @task(on_completion=[Hook(waits, timeout=AMPLE), waits_longer])
    async def body() -> None: ...

    async with Engine():
        handle = body.submit()
        later = anyio.current_time() + 2 * AMPLE
        while anyio.current_time() < later:
            await anyio.lowlevel.checkpoint()
        time_is_up.set()
        await handle
    assert [one.status for one in handle.hook_outcomes] == ["delivered"] * 2


async def test_a_hook_may_run_something_in_place(sharing: str) -> None:
    """A call within a call has a scope of its own."""

    @task
    async def inner() -> int:
        handle.cancel()
        await anyio.lowlevel.checkpoint()
        return 1

    async def hook(*_: Any) -> None:
        values.append(await inner())

    @task(on_completion=[hook])
    async def body() -> None: ...

    values: list[int] = []
    async with Engine():
        handle = body.submit()
        await handle
        assert await body.submit() is None
    assert values == [1, 1]


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_ctrl_c_is_raised_in_the_body_that_it_interrupts() -> None:
    """And those of its turn that have not begun get lost with nothing."""
    interrupted: list[int] = []

    @task
    async def body(number: int) -> int:
        if number == 3:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                interrupted.append(number)
                raise
        return number

    async with Engine():
        handles = [body.submit(number) for number in range(MANY)]
        ends = [(await handle.join()).name for handle in handles]
    assert interrupted == [3]
    assert ends.pop(3) == "Crashed"
    assert set(ends) == {"Completed"}


OURS = ("engine.dispatch", "engine.actors")
"""Modules whose code performs runs and calls hooks."""


def interrupted_at(step: int) -> list[str]:
    """Send Ctrl-C at a step of that code; return how runs ended, if it came."""
    left = step
    handles: list[RunHandle[int]] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_globals.get("__name__", "").startswith(OURS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        left -= event == "opcode"
        if not left:
            sys.settrace(None)
            signal.raise_signal(signal.SIGINT)
        return trace

    async def hook(*_: Any) -> None: ...

    @task(on_completion=[hook])
    async def body(number: int) -> int:
        if number == 1:
            await trio.lowlevel.checkpoint()
        return number

    async def main() -> None:
        async with Engine():
            handles.extend(body.submit(number) for number in range(3))
            sys.settrace(trace)
            for handle in handles:
                await handle.join()
            sys.settrace(None)

    before = sys.gettrace()
    try:
        trio.run(main)
    except KeyboardInterrupt:
        assert left <= 0
    finally:
        sys.settrace(before)
    return [handle.state.name for handle in handles] if left <= 0 else []


# Of a body that was interrupted right before it began.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_ctrl_c_amid_the_engine_s_own_code_is_but_ctrl_c() -> None:
    """Whichever step it interrupts: every run ends, and trio stays whole."""
    interrupted = 0
    interrupted_at(10**9)  # Python 3.12 traces no steps of what it traces first
    for step in range(1, 100_000, 17):
        ends = interrupted_at(step)
        if not ends:
            break
        interrupted += 1
        assert set(ends) <= {"Completed", "Cancelled", "Crashed"}, step
    assert interrupted > 100


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_task_is_called_what_it_performs() -> None:
    """Where one is looked at: while it waits."""
    names: list[str] = []

    @task(name="waiting")
    async def body() -> None:
        current = trio.lowlevel.current_task()
        await trio.lowlevel.checkpoint()
        names.append(current.name)

    async with Engine():
        for handle in [body.submit() for _ in range(3)]:
            await handle
    assert names == ["waiting"] * 3
