"""What the engine's side hands to the writer: pages of entries.

A page becomes one transaction. It is filled by the actors, under the engine's lock and
mostly on a busy loop. Of each step it takes plain values, while they are at hand: a
reference to the state would keep it alive for a while, and tens of thousands of states
that would have been freed at once keep the garbage collector busy instead.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from engine.actors.lane import Commit

if TYPE_CHECKING:
    from engine.actors.lane import Lane, Owed
    from engine.actors.run import RunActor
    from engine.dispatch.base import Wake
    from engine.hooks import HookOutcome
    from engine.journal.exceptions import JournalError

MADE: Final = (
    "run_id",
    "sequence",
    "entered_at",
    "clock",
    "name",
    "definition",
    "lineage",
    "tags",
    "arguments",
)
"""The fields of a new run and of its step to Pending; what `note` said of the
arguments comes last."""

WHEN: Final = ("run_id", "sequence", "entered_at", "clock")
"""The fields of a step whose place says all else of it, as that of most does."""

TOLD: Final = (*WHEN[:2], "type", "name", "message", "cause", "attempt", *WHEN[2:])
"""The fields of any other step."""

ENCODER: Final = json.JSONEncoder(allow_nan=False)

PLAIN: Final[dict[type, Callable[[Any], str]]] = {
    int: int.__repr__,
    str: encode_basestring_ascii,
    float: ENCODER.encode,
    bool: ENCODER.encode,
    type(None): ENCODER.encode,
}
"""The JSON of values that nobody can change. Setting an encoder up for each call takes
five times as long as this does for the first two, the most frequent ones."""

MOST_CHARACTERS: Final = 65_536
"""Parameters that are longer are not recorded."""


class Ended(NamedTuple):
    """A hook that has ended."""

    run: RunActor
    owed: Owed
    outcome: HookOutcome
    is_recovered: bool
    at: float


class Begun(NamedTuple):
    """A hook that a recovery is about to call."""

    run: RunActor
    owed: Owed


class Parked(NamedTuple):
    """A hook that a recovery could not find."""

    run: int
    sequence: int
    position: int
    error: str
    at: float


class Page:
    """What one transaction writes.

    All but the last two are flat lists, one entry's fields after another's: thousands
    of small tuples beside a busy loop keep the garbage collector walking over all that
    is alive. The three steps that nearly every run makes have lists of their own, so
    that nobody has to write down, nor to read, what they have in common.

    Attributes:
        commit: What those have who wait for it to be on disk.
        made: Runs that are new, and so Pending, as `MADE`.
        begun: Steps to Running of the first attempt, as `WHEN`.
        completed: Steps to Completed of the first attempt, as `WHEN`.
        told: All other steps, as `TOLD`.
        named: Runs whose name was made by a template: id and name.
        owed: Runs whose steps owe hooks, each followed by its hook.
        hooks: What became of hooks.
        lanes: Those who wait for it to be on disk, as the keys of a dict.
        wakes: Others who do.
    """

    __slots__ = (
        "begun",
        "commit",
        "completed",
        "hooks",
        "lanes",
        "made",
        "named",
        "owed",
        "told",
        "wakes",
    )

    def __init__(self) -> None:
        self.commit = Commit()
        self.made: list[Any] = []
        self.begun: list[Any] = []
        self.completed: list[Any] = []
        self.told: list[Any] = []
        self.named: list[Any] = []
        self.owed: list[Any] = []
        self.hooks: list[Ended | Begun | Parked] = []
        self.lanes: dict[Lane, None] = {}
        self.wakes: list[Wake] = []

    def finish(self, error: JournalError | None = None) -> None:
        """Let those go on who wait for it: it is on disk, or never will be."""
        self.commit.finish(error)
        for wake in self.wakes:
            wake()

    def __len__(self) -> int:
        plain = len(self.begun) + len(self.completed)
        others = len(self.made) // len(MADE) + len(self.told) // len(TOLD)
        return plain // len(WHEN) + others + len(self.hooks)


def note(run: RunActor) -> Any:
    """Note what a run is called with, as long as it is certain.

    Returns:
        The arguments themselves where nothing can change them, else their JSON.
    """
    if run.kwargs:
        return encode(run.parameters)
    for value in run.args:
        if value.__class__ not in PLAIN:
            return encode(run.parameters)
    return run.args


def parameters_of(definition: Any, noted: list[Any]) -> list[str | None]:
    """Return siblings' parameters as JSON; None for those that cannot be written so."""
    binder = definition.binder
    width = len(binder.names)
    if width == binder.most and all_are_rows(noted, width):
        try:
            texts = encode_plain(binder.names, noted)
        except ValueError:
            pass  # one is not a number, or infinite: JSON has no such thing
        else:
            if max(map(len, texts)) <= MOST_CHARACTERS:
                return [*texts]
    return [
        encode(binder.parameters(one, {})) if one.__class__ is tuple else one
        for one in noted
    ]


def all_are_rows(noted: list[Any], width: int) -> bool:
    """Whether what was noted are nothing but values, so many of each."""
    return set(map(type, noted)) == {tuple} and set(map(len, noted)) == {width}


def encode(parameters: dict[str, Any]) -> str | None:
    """Return parameters as JSON; None if they have none, or far too much."""
    try:
        return limited(ENCODER.encode(parameters))
    except (TypeError, ValueError, RecursionError):
        return None


def encode_plain(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    """Do so for rows of values that are all plain, column by column."""
    if not names:
        return ["{}"] * len(rows)
    # Not by zip(*rows): that makes an iterator for each row, all of them at once.
    columns = [plain_texts([row[i] for row in rows]) for i in range(len(names))]
    return list(map(template(names).__mod__, zip(*columns, strict=True)))


def plain_texts(column: list[Any]) -> Iterable[str]:
    """Return plain values as JSON."""
    kinds = set(map(type, column))
    if len(kinds) == 1:
        return map(PLAIN[kinds.pop()], column)
    return [PLAIN[value.__class__](value) for value in column]


@functools.lru_cache(1024)
def template(names: tuple[str, ...]) -> str:
    """Return a JSON object with a place for each value, as ``%`` fills it."""
    keys = (encode_basestring_ascii(name).replace("%", "%%") for name in names)
    return f"{{{', '.join(f'{key}: %s' for key in keys)}}}"


def limited(text: str) -> str | None:
    """Return a text unless it is far too long."""
    return text if len(text) <= MOST_CHARACTERS else None
