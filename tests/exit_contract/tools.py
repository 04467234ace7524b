"""What threads and loops need to meet: an event, a thread beside, signals, strikes."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import trio

raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
"""Has an exception raised in a thread at its next step that can be interrupted."""
raise_in.argtypes = (ctypes.c_ulong, ctypes.py_object)

PATIENCE = 5.0
"""Seconds after which what has not happened is a failure."""


class Flag:
    """Something that happens once; threads and loops can wait for it."""

    def __init__(self) -> None:
        self._reached: Future[None] = Future()

    def set(self) -> None:
        """Let it happen; from any thread, any number of times."""
        with suppress(InvalidStateError):
            self._reached.set_result(None)

    def is_set(self, within: float = 0.0) -> bool:
        """Whether it has happened, or does in so many seconds."""
        with suppress(TimeoutError):
            self._reached.result(within)
        return self._reached.done()

    def block(self) -> None:
        """Block this thread until it has happened."""
        self._reached.result(PATIENCE)

    async def wait(self) -> None:
        """Wait on this thread's loop until it has happened."""
        reached, call_soon = anyio.Event(), call_soon_here()

        def wake(_: object) -> None:
            # A waiter that gave up may have taken its loop with it.
            with suppress(RuntimeError, trio.RunFinishedError):
                call_soon(reached.set)

        self._reached.add_done_callback(wake)
        await reached.wait()


def call_soon_here() -> Callable[[Callable[[], Any]], Any]:
    """Return what calls a function on this thread's loop, from any thread."""
    if trio.lowlevel.in_trio_run():
        return trio.lowlevel.current_trio_token().run_sync_soon
    return asyncio.get_running_loop().call_soon_threadsafe


def drive(script: Coroutine[Any, Any, Any]) -> Any:
    """Run a script that never suspends."""
    try:
        script.send(None)
    except StopIteration as end:
        return end.value
    script.close()
    raise AssertionError("a script of sync code has waited for a loop")


@contextmanager
def beside(fn: Callable[[], Any]) -> Iterator[None]:
    """Have *fn* executed in a thread, whose end the block's end waits for."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            fn()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise errors[0]


@contextmanager
def survive_signals() -> Iterator[None]:
    """Let a SIGTERM that no engine takes be an error here, and not our end."""

    def untaken(*_: Any) -> None:
        raise AssertionError("no engine took the signal")

    interrupt = signal.getsignal(signal.SIGINT)
    previous = signal.signal(signal.SIGTERM, untaken)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        signal.signal(signal.SIGINT, interrupt)


def note_signals(taken: Flag, *numbers: int) -> None:
    """Raise a flag when a handler is called of those that there are now."""
    for number in numbers:
        signal.signal(number, noting(taken, signal.getsignal(number)))


def noting(taken: Flag, handle: Any) -> Callable[..., None]:
    """Return a handler that raises a flag before it calls the one that was."""

    def handler(*args: Any) -> None:
        taken.set()
        handle(*args)

    return handler


def send_signal(number: int, taken: Flag) -> None:
    """Send this process a signal, until its handler is called."""
    os.kill(os.getpid(), number)
    while not taken.is_set(within=0.05):
        # A main thread that was just about to wait for a lock when the signal came does
        # so before it calls the handler; another signal ends the wait.
        os.kill(os.getpid(), number)


def strike(kind: type[BaseException]) -> None:
    """Have an exception raised in this thread, but not here."""
    put_off_collection()
    # Python looks for it when a call of a C function has returned. This is none to it.
    [*map(raise_in, [threading.get_ident()], [kind])]


def put_off_collection() -> None:
    """Have no garbage collection begin soon.

    It would come first, and an exception from outside would hit what others have it
    call, as hypothesis does, in the place of what is to be hit.
    """
    gc.collect(0)


def strike_at(function: Callable[..., Any], kind: type[BaseException]) -> None:
    """Have an exception raised in this thread as soon as *function* is called here."""
    code = function.__code__

    def look(frame: Any, event: str, arg: object) -> None:
        if frame.f_code is code:
            sys.settrace(None)
            strike(kind)

    sys.settrace(look)
