"""SIGTERM, where an engine handles it: what it interrupts, and what it must not.

How the runs end is in the table of exit paths; here is where the handler may raise.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any

import anyio
import pytest
from exit_contract.tools import survive_signals
from support import output_of

from engine import Engine, RunHandle, flow, task
from engine.exceptions import CrashedRun, NoEngineError, Terminated

on_each_loop = pytest.mark.parametrize("loop", ["asyncio", "trio"])


@pytest.fixture(autouse=True)
def _survive() -> Iterator[None]:
    """Have what no engine takes fail the test, and not end it."""
    with survive_signals():
        yield


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


@on_each_loop
def test_what_a_threads_run_left_on_the_loop_is_not_its_body(loop: str) -> None:
    """A callback in a worker's context is not ended like the body in that thread.

    Raised there, it would strike the loop itself in the middle of something.
    """
    contexts: list[Context] = []
    reached: list[str] = []
    handles: list[RunHandle[None]] = []
    has_begun, goes_on = threading.Event(), threading.Event()

    @task
    def body() -> None:
        contexts.append(copy_context())
        has_begun.set()
        goes_on.wait()

    async def main() -> None:
        async with Engine(signals=True) as engine:
            handles.append(engine.start(body))
            await anyio.to_thread.run_sync(has_begun.wait)
            try:
                contexts[0].run(terminate)
                reached.append("callback")
                await anyio.sleep_forever()
            finally:
                goes_on.set()

    with pytest.raises(Terminated):
        anyio.run(main, backend=loop)
    assert reached == ["callback"]
    assert handles[0].state.cause == "terminated"


@on_each_loop
def test_what_a_run_in_place_left_on_the_loop_is_not_its_body(loop: str) -> None:
    """The same of a sync run that held the loop, when it is over."""
    contexts: list[Context] = []
    reached: list[str] = []

    @flow
    def body() -> None:
        contexts.append(copy_context())

    async def main() -> None:
        async with Engine(signals=True):
            body()
            contexts[0].run(terminate)
            reached.append("callback")
            await anyio.sleep_forever()

    with pytest.raises(Terminated):
        anyio.run(main, backend=loop)
    assert reached == ["callback"]


@pytest.mark.parametrize("loop", ["asyncio", "trio", None])
def test_a_body_that_holds_the_thread_is_interrupted(loop: str | None) -> None:
    """In a run inside of it, or between two of them."""
    reached: list[str] = []

    @task
    def quick() -> None:
        """Nothing."""

    @flow
    def between() -> None:
        quick()
        terminate()
        reached.append("after")

    ends_the_engine(loop, between)
    assert reached == []


@pytest.mark.parametrize("loop", ["asyncio", "trio", None])
def test_a_hook_is_not_interrupted(loop: str | None) -> None:
    """It is delivered; the call that its run belongs to raises the termination."""
    states: list[Any] = []
    reached: list[str] = []

    def hook(flow: Any, run: Any, state: Any) -> None:
        terminate()
        reached.append("hook")

    @task(on_completion=[hook])
    def inner() -> None:
        """End, so that the hook is called."""

    @flow(on_crashed=[lambda flow, run, state: states.append(state.cause)])
    def outer() -> None:
        inner()
        reached.append("after")

    report = ends_the_engine(loop, outer)
    assert reached == ["hook"]
    assert states == ["terminated"]
    assert report.hooks.delivered == report.hooks.due == 2


def test_a_block_in_a_plain_thread_ends_with_it() -> None:
    """Even where the termination was caught on the way."""

    @flow
    def deaf() -> None:
        with suppress(Terminated):
            terminate()

    with pytest.raises(Terminated), Engine(signals=True), suppress(CrashedRun):
        deaf()
    with pytest.raises(AssertionError, match="no engine took"):
        terminate()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX threads")
@on_each_loop
def test_a_loop_that_waits_is_woken(loop: str) -> None:
    """Also by a signal that the system gives to another thread, or just before."""
    waiting = ("select", "get_events")

    def send() -> None:
        main = threading.main_thread().ident
        while sys._current_frames()[main or 0].f_code.co_name not in waiting:
            pass
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    async def main() -> None:
        async with Engine(signals=True):
            threading.Thread(target=send).start()
            with anyio.move_on_after(10) as too_late:
                scopes.append(too_late)
                await anyio.sleep_forever()

    scopes: list[anyio.CancelScope] = []
    with pytest.raises(Terminated):
        anyio.run(main, backend=loop)
    assert not scopes[0].cancel_called


@pytest.mark.parametrize("loop", ["asyncio", "trio", None])
def test_another_than_the_main_thread_is_refused(loop: str | None) -> None:
    """With a sentence, and nothing is left of the engine."""
    texts: list[str] = []

    @task
    def body() -> None:
        """Never begin."""

    async def main() -> None:
        async with Engine(signals=True):
            pass

    def enter() -> None:
        try:
            if loop is None:
                with Engine(signals=True):
                    pass
            else:
                anyio.run(main, backend=loop)
        except ValueError as error:
            texts.append(str(error))
        try:
            body.submit()
        except NoEngineError as error:
            texts.append(str(error))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert len(texts) == 2
    assert "in the main thread only" in texts[0]


FORKED = """
import os, signal
import anyio
from engine import Engine

async def main():
    async with Engine(signals=True):
        ready, tell = os.pipe()
        child = os.fork()
        if not child:
            os.write(tell, b"1")
            while True:
                signal.pause()
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        print(os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM)

anyio.run(main, backend=loop)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@on_each_loop
def test_a_forked_child_dies_of_it(loop: str) -> None:
    """As it would without an engine: who sends it the signal means the child."""
    assert output_of(f"loop = {loop!r}{FORKED}") == ["True"]


def ends_the_engine(loop: str | None, body: Callable[[], None]) -> Any:
    """Call a flow that is terminated, and its engine with it; return the report."""
    engine = Engine(signals=True)
    reached: list[str] = []

    def call() -> None:
        with pytest.raises(Terminated):
            body()
        reached.append("caller")

    async def main() -> None:
        async with engine:
            call()

    if loop is not None:
        with pytest.raises(Terminated):
            anyio.run(main, backend=loop)
    else:
        with pytest.raises(Terminated), engine:
            call()
    assert reached == ["caller"]
    return engine.shutdown_report
