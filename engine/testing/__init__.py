"""Helpers for the tests of code that uses engine."""

from engine.testing.clock import (
    hold_virtual_time,
    run_in_virtual_time,
    virtual_time_options,
)

__all__ = [
    "hold_virtual_time",
    "run_in_virtual_time",
    "virtual_time_options",
]
