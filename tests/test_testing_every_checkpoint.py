"""The engine's own promises, with a fault at every checkpoint of a rich flow.

In place and submitted children, a nested flow, a stream, retries with delays, hooks of
every kind: wherever a run is stopped or dies, each run ends once, children end before
their parents, each hook that is due is called once, and nothing is left.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import pytest

from engine import Engine, RunHandle, State, TaskRun, Transition, flow, runtime, task
from engine.testing import (
    Fault,
    Recorder,
    Trial,
    Trials,
    assert_clean,
    call_at,
    each_cancellation,
    each_crash,
    record,
    virtual_time_options,
)
from engine.testing.clock import Backend

pytestmark = pytest.mark.anyio

HOOKS_DUE = {
    "Pending": (),
    "Running": ("on_running",),
    "AwaitingRetry": ("on_retry",),
    "Completed": ("on_completion",),
    "Failed": ("on_failure",),
    "TimedOut": ("on_failure",),
    "Crashed": ("on_crashed",),
    "Cancelling": ("on_cancellation",),
    "Cancelled": (),
}

each_engine = pytest.mark.parametrize(
    "make_engine",
    [Engine, partial(Engine, max_concurrency=1)],
    ids=["unlimited", "one at a time"],
)
each_death = pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])


class Stage:
    """Flows and tasks that note what is open, and hooks that note their calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []
        self.opened = 0
        self.arrived: set[str | None] = set()
        hooks: Any = {
            kind: [self.hook(kind)] for kinds in HOOKS_DUE.values() for kind in kinds
        }
        self.step = task(name="step", **hooks)(self._step)
        delays = [5, 0]
        self.flaky = task(name="flaky", retries=2, retry_delay_seconds=delays, **hooks)(
            self._flaky
        )
        self.inner = flow(name="inner", **hooks)(self._inner)
        self.crawl = flow(name="crawl", **hooks)(self._crawl)

    def hook(self, kind: str) -> Callable[..., Any]:
        async def note(definition: Any, run: Any, state: State[Any]) -> None:
            self.calls.append((run.id, kind, state.name))
            await anyio.lowlevel.checkpoint()

        return note

    def arrive(self) -> None:
        """Note that the body of a task has come to its end."""
        self.arrived.add(runtime.task_run.id)

    async def _step(self, n: float) -> None:
        self.opened += 1
        try:
            await anyio.sleep(n)
        finally:
            self.opened -= 1
        self.arrive()

    async def _flaky(self) -> None:
        await anyio.sleep(1)
        if runtime.task_run.attempt < 3:
            raise ConnectionError
        self.arrive()

    async def _inner(self) -> None:
        self.opened += 1
        try:
            self.step.submit(3)
            await self.step(1)
        finally:
            try:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.5)
            finally:
                self.opened -= 1

    async def _crawl(self) -> None:
        await self.step(1)
        submitted = self.flaky.submit()
        await self.inner()
        await self.flaky()
        # No two of them end at once, which might wake the flow once or twice.
        async for _ in self.step.stream([3.1, 1.2, 2.3, 1.4], limit=2):
            pass
        await submitted
        self.step.submit(2)


class SyncStage(Stage):
    """The same for plain functions."""

    def hook(self, kind: str) -> Callable[..., Any]:
        def note(definition: Any, run: Any, state: State[Any]) -> None:
            self.calls.append((run.id, kind, state.name))

        return note

    def _step(self, n: float) -> None:  # type: ignore[override]
        pass

    def _flaky(self) -> None:  # type: ignore[override]
        if runtime.task_run.attempt < 3:
            raise ConnectionError

    def _inner(self) -> None:  # type: ignore[override]
        self.step.submit(3)
        self.step(1)

    def _crawl(self) -> None:  # type: ignore[override]
        self.step(1)
        flaky = self.flaky.with_options(retry_delay_seconds=0)
        submitted = flaky.submit()
        self.inner()
        flaky()
        for _ in self.step.stream([3.1, 1.2, 2.3, 1.4], limit=2):
            pass
        submitted.result()
        self.step.submit(2)


def check(engine: Engine, recorder: Recorder, stage: Stage) -> None:
    """Check what holds whatever happens."""
    assert_clean(engine)
    assert stage.opened == 0
    for run in recorder.runs():
        transitions = recorder.transitions(run)
        check_path(run, transitions)
        if isinstance(run.run, TaskRun) and not isinstance(stage, SyncStage):
            assert run.state.is_completed() is (run.id in stage.arrived)
        due = [(run.id, *kind) for t in transitions for kind in hooks_due(t)]
        assert [call for call in stage.calls if call[0] == run.id] == due
        outcomes = recorder.hooks(run)
        assert [(o.run_id, o.kind, o.state) for o in outcomes] == due
        assert all(o.status == "delivered" and o.attempts == 1 for o in outcomes)
    check_families(recorder)
    stage.calls.clear()


def check_path(run: RunHandle[Any], transitions: list[Transition]) -> None:
    """Check that a run begins Pending, goes on from where it was, and ends once."""
    assert transitions[0].previous is None
    assert transitions[0].state.name == "Pending"
    for before, after in pairwise(transitions):
        assert after.previous is before.state
        assert not before.state.is_final()
    assert transitions[-1].state is run.state
    assert run.state.is_final()


def hooks_due(transition: Transition) -> Iterator[tuple[str, str]]:
    """Yield the kinds of hook that a transition owes, and the state they get."""
    name, previous = transition.state.name, transition.previous
    kinds = HOOKS_DUE.get(name, ())
    if name == "Retrying":
        waited = previous is not None and previous.is_scheduled()
        kinds = ("on_running",) if waited else ("on_retry", "on_running")
    for kind in kinds:
        yield kind, name


def check_families(recorder: Recorder) -> None:
    """Check that children begin after and end before their parents."""
    spans = {
        run.id: [t.sequence for t in recorder.transitions(run)]
        for run in recorder.runs()
    }
    for run in recorder.runs():
        above = run.run.parent_run_id
        if above is not None:
            assert spans[above][0] < spans[run.id][0]
            assert spans[run.id][-1] < spans[above][-1]


def check_crash(trial: Trial, error: type[BaseException]) -> None:
    """Check that the run which was hit has crashed, and that whoever waits knows."""
    assert trial.states[-1] == "Crashed"
    assert trial.run.state.cause == error.__name__
    if trial.run.run.parent_run_id is None or trial.error is not None:
        assert isinstance(trial.error, error)


class TestAsyncBodies:
    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(
        self, request: pytest.FixtureRequest
    ) -> tuple[Backend, dict[str, Any]]:
        return virtual_time_options(request.param)

    async def test_without_a_fault(self) -> None:
        """The scenario completes, so that the faults have something to spoil."""
        stage, engine = Stage(), Engine()
        recorder = record(engine)
        async with engine:
            await engine.run(stage.crawl)
        check(engine, recorder, stage)
        assert [run.state.name for run in recorder.runs()] == ["Completed"] * 12
        assert recorder.states(recorder.runs("flaky")[0])[2:] == [
            "AwaitingRetry",
            "Retrying",
            "Retrying",
            "Completed",
        ]

    @each_engine
    async def test_cancelled_anywhere(self, make_engine: Callable[[], Engine]) -> None:
        """A run that is cancelled at any checkpoint ends Cancelled."""
        stage = Stage()
        hit: Counter[str] = Counter()
        async for trial in each_cancellation(
            lambda engine: engine.run(stage.crawl), make_engine=make_engine
        ):
            assert trial.states[-2:] == ["Cancelling", "Cancelled"]
            assert trial.run.state.cause == "user"
            check(trial.engine, trial.recorder, stage)
            hit[trial.recorder.transitions(trial.run)[0].actor.definition.name] += 1
        assert hit["step"] == 8
        assert hit["flaky"] == 6
        assert hit["inner"] > 2
        assert hit["crawl"] > 10

    @each_engine
    @each_death
    async def test_crashed_anywhere(
        self, make_engine: Callable[[], Engine], error: type[BaseException]
    ) -> None:
        """A body that dies at any checkpoint ends Crashed, and its caller sees why."""
        stage = Stage()
        async for trial in each_crash(
            lambda engine: engine.run(stage.crawl), error=error, make_engine=make_engine
        ):
            check_crash(trial, error)
            check(trial.engine, trial.recorder, stage)

    async def test_failed_anywhere(self) -> None:
        """A body that fails at any checkpoint is retried, or ends Failed."""
        stage = Stage()
        async for trial in each_crash(
            lambda engine: engine.run(stage.crawl), error=OSError
        ):
            assert trial.states[-1] in ("Failed", "Completed")
            check(trial.engine, trial.recorder, stage)

    async def test_given_up_by_the_host_anywhere(self) -> None:
        """A host that gives up at any checkpoint stops all, and is cancelled."""
        stage = Stage()
        scope = anyio.CancelScope()

        async def scenario(engine: Engine) -> None:
            nonlocal scope
            with anyio.CancelScope() as scope:
                await engine.run(stage.crawl)

        def give_up(engine: Engine, which: Any, checkpoint: int) -> Fault:
            return call_at(engine, which, checkpoint, lambda _: scope.cancel())

        async for trial in Trials(scenario, None, give_up, Engine):
            assert scope.cancelled_caught
            (crawl,) = trial.recorder.runs(stage.crawl)
            assert crawl.state.is_cancelled()
            assert crawl.state.cause == "host"
            check(trial.engine, trial.recorder, stage)

    async def test_shut_down_anywhere(self) -> None:
        """An engine that closes at any checkpoint stops what does not end by itself."""
        stage = Stage()
        over = anyio.Event()

        async def scenario(engine: Engine) -> None:
            nonlocal over
            over = anyio.Event()
            handle = engine.start(stage.crawl)
            handle._actor.subscribe_settled(over.set)
            await over.wait()

        def close(engine: Engine, which: Any, checkpoint: int) -> Fault:
            return call_at(engine, which, checkpoint, lambda _: over.set())

        ends: set[str | None] = set()
        make_engine = partial(Engine, shutdown_grace=2.5)
        async for trial in Trials(scenario, None, close, make_engine):
            (crawl,) = trial.recorder.runs(stage.crawl)
            ends.add(crawl.state.cause)
            check(trial.engine, trial.recorder, stage)
        assert ends == {"shutdown", None}

    async def test_timed_out_anywhere(self) -> None:
        """A flow whose time is up at any moment ends TimedOut, with all below it."""
        stage = Stage()
        seconds, ended = 0.25, ""
        while ended != "Completed":
            hurried = stage.crawl.with_options(timeout_seconds=seconds)
            engine = Engine()
            recorder = record(engine)
            async with engine:
                ended = (await engine.start(hurried).join()).name
            assert ended in ("TimedOut", "Completed")
            check(engine, recorder, stage)
            seconds += 0.5
        assert seconds > 10


class TestSyncBodies:
    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name

    def check(self, trial: Trial, stage: Stage) -> None:
        # A thread that was given up is on its way back from a body without waits.
        deadline = time.monotonic() + 5
        while trial.engine.statistics().abandoned_threads:
            assert time.monotonic() < deadline
            time.sleep(0)
        check(trial.engine, trial.recorder, stage)

    def test_cancelled_anywhere(self) -> None:
        """A sync run that is cancelled at any call it makes ends Cancelled."""
        stage = SyncStage()
        for trial in each_cancellation(lambda _: stage.crawl()):
            assert trial.states[-2:] == ["Cancelling", "Cancelled"]
            self.check(trial, stage)
        assert trial.checkpoint > 10

    @each_death
    def test_crashed_anywhere(self, error: type[BaseException]) -> None:
        """A sync body that dies at any call it makes ends Crashed."""
        stage = SyncStage()
        for trial in each_crash(lambda _: stage.crawl(), error=error):
            check_crash(trial, error)
            self.check(trial, stage)
        assert trial.checkpoint > 10

    async def test_cancelled_anywhere_in_a_worker_thread(self) -> None:
        """The same holds for a sync run that an engine on a loop drives in a thread."""
        stage = SyncStage()
        async for trial in each_cancellation(lambda engine: engine.run(stage.crawl)):
            assert trial.states[-2:] == ["Cancelling", "Cancelled"]
            self.check(trial, stage)

    @each_death
    async def test_crashed_anywhere_in_a_worker_thread(
        self, error: type[BaseException]
    ) -> None:
        """The same holds for a sync body that dies in a worker thread."""
        stage = SyncStage()
        async for trial in each_crash(
            lambda engine: engine.run(stage.crawl), error=error
        ):
            check_crash(trial, error)
            self.check(trial, stage)
