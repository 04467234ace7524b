"""What can go wrong with a journal."""

from __future__ import annotations

import attrs

from engine.exceptions import EngineError


@attrs.define(eq=False)
class JournalError(EngineError):
    """The journal cannot be read or written now; it is tried again until it can."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"the journal {self.path} cannot be used: {self.problem}"


@attrs.define(eq=False)
class JournalFull(JournalError):
    """There is no space for the journal to grow; it is tried again until there is."""

    def __str__(self) -> str:
        return (
            f"the journal {self.path} has no space to grow ({self.problem}):"
            " free some, and it goes on by itself"
        )


@attrs.define(eq=False)
class JournalBroken(JournalError):
    """The journal's file can be trusted no more; this engine never writes to it again.

    After a failed fsync nobody knows what the disk has. Entering a new engine on the
    file reads what is really there.
    """

    def __str__(self) -> str:
        return (
            f"the journal {self.path} was given up: {self.problem};"
            " enter a new engine to recover what the disk has"
        )


@attrs.define(eq=False)
class JournalLocked(JournalError):
    """Another engine uses the journal."""

    def __str__(self) -> str:
        return (
            f"the journal {self.path} is in use by {self.problem}: give each engine"
            " a journal of its own, or wait with SQLiteJournal(path, wait=seconds)"
        )


@attrs.define(eq=False)
class JournalFormatError(JournalError):
    """The file is no journal, or one of a newer version than this library reads."""

    def __str__(self) -> str:
        return f"cannot open {self.path} as a journal: {self.problem}"
