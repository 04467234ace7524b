"""A user's module for the tests: flows whose hooks leave a line in a file."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import Any

import anyio

from engine import flow, runtime, task

NOTES = "JOURNAL_APP_NOTES"
"""Names the file."""


def note(*words: object) -> None:
    with open(os.environ[NOTES], "a", encoding="utf-8") as file:
        print(time.monotonic(), *words, file=file, flush=True)


def noted(flow: Any, run: Any, state: Any) -> None:
    note("noted", flow.name, state.name, state.cause, runtime.delivery.hook)


async def noted_later(flow: Any, run: Any, state: Any) -> None:
    note("noted_later", flow.name, state.name, state.cause, runtime.delivery.hook)


def deadly(flow: Any, run: Any, state: Any) -> None:
    note("deadly", state.name)
    if not os.environ.get("JOURNAL_APP_TAMED"):
        os.kill(os.getpid(), signal.SIGKILL)


def failing(flow: Any, run: Any, state: Any) -> None:
    note("failing", state.name)
    if not os.environ.get("JOURNAL_APP_TAMED"):
        raise ValueError("not today")


class Pager:
    def page(self, subject: str, flow: Any, run: Any, state: Any) -> None:
        note("page", subject, state.name, runtime.delivery.hook)


@task(on_crashed=[noted])
async def child(how: str) -> None:
    note("child", how)
    if how == "kill":
        note("killing")
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(2)
    await anyio.sleep(float(how))


@flow(
    on_completion=[noted],
    on_failure=[noted],
    on_cancellation=[noted_later],
    on_crashed=[noted_later, noted, partial(Pager().page, "help"), lambda *_: None],
)
async def parent(how: str = "0") -> str:
    note("parent", how)
    await child(how)
    return how


@flow(on_crashed=[deadly, noted])
async def doomed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@flow(on_crashed=[failing, noted])
async def unlucky() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@flow(on_completion=[noted], on_crashed=[noted])
def blocking(seconds: float) -> None:
    note("blocking")
    time.sleep(seconds)


def local() -> Any:
    """Return a flow that no name leads to, with a hook likewise."""

    def hidden(*_: Any) -> None:
        note("hidden")

    @flow(name="local", on_crashed=[hidden, noted])
    async def inner() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    return inner
