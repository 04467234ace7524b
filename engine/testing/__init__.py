"""Helpers for the tests of code that uses engine.

Record what an engine does (`record`), let hours pass in no time
(`run_in_virtual_time`), and let a run be cancelled or crash wherever it can
(`each_cancellation`, `each_crash`).
"""

from engine.testing.checks import assert_clean
from engine.testing.clock import (
    hold_virtual_time,
    run_in_virtual_time,
    virtual_time_options,
)
from engine.testing.faults import Fault, call_at, cancel_at, crash_at
from engine.testing.recorder import Recorder, record
from engine.testing.trials import Trial, Trials, each_cancellation, each_crash

__all__ = [
    "Fault",
    "Recorder",
    "Trial",
    "Trials",
    "assert_clean",
    "call_at",
    "cancel_at",
    "crash_at",
    "each_cancellation",
    "each_crash",
    "hold_virtual_time",
    "record",
    "run_in_virtual_time",
    "virtual_time_options",
]
