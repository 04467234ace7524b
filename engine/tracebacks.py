"""Tracebacks of user code, without the frames of this library above it.

They would bury the user's, and refer to the run, which its exception outlives.

Out of sight they are not gone. A frame in a traceback holds the one that called it,
with the variables that this ended with, and so on up to the thread's first. Python cuts
that chain where a coroutine ends, but not from 3.12 until 3.13.12 and 3.14.3 (CPython's
issue 100964). So what user code is called from lets go of its run in the end, or the
run, its error and those frames would wait for the garbage collector.
"""

from __future__ import annotations

from contextlib import suppress
from types import FrameType


def trim_traceback(error: BaseException) -> None:
    """Drop this library's own frames from the top of a traceback.

    One without any other frame stays as it is.
    """
    traceback = error.__traceback__
    while traceback is not None and is_ours(traceback.tb_frame):
        traceback = traceback.tb_next
    if traceback is None:
        return
    # Not by assignment, which an exception class may refuse.
    BaseException.with_traceback(error, traceback)
    caller = traceback.tb_frame.f_back
    with suppress(RuntimeError):  # still executing
        while caller is not None and is_ours(caller):
            caller.clear()
            caller = caller.f_back


def is_ours(frame: FrameType) -> bool:
    """Whether a frame executes code of this library."""
    module: str = frame.f_globals.get("__name__", "")
    return module.startswith("engine.")
