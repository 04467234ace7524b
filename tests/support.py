"""What many tests share: three ways to run a function, notes, and whole programs."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest

from engine import Engine, Flow, Task, Transition, flow, task
from engine.testing import run_in_virtual_time

ROOT = Path(__file__).parents[1]

Hook = Callable[[Any, Any, Any], None]
HOOKS = (
    "on_running",
    "on_retry",
    "on_completion",
    "on_failure",
    "on_cancellation",
    "on_crashed",
)


class Way:
    """A way to run a function: sync in a plain thread, or async on one of the loops.

    What holds for a function's run holds in each way, so its test is written once,
    with a sync body. The async ways make an async function of it. With ``virtual=True``
    the loop runs in virtual time, and hooks have to be async.
    """

    def __init__(
        self, name: Literal["plain", "asyncio", "trio"], *, virtual: bool = False
    ) -> None:
        self.name = name
        self.is_async = name != "plain"
        self._run = run_in_virtual_time if virtual else anyio.run

    def body(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return *fn*, or an async function of the same signature."""
        if not self.is_async:
            return fn

        @functools.wraps(fn)
        async def body(*args: Any, **kwargs: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            return fn(*args, **kwargs)

        return body

    def flow(self, fn: Callable[..., Any], **options: Any) -> Flow[..., Any]:
        return flow(**options)(self.body(fn))

    def task(self, fn: Callable[..., Any], **options: Any) -> Task[..., Any]:
        return task(**options)(self.body(fn))

    def call(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a flow, a task or a function made by `body` from outside of any loop."""
        if self.name == "plain":
            return fn(*args, **kwargs)
        return self._run(functools.partial(fn, *args, **kwargs), backend=self.name)

    def state(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a flow or task for its terminal state."""
        return self.call(fn, *args, return_state=True, **kwargs)

    def transitions(self, fn: Any, *args: Any) -> list[Transition]:
        """Call a flow or task, however it ends, for the transitions it went through."""
        seen: list[Transition] = []
        # An async hook needs no thread, past whose work virtual time would jump.
        engine = Engine(on_transition=[self.body(seen.append)])

        async def main() -> None:
            async with engine:
                with suppress(Exception):
                    await fn(*args)

        if self.is_async:
            self.call(main)
        else:
            with engine, suppress(Exception):
                fn(*args)
        return seen

    def states(self, fn: Any, *args: Any) -> list[str]:
        """Call a flow or task, however it ends, for the names of its states."""
        return [transition.state.name for transition in self.transitions(fn, *args)]

    def __repr__(self) -> str:
        return self.name


in_every_way = pytest.mark.parametrize(
    "way", [Way("plain"), Way("asyncio"), Way("trio")], ids=str
)
in_virtual_time = pytest.mark.parametrize(
    "way", [Way("asyncio", virtual=True), Way("trio", virtual=True)], ids=str
)
of_each_kind = pytest.mark.parametrize("kind", ["flow", "task"])


class Notes(list[Any]):
    """A list that hooks write to."""

    def hook(self, kind: str) -> Hook:
        """Make a hook that notes its kind and the state it is called with."""

        def note(definition: Any, run: Any, state: Any) -> None:
            self.append((kind, state.name))

        return note

    def hooks(self) -> dict[str, list[Hook]]:
        """Make options with a hook of every kind."""
        return {kind: [self.hook(kind)] for kind in HOOKS}


def run_program(text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own; warnings are errors there too."""
    return subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", text],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def output_of(text: str, *options: str) -> list[str]:
    """Return the lines that a program prints, which has to end well."""
    ended = run_program(text, *options)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()
