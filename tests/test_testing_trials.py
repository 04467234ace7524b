"""Trials of each checkpoint, and the check of what is left."""

import threading
from contextlib import suppress
from typing import Any

import anyio
import pytest

from engine import Engine, State, flow, task
from engine.exceptions import CancelledRun
from engine.testing import (
    Trial,
    assert_clean,
    each_cancellation,
    each_crash,
    record,
    run_in_virtual_time,
)
from engine.testing.clock import Backend

pytestmark = pytest.mark.anyio

CANCELLED = ["Pending", "Running", "Cancelling", "Cancelled"]
CRASHED = ["Pending", "Running", "Crashed"]
FAILED = ["Pending", "Running", "Failed"]


@task
async def walk() -> str:
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
    return "arrived"


@task
def double(x: int) -> int:
    return 2 * x


@flow
def sync_flow() -> list[int]:
    return [double(1), double.submit(2).result()]


class TestTrials:
    async def test_each_checkpoint_has_its_trial(self) -> None:
        """Each trial strikes one checkpoint further on, in an engine of its own."""
        trials: list[Trial] = []
        async for trial in each_cancellation(lambda e: e.run(walk), walk):
            assert trial.states == CANCELLED
            assert isinstance(trial.error, CancelledRun)
            assert trial.value is None
            assert_clean(trial.engine)
            trials.append(trial)
        assert [trial.checkpoint for trial in trials] == [0, 1, 2]
        assert len({trial.engine for trial in trials}) == 3
        assert repr(trials[1]) == f"<Trial 1: {trials[1].run.name!r} hit>"

    async def test_hooks_of_the_run_that_was_hit(self) -> None:
        """A trial gives the hook outcomes of its run, and the recorder everybody's."""

        async def note(task: Any, run: Any, state: Any) -> None:
            pass

        hooked = walk.with_options(on_crashed=[note], on_completion=[note])

        @flow
        async def parent() -> None:
            await hooked.submit()
            await hooked.submit()

        async for trial in each_crash(lambda e: e.run(parent), hooked):
            assert [(o.kind, o.status) for o in trial.hooks] == [
                ("on_crashed", "delivered")
            ]
            others = trial.recorder.hooks(kind="on_completion")
            assert len(others) == (trial.checkpoint >= 3)
        assert trial.checkpoint == 5

    async def test_every_run_is_hit(self) -> None:
        """Without a choice each checkpoint of each run has its trial."""

        @flow
        async def parent() -> None:
            await walk()

        hit = [
            trial.run.run.__class__.__name__
            async for trial in each_crash(lambda e: e.run(parent))
        ]
        # What suspends the child in place suspends the parent as well.
        assert hit == ["TaskRun", "FlowRun"] * 3

    async def test_what_the_scenario_returns(self) -> None:
        """A trial keeps the value of a scenario that outlives the fault."""

        async def scenario(engine: Engine) -> State[Any]:
            return await engine.start(walk).join()

        async for trial in each_crash(scenario, error=KeyError("mine")):
            assert trial.value is trial.run.state
            assert (trial.states, trial.error) == (FAILED, None)

    async def test_engines_are_made_to_order(self) -> None:
        """The trial's engines are made as the caller wants them."""
        engines: list[Engine] = []

        def make_engine() -> Engine:
            engines.append(Engine(max_concurrency=1))
            return engines[-1]

        trials = each_crash(lambda e: e.run(walk), make_engine=make_engine)
        assert [trial.engine async for trial in trials] == engines[:-1]

    def test_sync_scenarios(self) -> None:
        """A sync scenario is tried with an ordinary loop."""
        trials = each_crash(lambda _: sync_flow(), "sync-flow")
        assert [trial.states for trial in trials] == [CRASHED] * 3
        for trial in each_cancellation(lambda _: sync_flow(), sync_flow):
            assert trial.states == CANCELLED
            assert isinstance(trial.error, CancelledRun)
            assert_clean(trial.engine)

    async def test_a_scenario_that_fails_by_itself(self) -> None:
        """An error that no fault can have caused is the caller's to see."""

        async def scenario(engine: Engine) -> None:
            await engine.start(walk).join()
            raise LookupError("mine")

        trials = each_cancellation(scenario)
        for _ in range(3):
            assert isinstance((await anext(trials)).error, LookupError)
        with pytest.raises(LookupError, match="mine"):
            await anext(trials)

    async def test_a_scenario_without_a_checkpoint(self) -> None:
        """Trials of nothing would prove nothing: that is an error."""
        with pytest.raises(AssertionError, match="run called 'wlak' never came to a"):
            async for _ in each_cancellation(lambda e: e.run(walk), "wlak"):
                pass

    def test_a_sync_scenario_without_a_checkpoint(self) -> None:
        """A sync body that calls nothing has no checkpoint, either."""
        with pytest.raises(AssertionError, match="any run never came to a checkpoint"):
            next(each_crash(lambda _: double(1)))

    async def test_the_test_itself_is_cancelled(self) -> None:
        """A cancellation of the trials goes on, instead of being a trial's error."""
        with anyio.move_on_after(0.01) as scope:
            async for _ in each_cancellation(lambda _: anyio.sleep_forever()):
                pass
        assert scope.cancelled_caught


class TestAssertClean:
    async def test_an_engine_with_nothing_left(self) -> None:
        """An engine is clean when all has ended, open or closed."""
        async with Engine() as engine:
            assert_clean(engine)
            await engine.run(double, 1)
            assert_clean(engine)
        assert_clean(engine)

    async def test_live_runs(self) -> None:
        """Runs that live are named, with the states they are in."""
        release = anyio.Event()

        @task
        async def hang() -> None:
            await release.wait()

        async with Engine() as engine:
            await record(engine).wait_for(engine.start(hang), "Running")
            with pytest.raises(AssertionError, match=r"\n  'hang-1' is still Running$"):
                assert_clean(engine)
            release.set()
        assert_clean(engine)

    async def test_hooks_that_have_not_ended(self) -> None:
        """Hooks that are owed and have not ended are counted."""
        release = anyio.Event()

        async def wait(task: Any, run: Any, state: Any) -> None:
            await release.wait()

        @task(on_completion=[wait, wait], on_running=[wait])
        async def work() -> None: ...

        async with Engine() as engine:
            handle = engine.start(work)
            await record(engine).wait_for(handle, "Running")
            with pytest.raises(
                AssertionError, match=r"\n  1 of 1 hooks have not ended$"
            ):
                assert_clean(engine)
            release.set()
            await handle
            assert_clean(engine)

    async def test_hooks_that_were_never_called(self) -> None:
        """Hooks that the end of the engine took their chance are counted."""

        async def hang(task: Any, run: Any, state: Any) -> None:
            await anyio.sleep_forever()

        @task(on_completion=[hang, hang])
        async def work() -> None: ...

        async with Engine(shutdown_grace=0) as engine:
            handle = engine.start(work)
            await record(engine).wait_for(handle, "Completed")
            engine.hooks.close()
        with pytest.raises(AssertionError, match=r"  2 of 2 hooks were never called$"):
            assert_clean(engine)

    def test_threads_that_hang(self) -> None:
        """A thread whose run is over is named until its body returns."""
        began, release = threading.Event(), threading.Event()

        @task
        def hang() -> None:
            began.set()
            release.wait(5)

        with Engine() as engine:
            handle = engine.start(hang)
            began.wait(5)
            handle.cancel()
            with pytest.raises(AssertionError, match=r"\n  1 threads were abandoned$"):
                assert_clean(engine)
            release.set()

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_runs_that_were_given_up(self, backend: Backend) -> None:
        """A run that the engine had to give up is never clean."""

        async def main() -> Engine:
            release = anyio.Event()

            @task
            async def stubborn() -> None:
                while not release.is_set():
                    with (
                        suppress(anyio.get_cancelled_exc_class()),
                        anyio.CancelScope(shield=True),
                    ):
                        await release.wait()

            @stubborn.on_crashed
            async def let_go(task: Any, run: Any, state: Any) -> None:
                release.set()

            async with Engine() as engine:
                await record(engine).wait_for(engine.start(stubborn), "Running")
            return engine

        engine = run_in_virtual_time(main, backend=backend)
        with pytest.raises(AssertionError, match="  1 runs did not stop and were "):
            assert_clean(engine)
