"""What a journal must be able to do.

A journal is written by one thread, in batches. A batch is one transaction: after
`Journal.write` has returned, all of it survives what the journal's durability promises;
before that, none of it may show.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from engine.journal.rows import Batch, DefinitionRow, OwedHook


@attrs.frozen(kw_only=True)
class Owner:
    """Who writes to a journal: one engine in one process.

    Attributes:
        prefix: What the ids of its runs begin with.
        pid: Its process.
        started: When the process began, in the operating system's own unit; with the
            pid and *boot* it names one process and no later one. None where unknown.
        boot: The machine's boot; None where unknown.
        host: The machine's name.
        hooks: The engine's own hooks, as in `DefinitionRow.crash_hooks`.
    """

    prefix: str
    pid: int
    started: str | None
    boot: str | None
    host: str
    hooks: str


@attrs.frozen(kw_only=True)
class Opening:
    """What a journal tells the engine that has opened it.

    Attributes:
        owner: The engine's number.
        base: The number before that of its first run.
        definitions: Those that the journal knows.
        recovered: How many runs were moved to Crashed because their process was lost.
        owed: Hooks that earlier processes owed, each run's in order.
    """

    owner: int
    base: int
    definitions: list[DefinitionRow]
    recovered: int
    owed: list[OwedHook]


class Journal(ABC):
    """Keeps runs, transitions and hooks beyond the life of a process.

    All methods are called by one thread and may block. They raise `JournalError` for
    what may get better, and `JournalBroken` for what cannot.

    Attributes:
        path: Where it is, for messages.
        quarantine_after: How many recoveries may fail on one hook.
    """

    path: str
    quarantine_after: int

    @abstractmethod
    def open(self, owner: Owner) -> Opening | None:
        """Become the only writer and recover what other owners left behind.

        Runs that are live belong to processes that are gone, since those held the
        journal as long as they lived: they are moved to Crashed, children before
        parents, owing their hooks.

        Returns:
            What was found; None if another run's id begins with the owner's prefix.

        Raises:
            JournalLocked: Another engine has it.
            JournalFormatError: It cannot be read.
        """

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Commit a batch. It may be given again after an error: nothing is doubled."""

    @abstractmethod
    def reopen(self) -> None:
        """Start afresh after an error, still as the owner."""

    @abstractmethod
    def tidy(self) -> bool:
        """Drop some of what is no longer to be kept; whether there is more."""

    @abstractmethod
    def close(self, *, clean: bool) -> None:
        """Let another engine have it.

        Args:
            clean: Whether everything was written.
        """

    @abstractmethod
    def was_forked(self) -> None:
        """Forget the journal without touching it: this process is a fork."""


def journal_from(given: Any) -> Journal:
    """Return the journal that ``Engine(journal=…)`` means.

    Raises:
        ValueError: A URL of an unknown kind.
        TypeError: Neither a URL nor a journal.
    """
    if isinstance(given, Journal):
        return given
    if not isinstance(given, str):
        text = "journal must be a URL such as 'sqlite:///path' or a Journal"
        raise TypeError(f"{text}, got {given!r}")
    scheme, separator, path = given.partition(":///")
    if scheme != "sqlite" or not separator or not path:
        raise ValueError(f"journal must look like 'sqlite:///path', got {given!r}")
    # Only now: an engine without a journal does not pay for the import.
    from engine.journal.sqlite import SQLiteJournal

    return SQLiteJournal(path)
