"""Who this process is, in words that no other process can ever use.

A pid alone is used again; with the time its process began and the machine's boot it is
not. No clock is asked, so none can be set wrongly.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


def process_start(pid: int) -> str | None:
    """Return when a process began, in ticks since the boot; None where unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # The second field is the program's name, which may hold spaces and parentheses.
    return stat.rpartition(")")[2].split()[19]


def boot_id() -> str | None:
    """Return the identity of the machine's boot; None where unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None


def host_name() -> str:
    """Return the machine's name."""
    return socket.gethostname()


def is_alive(pid: int, started: str | None, boot: str | None) -> bool | None:
    """Whether the process that called itself so is there; None where unknown."""
    if boot is None or started is None:
        return None
    return boot == boot_id() and process_start(pid) == started


def describe(pid: int) -> str:
    """Return how to call a process in a message."""
    here = " (this one)" if pid == os.getpid() else ""
    return f"process {pid}{here}"
