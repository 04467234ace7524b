"""The supervisor: who ended how, and what becomes of the engine's own actors."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
import trio
from structlog.testing import capture_logs

from engine import Engine, RunHandle, flow, task
from engine.actors import messages as m
from engine.actors.messages import Asked
from engine.actors.supervisor import (
    PERIOD,
    POLICY,
    RESTARTS,
    ExitKind,
    Supervisor,
    classify,
)
from engine.exceptions import EngineFailedError
from engine.testing import virtual_time_options

# How a body ended, what had been asked of it, and so how its run ends: the state, and
# its cause if there is one.
VERDICTS = """
            NOTHING           CANCEL          DEADLINE   HOST            TERMINATION
RETURNED    Completed         Cancelled:user  TimedOut   Completed       Crashed:terminated
RAISED      Failed            Cancelled:user  TimedOut   Cancelled:host  Crashed:terminated
CANCELLED   Crashed:stray_cancel Cancelled:user TimedOut Cancelled:host  Crashed:terminated
CLOSED      Cancelled:host    Cancelled:user  Cancelled:host Cancelled:host Crashed:terminated
DIED        Crashed:SystemExit Crashed:SystemExit Crashed:SystemExit Crashed:SystemExit Crashed:terminated
"""  # noqa: E501


def documented_verdicts() -> dict[tuple[ExitKind, Asked], str]:
    """Read the table above."""
    head, *rows = VERDICTS.strip().splitlines()
    columns = [Asked[name] for name in head.split()]
    return {
        (ExitKind[kind], column): verdict
        for kind, *verdicts in map(str.split, rows)
        for column, verdict in zip(columns, verdicts, strict=True)
    }


# Bodies that return by themselves, or in spite of a cancellation that the run itself
# was not asked for, report themselves: no policy is needed.
REPORTED_BY_ITSELF = {
    (ExitKind.RETURNED, Asked.NOTHING),
    (ExitKind.RETURNED, Asked.HOST),
}
PAIRS = list(documented_verdicts())


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_time_options(request.param)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


def test_the_policy_knows_every_end_that_can_occur() -> None:
    """The table is complete: each kind of exit for each request."""
    decided = {(kind, asked) for kind in POLICY for asked in POLICY[kind]}
    assert decided == set(PAIRS) - REPORTED_BY_ITSELF
    assert {kind for kind, _ in PAIRS} == set(ExitKind)
    assert {asked for _, asked in PAIRS} == set(Asked)


class Body:
    """A body that ends in a given way as soon as it is interrupted, or told to."""

    def __init__(self, kind: ExitKind) -> None:
        self.kind = kind
        self.began, self.go_on = anyio.Event(), anyio.Event()

    async def __call__(self) -> str:
        self.began.set()
        try:
            await self.go_on.wait()
        except BaseException:
            if self.kind is ExitKind.CANCELLED:
                raise
        return self.end()

    def end(self) -> str:
        match self.kind:
            case ExitKind.RETURNED:
                return "value"
            case ExitKind.RAISED:
                raise ValueError("mine")
            case ExitKind.CANCELLED:
                raise asyncio.CancelledError
            case ExitKind.CLOSED:
                raise GeneratorExit
            case ExitKind.DIED:
                raise SystemExit(3)


async def ask(asked: Asked, body: Body, handle: RunHandle[Any]) -> None:
    """Ask a run to end, in the way given, once its body has begun."""
    await body.began.wait()
    match asked:
        case Asked.NOTHING:
            body.go_on.set()
        case Asked.CANCEL:
            handle.cancel()
        case Asked.DEADLINE:
            await anyio.sleep(5)
        case Asked.TERMINATION:
            handle._actor.send(m.TERMINATE)
        case Asked.HOST:
            raise AssertionError("a started run has no host to be cancelled")


def described(handle: RunHandle[Any]) -> str:
    state = handle.state
    return state.name if state.cause is None else f"{state.name}:{state.cause}"


class TestEveryPair:
    @pytest.mark.parametrize(
        ("kind", "asked"), [pair for pair in PAIRS if pair[1] is not Asked.HOST]
    )
    async def test_of_a_started_run(self, kind: ExitKind, asked: Asked) -> None:
        """A real body that ends so, when asked so, ends its run as documented."""
        body = Body(kind)

        @flow(timeout_seconds=5 if asked is Asked.DEADLINE else None)
        async def fn() -> str:
            return await body()

        async with Engine() as engine:
            handle = engine.start(fn)
            await ask(asked, body, handle)
            with anyio.fail_after(60):
                await handle.join()
        assert described(handle) == documented_verdicts()[kind, asked]

    @pytest.mark.parametrize("kind", ExitKind)
    async def test_of_a_run_whose_host_is_cancelled(self, kind: ExitKind) -> None:
        """Likewise for a run in place whose caller is cancelled."""
        body = Body(kind)
        handles: list[RunHandle[Any]] = []

        @flow
        async def fn() -> str:
            handles.extend(engine.handles())
            return await body()

        async def call() -> None:
            with suppress(ValueError, SystemExit, GeneratorExit):
                await fn()

        async with Engine() as engine, anyio.create_task_group() as group:
            group.start_soon(call)
            await body.began.wait()
            group.cancel_scope.cancel()
        (handle,) = handles
        assert described(handle) == documented_verdicts()[kind, Asked.HOST]

    async def test_of_a_coroutine_that_is_closed(self) -> None:
        """Closing the coroutine of a call cancels its run, cause host."""
        body = Body(ExitKind.CLOSED)

        @flow
        async def fn() -> str:
            return await body()

        async with Engine() as engine:
            coroutine = fn()
            coroutine.send(None)
            (handle,) = engine.handles()
            coroutine.close()
        assert described(handle) == "Cancelled:host"

    async def test_a_failing_clean_up_is_logged(self) -> None:
        """A cancelled run is Cancelled all the same; what its end raised is logged."""
        body = Body(ExitKind.RAISED)

        @task
        async def fn() -> str:
            return await body()

        with capture_logs() as logs:
            async with Engine() as engine:
                handle = engine.start(fn)
                await ask(Asked.CANCEL, body, handle)
                await handle.join()
        (line,) = logs
        assert line["event"] == "cleanup_failed"
        assert line["run_id"] == handle.id
        assert line["error"] == "ValueError: mine"


class TestGroups:
    """What the user's own task groups raise is taken apart."""

    async def test_a_cancelled_group_is_a_cancellation(self) -> None:
        """A run that is cancelled inside of a task group of its own is Cancelled."""

        @flow
        async def fn() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(anyio.sleep_forever)

        async with Engine() as engine:
            handle = engine.start(fn)
            await anyio.wait_all_tasks_blocked()
            handle.cancel()
            await handle.join()
        assert described(handle) == "Cancelled:user"

    async def test_errors_beside_a_cancellation_do_not_undo_it(self) -> None:
        """Errors raised while a group is cancelled are the clean-up's."""

        async def clean_up_badly() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise OSError("disk")

        @flow
        async def fn() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(clean_up_badly)
                group.start_soon(anyio.sleep_forever)

        async with Engine() as engine:
            handle = engine.start(fn)
            await anyio.wait_all_tasks_blocked()
            handle.cancel()
            await handle.join()
        assert described(handle) == "Cancelled:user"

    async def test_a_group_of_errors_is_a_failure(self) -> None:
        """A task group that fails by itself makes its run Failed, with the group."""

        async def fail() -> None:
            raise ValueError("mine")

        @flow
        async def fn() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(fail)
                group.start_soon(anyio.sleep_forever)

        async with Engine() as engine:
            handle = engine.start(fn)
            state = await handle.join()
            with pytest.raises(ExceptionGroup) as caught:
                await handle
        assert state.is_failed()
        assert state.data is caught.value
        assert isinstance(caught.value.exceptions[0], ValueError)

    async def test_a_group_with_an_exit_is_a_crash(self) -> None:
        """One SystemExit among the errors of a group is enough to die of."""

        @flow
        async def fn() -> None:
            raise BaseExceptionGroup("", [ValueError(), SystemExit(3)])

        async with Engine() as engine:
            state = await engine.start(fn).join()
        assert (state.name, state.cause) == ("Crashed", "BaseExceptionGroup")


def trio_cancelled() -> BaseException:
    """Return a real cancellation of trio, which cannot be made by hand."""

    async def catch() -> BaseException:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as error:
                caught = error
                raise
        return caught

    return trio.run(catch)


CANCELLED = asyncio.CancelledError()
ERROR, EXIT = ValueError(), SystemExit()
GROUP = ExceptionGroup("", [ERROR, OSError()])
Group = BaseExceptionGroup


class TestClassify:
    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (None, ExitKind.RETURNED),
            (ERROR, ExitKind.RAISED),
            (TimeoutError(), ExitKind.RAISED),
            (StopIteration(), ExitKind.RAISED),
            (GROUP, ExitKind.RAISED),
            (CANCELLED, ExitKind.CANCELLED),
            (trio_cancelled(), ExitKind.CANCELLED),
            (Group("", [CANCELLED]), ExitKind.CANCELLED),
            (Group("", [Group("", [trio_cancelled()]), CANCELLED]), ExitKind.CANCELLED),
            (GeneratorExit(), ExitKind.CLOSED),
            (EXIT, ExitKind.DIED),
            (KeyboardInterrupt(), ExitKind.DIED),
            (BaseException(), ExitKind.DIED),
            (Group("", [EXIT, ERROR]), ExitKind.DIED),
        ],
        ids=repr,
    )
    def test_what_is_no_mixture_decides_as_a_whole(
        self, error: BaseException | None, kind: ExitKind
    ) -> None:
        """The kind follows from the error, which stays the very object."""
        assert classify(error) == (kind, error)

    @pytest.mark.parametrize("cancelled", [CANCELLED, trio_cancelled()], ids=repr)
    @pytest.mark.parametrize(
        ("error", "kind"), [(ERROR, ExitKind.RAISED), (EXIT, ExitKind.DIED)], ids=repr
    )
    def test_in_a_mixture_the_error_decides(
        self, cancelled: BaseException, error: BaseException, kind: ExitKind
    ) -> None:
        """Cancellations beside an error, at any depth, are left out."""
        mixed = Group("a", [cancelled, Group("b", [error, cancelled]), cancelled])
        found, rest = classify(mixed)
        assert found is kind
        assert isinstance(rest, Group)
        (inner,) = rest.exceptions
        assert isinstance(inner, Group)
        assert inner.exceptions == (error,)


class Dying:
    """An actor's loop that dies a number of times, and then ends."""

    def __init__(self, times: int, between: Callable[[], object] = bool) -> None:
        self.left = times
        self.began = 0
        self.between = between

    async def serve(self) -> None:
        self.began += 1
        await anyio.lowlevel.checkpoint()
        if self.left:
            self.left -= 1
            self.between()
            raise OSError("died")


class TestRestarts:
    async def test_an_actor_that_ends_is_left_alone(self) -> None:
        """Returning is no death."""
        escalated: list[EngineFailedError] = []
        actor = Dying(0)
        await Supervisor(escalated.append).watch("hook actor", actor.serve)
        assert (actor.began, escalated) == (1, [])

    async def test_an_actor_that_dies_is_started_again(self) -> None:
        """Within the intensity each death is logged and followed by a new start."""
        escalated: list[EngineFailedError] = []
        actor = Dying(RESTARTS)
        with capture_logs() as logs:
            await Supervisor(escalated.append).watch("hook actor", actor.serve)
        assert (actor.began, escalated) == (RESTARTS + 1, [])
        assert [line["event"] for line in logs] == ["actor_died"] * RESTARTS
        assert logs[0]["actor"] == "hook actor"
        assert logs[0]["error"] == "OSError: died"

    async def test_an_actor_that_keeps_dying_is_given_up(self) -> None:
        """Past the intensity the engine is told who died how often."""
        escalated: list[EngineFailedError] = []
        actor = Dying(1000)
        await Supervisor(escalated.append).watch("hook actor", actor.serve)
        assert actor.began == RESTARTS + 1
        (failure,) = escalated
        assert (failure.actor, failure.restarts) == ("hook actor", RESTARTS)
        assert "died more than 5 times in 10 s" in str(failure)

    async def test_deaths_far_apart_do_not_count_together(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only the deaths of the last seconds are within the intensity."""
        now = 0.0

        def pass_time() -> None:
            nonlocal now
            now += PERIOD / RESTARTS

        clock = "engine.actors.supervisor.time.monotonic"
        monkeypatch.setattr(clock, lambda: now)
        escalated: list[EngineFailedError] = []
        actor = Dying(100, pass_time)
        supervisor = Supervisor(escalated.append)
        monkeypatch.setattr("engine.actors.supervisor.RESTARTS", RESTARTS + 1)
        await supervisor.watch("hook actor", actor.serve)
        assert (actor.began, escalated) == (101, [])

    async def test_actors_are_counted_apart(self) -> None:
        """One actor's deaths do not use up another's restarts."""
        escalated: list[EngineFailedError] = []
        supervisor = Supervisor(escalated.append)
        for name in ("hook actor", "journal"):
            await supervisor.watch(name, Dying(RESTARTS).serve)
        assert not escalated

    async def test_a_cancellation_is_no_death(self) -> None:
        """A cancelled actor ends, and is not started again."""
        actor = Dying(0)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await Supervisor(lambda failure: None).watch("hook actor", actor.serve)
        assert scope.cancelled_caught
        assert actor.began == 1


class TestEscalation:
    """What becomes of an engine whose hook actor keeps dying."""

    @pytest.fixture(autouse=True)
    def broken_hooks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def die(*_: Any) -> None:
            raise OSError("a bug of our own")

        monkeypatch.setattr("engine.actors.hook.HookActor._deliver", die)

    async def test_a_death_costs_the_hooks_of_one_run(self) -> None:
        """Within the intensity runs end, their hooks undelivered, and all goes on."""

        @task(on_completion=[print, print])
        async def fn() -> int:
            return 1

        async with Engine() as engine:
            for _ in range(RESTARTS):
                handle = engine.start(fn)
                assert await handle == 1
                statuses = [outcome.status for outcome in handle.hook_outcomes]
                assert statuses == ["undelivered"] * 2
        assert engine.statistics().hooks.undelivered == 2 * RESTARTS

    async def test_past_the_intensity_the_engine_fails(self) -> None:
        """Its block is cancelled and raises, after an orderly shutdown."""

        @task(on_completion=[print])
        async def fn() -> None: ...

        @flow
        async def live() -> None:
            await anyio.sleep_forever()

        handles = []

        async def serve() -> None:
            async with Engine() as engine:
                handles.append(engine.start(live))
                for _ in range(RESTARTS + 1):
                    await engine.start(fn).join()
                await anyio.sleep_forever()

        with pytest.raises(EngineFailedError, match="gave up on its hook actor"):
            await serve()
        assert described(handles[0]) == "Cancelled:shutdown"


def test_an_engine_without_a_loop_fails_at_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A ``with`` block cannot be cancelled; its end raises what went wrong in it."""

    async def die(*_: Any) -> None:
        raise OSError("a bug of our own")

    @task(on_completion=[print])
    def fn() -> int:
        return 1

    monkeypatch.setattr("engine.actors.hook.HookActor._deliver", die)
    values = []

    def serve() -> None:
        with Engine() as engine:
            values.extend(engine.start(fn).result() for _ in range(RESTARTS + 1))

    with pytest.raises(EngineFailedError):
        serve()
    assert values == [1] * (RESTARTS + 1)
