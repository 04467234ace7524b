"""Tracebacks of user code, without the frames of this library above it.

They would bury the user's, and refer to the run, which its exception outlives.
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
    if caller is not None and is_ours(caller):
        with suppress(RuntimeError):  # still executing
            caller.clear()


def is_ours(frame: FrameType) -> bool:
    """Whether a frame executes code of this library."""
    module: str = frame.f_globals.get("__name__", "")
    return module.startswith("engine.")
