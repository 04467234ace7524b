"""Logging from inside of runs: a logger that knows its run, and captured prints.

This library logs through structlog and configures nothing. The keys ``run_id``,
``flow`` and ``task`` are bound as structlog context variables in every run, so lines of
the user's own loggers carry them too, where ``merge_contextvars`` is among the
processors (it is by default).
"""

from __future__ import annotations

import builtins
import functools
import io
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import structlog

from engine.context import CURRENT
from engine.exceptions import MissingContextError


class EngineLogger:
    """The library's own logger.

    What the user's logging raises (a broken ``__repr__`` among the facts, a closed
    stream) is dropped: it would kill whoever reports, and change how runs end.
    """

    def __init__(self) -> None:
        self._log = structlog.get_logger("engine")

    def debug(self, event: str, **facts: Any) -> None:
        """Log what only a developer of the host wants to see."""
        with suppress(Exception):
            self._log.debug(event, **facts)

    def warning(self, event: str, **facts: Any) -> None:
        """Log what somebody should look at some day."""
        with suppress(Exception):
            self._log.warning(event, **facts)

    def error(self, event: str, **facts: Any) -> None:
        """Log what went wrong."""
        with suppress(Exception):
            self._log.error(event, **facts)


log = EngineLogger()


def get_run_logger(**context: Any) -> Any:
    """Return a structlog logger bound to the current run.

    Its lines carry ``run_id``, ``run`` (the run's name), ``attempt``, and ``flow`` or
    ``task``.

    Args:
        **context: Further keys to bind.

    Raises:
        MissingContextError: Called outside of any run and hook.
    """
    run = CURRENT.get()
    if run is None:
        raise MissingContextError("get_run_logger()")
    kind = run.definition.kind
    bound = {"run_id": run.id, "run": run.name, "attempt": run.attempt}
    bound[kind] = run.definition.name
    return structlog.get_logger("engine.run", **bound, **context)


class PrintCapture:
    """Replaces ``print`` while runs with ``log_prints`` are executing.

    ``print`` is one for the whole process, so the replacement looks at whose code
    calls it: only what such a run prints to the standard output is logged.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._original: Callable[..., None] = builtins.print
        self._logging = threading.local()

    @contextmanager
    def installed(self) -> Generator[None]:
        """Capture prints for the length of the block."""
        with self._lock:
            if not self._users:
                self._original = builtins.print
                builtins.print = self._print
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and builtins.print == self._print:
                    builtins.print = self._original

    def _print(self, *values: Any, file: Any = None, **options: Any) -> None:
        run = CURRENT.get()
        to_stdout = file is None or file is sys.stdout
        logs = run is not None and to_stdout and run.definition.options.log_prints
        if not logs or getattr(self._logging, "now", False) or is_from_structlog():
            self._original(*values, file=file, **options)
            return
        text = io.StringIO()
        self._original(*values, file=text, **{**options, "end": ""})
        self._logging.now = True
        try:
            get_run_logger().info(text.getvalue())
        finally:
            self._logging.now = False


def is_from_structlog() -> bool:
    """Whether it is structlog that prints, holding its logger's lock."""
    module: str = sys._getframe(2).f_globals.get("__name__", "")
    return module.startswith("structlog.")


capture = PrintCapture()


def logging_prints(fn: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
    """Return *fn* with what it prints turned into log lines."""
    if is_async:

        @functools.wraps(fn)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with capture.installed():
                return await fn(*args, **kwargs)

        return call_async

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        with capture.installed():
            return fn(*args, **kwargs)

    return call
