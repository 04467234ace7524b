"""What the engine's side hands to the writer: pages of entries.

A page becomes one transaction. It is filled by the actors, under the engine's lock and
mostly on a busy loop. Of each step it takes plain values, while they are at hand: a
reference to the state would keep it alive for a while, and tens of thousands of states
that would have been freed at once keep the garbage collector busy instead.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from engine.actors.lane import Commit
from engine.states import StateType

if TYPE_CHECKING:
    from engine.actors.lane import Lane, Owed
    from engine.actors.run import RunActor
    from engine.dispatch.base import Wake
    from engine.hooks import HookOutcome
    from engine.journal.exceptions import JournalError

STEP: Final = ("run_id", "sequence", "type", "name", "attempt", "entered_at", "clock")
"""The fields of a step without message and cause, as most are."""

STEP_FIELDS: Final = len(STEP)

TYPES: Final = {kind: kind.value for kind in StateType}
"""What is written of a type, since asking a member for its value takes longer."""

NAMES: Final = {kind: kind.value.capitalize() for kind in StateType}
"""What a state is called that says nothing but its type."""

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
    is alive.

    Attributes:
        commit: What those have who wait for it to be on disk.
        steps: Steps of runs, as `STEP`.
        told: Steps with a message or a cause: as `STEP`, then the two.
        ended: Runs that have ended: id and time.
        made: Runs that are new: id, time, name, definition, lineage, tags, and what
            `note` said of their arguments.
        named: Runs whose name was made by a template: id and name.
        owed: Runs whose steps owe hooks, each followed by its hook.
        hooks: What became of hooks.
        lanes: Those who wait for it to be on disk, as the keys of a dict.
        wakes: Others who do.
    """

    __slots__ = (
        "ended",
        "hooks",
        "lanes",
        "made",
        "named",
        "commit",
        "owed",
        "steps",
        "told",
        "wakes",
    )

    def __init__(self) -> None:
        self.commit = Commit()
        self.steps: list[Any] = []
        self.told: list[Any] = []
        self.ended: list[Any] = []
        self.made: list[Any] = []
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
        told = len(self.told) // (STEP_FIELDS + 2)
        return len(self.steps) // STEP_FIELDS + told + len(self.hooks)


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


def parameters_of(definition: Any, noted: Any) -> str | None:
    """Return a run's parameters as JSON; None if they cannot be written so."""
    if noted.__class__ is not tuple:
        return noted  # type: ignore[no-any-return]
    binder = definition.binder
    if len(noted) == len(binder.names) == binder.most:
        return encode_plain(binder.names, noted)
    return encode(binder.parameters(noted, {}))


def encode(parameters: dict[str, Any]) -> str | None:
    """Return parameters as JSON; None if they have none, or far too much."""
    try:
        return limited(ENCODER.encode(parameters))
    except (TypeError, ValueError, RecursionError):
        return None


def encode_plain(names: tuple[str, ...], values: tuple[Any, ...]) -> str | None:
    """Do so for values that are all plain."""
    try:
        parts = [
            label + PLAIN[value.__class__](value)
            for label, value in zip(labels(names), values, strict=True)
        ]
    except ValueError:
        return None  # not a number, or infinite: JSON has no such thing
    return limited(f"{{{', '.join(parts)}}}")


@functools.lru_cache(1024)
def labels(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names as the keys of a JSON object."""
    return tuple(f"{encode_basestring_ascii(name)}: " for name in names)


def limited(text: str) -> str | None:
    """Return a text unless it is far too long."""
    return text if len(text) <= MOST_CHARACTERS else None
