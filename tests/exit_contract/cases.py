"""The dimensions: each row of the table, in every place and through every entry."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from .table import ExitPath

Kind = Literal["flow", "task"]


class Place(enum.Enum):
    """Where the caller is."""

    ASYNCIO = "asyncio"
    TRIO = "trio"
    THREAD = "thread"


class Entry(enum.Enum):
    """How the caller has the run made."""

    DIRECT = "direct"  # subject() or await subject(), in an engine's block
    ALONE = "alone"  # the same, without any engine
    RUN = "run"  # await engine.run(subject)
    START = "start"  # engine.start(subject), and then its handle
    SUBMIT = "submit"  # subject.submit() in a flow, and then its handle


@attrs.frozen
class Case:
    """One row of the table in one place, through one entry."""

    path: ExitPath
    kind: Kind
    is_async: bool
    place: Place
    entry: Entry

    @property
    def is_on_loop(self) -> bool:
        """Whether the caller has an event loop."""
        return self.place is not Place.THREAD

    @property
    def is_in_place(self) -> bool:
        """Whether the body is executed by the caller's own task or thread."""
        if self.entry is Entry.RUN:
            return self.is_async
        return self.entry in (Entry.DIRECT, Entry.ALONE)

    @property
    def blocks_caller(self) -> bool:
        """Whether nothing else runs in the caller's thread until the body is over."""
        return not self.is_async and self.is_in_place

    def __str__(self) -> str:
        colour = "async" if self.is_async else "sync"
        way = f"{self.place.value}-{self.entry.value}"
        return f"{self.path.key}-{colour}_{self.kind}-{way}"


@attrs.frozen(kw_only=True)
class Omission:
    """Cases that are left out, and why. What is None holds for all."""

    reason: str = attrs.field(kw_only=False)
    kind: Kind | None = None
    is_async: bool | None = None
    place: Place | None = None
    entries: tuple[Entry, ...] = tuple(Entry)
    listed: bool | None = None

    def covers(self, case: Case) -> bool:
        """Whether *case* is one of them."""
        return (
            self.kind in (None, case.kind)
            and self.is_async in (None, case.is_async)
            and self.place in (None, case.place)
            and case.entry in self.entries
            and self.listed in (None, case.path.listed)
        )


GENERAL = (
    Omission(
        "a coroutine needs a loop to be awaited on",
        is_async=True,
        place=Place.THREAD,
        entries=(Entry.DIRECT, Entry.ALONE),
    ),
    Omission("engine.run() is awaited", place=Place.THREAD, entries=(Entry.RUN,)),
    Omission("only tasks are submitted", kind="flow", entries=(Entry.SUBMIT,)),
    Omission(
        "a special case: its row has shown that an engine for one call is no other",
        listed=False,
        entries=(Entry.ALONE,),
    ),
    Omission(
        "a special case: its row has shown that this is a direct call",
        listed=False,
        is_async=True,
        entries=(Entry.RUN,),
    ),
)


def combinations(path: ExitPath) -> Iterable[Case]:
    """Yield a row's every combination, whether it makes sense or not."""
    kinds: tuple[Kind, ...] = ("flow", "task")
    for options in itertools.product(kinds, (False, True), Place, Entry):
        yield Case(path, *options)


def omission(case: Case) -> Omission | None:
    """Return why a case makes no sense, or None for one that does."""
    for candidate in (*GENERAL, *case.path.omits):
        if candidate.covers(case):
            return candidate
    return None


def cases(paths: Iterable[ExitPath]) -> list[Case]:
    """Return every case that makes sense."""
    everything = itertools.chain.from_iterable(map(combinations, paths))
    return [case for case in everything if omission(case) is None]
