"""Ready-made checks of what an engine has left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.host import Engine

__all__ = ["assert_clean"]


def assert_clean(engine: Engine) -> None:
    """Check that everything an engine began has ended, and every hook was called.

    Clean means: no run is live, none had to be given up, every hook that was due has
    been called (whether or not it failed), and no thread still hangs in a sync body or
    hook whose run is over. Works on an engine whose runs were waited for, and on one
    that was closed.

    Args:
        engine: The engine to check.

    Raises:
        AssertionError: Something is left; the message says what.
    """
    __tracebackhide__ = True
    problems = [
        f"{handle.run.name!r} is still {handle.state.name}"
        for handle in engine.handles()
    ]
    statistics, report = engine.statistics(), engine.shutdown_report
    if report is not None and report.abandoned:
        problems.append(f"{report.abandoned} runs did not stop and were given up")
    hooks = statistics.hooks
    if hooks.waiting:
        problems.append(f"{hooks.waiting} of {hooks.due} hooks have not ended")
    if hooks.undelivered:
        problems.append(f"{hooks.undelivered} of {hooks.due} hooks were never called")
    if statistics.abandoned_threads:
        problems.append(f"{statistics.abandoned_threads} threads were abandoned")
    if problems:
        raise AssertionError("the engine is not clean:\n  " + "\n  ".join(problems))
