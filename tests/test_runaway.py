"""Bodies that run out of stack: each run ends all the same, with its hooks."""

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from support import of_each_kind

from engine import Engine, flow, task
from engine.testing import Recorder, record

DECORATORS: dict[str, Any] = {"flow": flow, "task": task}


@pytest.fixture(autouse=True)
def little_stack() -> Iterator[None]:
    """Leave room for a few runs within runs, so that it is soon used up."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 400)
    with capture_logs():  # of hooks for which there is no room
        yield
    sys.setrecursionlimit(before)


def check(recorder: Recorder) -> None:
    """See that each run has ended once, and its only hook likewise."""
    steps = recorder.transitions()
    ended = Counter(step.run.id for step in steps if step.state.is_final())
    assert ended == Counter({step.run.id for step in steps})
    assert ended == Counter(outcome.run_id for outcome in recorder.hooks())


def deeper(frames: int, call: Callable[[], Any]) -> Any:
    """Call something so many frames further down."""
    return deeper(frames - 1, call) if frames else call()


@of_each_kind
def test_a_body_that_calls_itself_for_ever(kind: str) -> None:
    """Every level of it fails, from the innermost to the outermost."""

    @DECORATORS[kind](on_failure=[lambda *_: None])
    def runaway() -> None:
        runaway()

    with Engine() as engine:
        recorder = record(engine)
        state = runaway(return_state=True)
        assert engine.statistics().live_runs == 0
    assert isinstance(state.data, RecursionError)
    assert len(recorder.runs()) > 2
    check(recorder)


@of_each_kind
async def test_an_async_body_that_awaits_itself_for_ever(kind: str) -> None:
    """Likewise, in one task of a loop."""

    async def hook(*_: Any) -> None: ...

    # Trio asks all cancel scopes around, one within the other: it has a say, too.
    @DECORATORS[kind](on_failure=[hook], on_crashed=[hook])
    async def runaway() -> None:
        await runaway()

    async with Engine() as engine:
        recorder = record(engine)
        state = await runaway(return_state=True)
        assert engine.statistics().live_runs == 0
    assert isinstance(state.data, RecursionError)
    assert len(recorder.runs()) > 2
    check(recorder)


def test_wherever_the_stack_ends() -> None:
    """A call in place is refused, or made with room enough for its run to end."""

    @task(on_completion=[lambda *_: None])
    def leaf() -> None: ...

    @flow(on_completion=[lambda *_: None])
    def parent() -> list[str]:
        ends = []
        for frames in range(200, 400):
            try:
                deeper(frames, leaf)
                ends.append("called")
            except RecursionError:
                ends.append("refused")
        return ends

    with Engine() as engine:
        recorder = record(engine)
        ends = parent()
    assert set(ends) == {"called", "refused"}
    assert ends == sorted(ends)
    assert len(recorder.runs()) == ends.count("called") + 1
    check(recorder)
