"""A lock on a file that the operating system takes back when its holder dies.

POSIX record locks, which a forked child does not inherit; ``flock`` ones survive in
every child of a killed process, and keep the journal from being recovered as long as
any of them lives. Their price: they do not exclude within one process, and closing any
descriptor of the file drops them. So this process keeps a list of what it holds, and
opens no lock file that is on it.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    import msvcrt

    WINDOWS_BYTE: Final = 1 << 20
    """Which byte is locked: one beyond the text, which others have to read."""

    def lock(descriptor: int) -> None:
        """Lock an open file, or raise OSError."""
        os.lseek(descriptor, WINDOWS_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]

else:

    def lock(descriptor: int) -> None:
        """Lock an open file, or raise OSError."""
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


PID_WIDTH: Final = 20

_guard = threading.Lock()
_held: set[tuple[int, int]] = set()
_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()
_watches_forks = False


class FileLock:
    """The right to write what a file stands for; the file itself stays for ever.

    Attributes:
        path: The lock file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it."""
        with _guard:
            if self._held_here():
                return False
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                lock(descriptor)
            except OSError:
                os.close(descriptor)
                return False
            except BaseException:
                os.close(descriptor)
                raise
            status = os.fstat(descriptor)
            self._descriptor = descriptor
            self._identity = (status.st_dev, status.st_ino)
            _held.add(self._identity)
            watch_forks(self)
        # Over what is there: to empty the file first may have to wait for the disk.
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"{os.getpid():<{PID_WIDTH}}".encode())
        return True

    def is_free(self) -> bool:
        """Whether nobody has it at this moment."""
        if not self.try_acquire():
            return False
        self.release()
        return True

    def holder(self) -> int | None:
        """Return the process that took the lock last; None if that cannot be read."""
        with _guard:
            if self._held_here():
                return os.getpid()
            try:
                with open(self.path, encoding="ascii") as file:
                    return int(file.read(PID_WIDTH) or 0) or None
            except (OSError, ValueError):
                return None

    def release(self) -> None:
        """Give the lock back."""
        with _guard:
            if self._descriptor is not None and self._identity is not None:
                os.close(self._descriptor)
                _held.discard(self._identity)
            self._descriptor = self._identity = None

    def was_forked(self) -> None:
        """Drop the inherited descriptor; the parent's lock is not touched by that."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = self._identity = None

    def _held_here(self) -> bool:
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) in _held


def watch_forks(held: FileLock) -> None:
    """See to it that a forked child has none of the locks."""
    global _watches_forks
    _locks.add(held)
    if not _watches_forks and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget_all)
        _watches_forks = True


def forget_all() -> None:
    """Forget every lock: this process is a fork, which inherits none."""
    global _guard
    _guard = threading.Lock()  # its holder may be a thread that does not exist here
    _held.clear()
    for held in _locks:
        held.was_forked()
