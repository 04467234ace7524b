"""The interface of what keeps results, and a store in memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from threading import Lock
from typing import Any, Final, Protocol

import attrs

MEMORY_LIMIT: Final = 10_000


@attrs.frozen(kw_only=True)
class ResultRecord:
    """One kept result.

    Attributes:
        key: What it is found by.
        payload: The value as its serializer has made it: bytes, or for ``copy``, which
            never leaves the process, an object.
        serializer: The serializer's name.
        task: The task's name, for people.
        run_id: The run that made the value.
        created_at: When, in seconds of Unix time.
        expires_at: When it is too old, in seconds of Unix time; None is never.
    """

    key: str
    payload: Any
    serializer: str
    task: str
    run_id: str
    created_at: float
    expires_at: float | None = None

    @property
    def is_expired(self) -> bool:
        """Whether it is too old to be used."""
        return self.expires_at is not None and time.time() >= self.expires_at


class ResultStore(Protocol):
    """What keeps results. Its methods may be called from any thread."""

    @property
    def is_blocking(self) -> bool:
        """Whether its methods wait for something, so that no event loop calls them."""
        ...

    def __str__(self) -> str:
        """Return what it is called in logs: one name for all that share results."""
        ...

    def read(self, key: str) -> ResultRecord | None:
        """Return a record, also an expired one; None if there is none to be used.

        What cannot be read is a miss, and a warning in the log.
        """
        ...

    def write(self, record: ResultRecord) -> None:
        """Keep a record, in the place of one with the same key.

        Raises:
            Exception: It is not kept.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the record of a key, if there is one."""
        ...


class MemoryResultStore:
    """Results in the memory of this process.

    Args:
        limit: How many there may be; the one that was not used for longest makes room.

    Raises:
        ValueError: *limit* is not positive.
    """

    is_blocking = False

    def __init__(self, limit: int = MEMORY_LIMIT) -> None:
        if limit < 1:
            raise ValueError(f"limit must be >= 1, got {limit}")
        self._limit = limit
        self._lock = Lock()
        self._records: OrderedDict[str, ResultRecord] = OrderedDict()

    def __str__(self) -> str:
        return f"memory {id(self):x}"

    def __len__(self) -> int:
        return len(self._records)

    def read(self, key: str) -> ResultRecord | None:
        """Return a record; see `ResultStore.read`."""
        with self._lock:
            record = self._records.get(key)
            if record is not None:
                self._records.move_to_end(key)
            return record

    def write(self, record: ResultRecord) -> None:
        """Keep a record; see `ResultStore.write`."""
        with self._lock:
            self._records[record.key] = record
            self._records.move_to_end(record.key)
            while len(self._records) > self._limit:
                self._records.popitem(last=False)

    def delete(self, key: str) -> None:
        """Remove a record; see `ResultStore.delete`."""
        with self._lock:
            self._records.pop(key, None)
