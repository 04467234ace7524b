"""The journal: what is remembered beyond the life of the process."""

from engine.journal.base import Journal
from engine.journal.exceptions import (
    JournalBroken,
    JournalError,
    JournalFormatError,
    JournalFull,
    JournalLocked,
)
from engine.journal.sqlite import SQLiteJournal

__all__ = [
    "Journal",
    "JournalBroken",
    "JournalError",
    "JournalFormatError",
    "JournalFull",
    "JournalLocked",
    "SQLiteJournal",
]
