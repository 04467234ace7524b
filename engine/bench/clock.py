"""The clock that measurements read: the wall's, or the time this process computed.

What others do on the machine shows on the wall's clock only, so the processor's gives
steadier figures where much else runs; but it does not see a thread or a disk that is
waited for.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, Literal

Name = Literal["wall", "cpu"]

CLOCKS: Final = {"wall": time.perf_counter, "cpu": time.process_time}
_read = time.perf_counter


def now() -> float:
    """Return the seconds on the clock in use."""
    return _read()


@contextmanager
def clock(name: Name) -> Generator[None]:
    """Have a clock used in the block."""
    global _read
    before, _read = _read, CLOCKS[name]
    try:
        yield
    finally:
        _read = before
