"""JSON that gives back what it was given, of exactly the same types, or refuses it.

JSON's own types are written as they are. The others are an object with one key that
begins with ``$``, which says what they are::

    {"$tuple": [1, 2]}   {"$set": […]}   {"$frozenset": […]}
    {"$bytes": "…"}      {"$float": "nan"}   {"$datetime": "2026-01-31T08:00:00"}
    {"$dict": [[1, "a"]]}   a dictionary with keys that are no text, or begin with $
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, Final
from uuid import UUID

import attrs

from engine.checks import with_article
from engine.fingerprint import exact_type
from engine.states import safe_repr, safe_text


@attrs.define(eq=False)
class NotJsonError(ValueError):
    """A value cannot be written so that it comes back as it was.

    Attributes:
        path: Where in the value the trouble is; empty is the value itself.
        problem: What is there.
    """

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path or 'the value'}: {self.problem}"


def encode_bytes(value: bytes) -> str:
    """Return bytes as base64 text."""
    return base64.b64encode(value).decode("ascii")


def decode_bytes(text: str) -> bytes:
    """Return the bytes of base64 text."""
    return base64.b64decode(text, validate=True)


def encode_delta(value: timedelta) -> str:
    """Return a duration as text, exactly."""
    return f"{value.days},{value.seconds},{value.microseconds}"


def decode_delta(text: str) -> timedelta:
    """Return the duration of a text."""
    return timedelta(*map(int, text.split(",")))


TEXTS: Final[Mapping[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]]] = {
    "$float": (float, repr, float),
    "$complex": (complex, repr, complex),
    "$bytes": (bytes, encode_bytes, decode_bytes),
    "$datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "$date": (date, date.isoformat, date.fromisoformat),
    "$time": (time, time.isoformat, time.fromisoformat),
    "$timedelta": (timedelta, encode_delta, decode_delta),
    "$decimal": (Decimal, str, Decimal),
    "$uuid": (UUID, str, UUID),
    "$posix-path": (PosixPath, str, PosixPath),
    "$windows-path": (WindowsPath, str, WindowsPath),
    "$pure-posix-path": (PurePosixPath, str, PurePosixPath),
    "$pure-windows-path": (PureWindowsPath, str, PureWindowsPath),
}
"""By tag: the exact type, how it is written as text, and how that is read."""

KINDS: Final[Any] = tuple, set, frozenset

LISTS: Final[Mapping[str, Any]] = {f"${kind.__name__}": kind for kind in KINDS}
"""By tag: the exact types whose items are written as a list."""

TAG_OF: Final[Mapping[Any, str]] = {
    **{kind: tag for tag, (kind, _, _) in TEXTS.items()},
    **{kind: tag for tag, kind in LISTS.items()},
}


def dump(value: Any) -> bytes:
    """Return *value* as JSON text.

    Raises:
        NotJsonError: It would not come back as it was.
    """
    encoder = Encoder()
    try:
        return json.dumps(encoder.encode(value), separators=(",", ":")).encode("ascii")
    except RecursionError:
        problem = "an object that is nested too deeply, or holds itself"
    except NotJsonError:
        raise
    except Exception as error:
        # A number with too many digits, or a time zone of the user's own.
        a_kind = with_article(type(value).__name__)
        problem = f"{a_kind} with something odd: {safe_text(error)}"
    raise NotJsonError("", problem)


def load(text: bytes) -> Any:
    """Return the value that `dump` has made *text* of.

    Raises:
        ValueError: It was not made by it.
    """
    try:
        return decode(json.loads(text))
    except (RecursionError, TypeError, ArithmeticError, NotImplementedError) as error:
        # A tag that holds something else than it says, or a path of another system.
        problem = str(error)
    raise ValueError(problem)


class Encoder:
    """Makes what JSON can hold of a value, and knows where in it that is."""

    def __init__(self) -> None:
        self._path: list[str] = []

    def encode(self, value: Any) -> Any:
        """Return what JSON can hold of *value*."""
        kind = exact_type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float and math.isfinite(value):
            return value
        if kind is list:
            return self._items(value)
        if kind is dict:
            return self._encode_dict(value)
        tag = TAG_OF.get(kind)
        if tag is None:
            raise self._refuse(with_article(kind.__qualname__))
        if tag in LISTS:
            return {tag: self._items(value)}
        if kind in (datetime, time) and loses_zone(value):
            raise self._refuse(
                f"a {kind.__qualname__} whose zone or fold would be lost"
            )
        return {tag: TEXTS[tag][1](value)}

    def _refuse(self, problem: str) -> NotJsonError:
        return NotJsonError("".join(self._path), problem)

    def _encode_dict(self, value: dict[Any, Any]) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self._at(f"[{key!r}]", item) for key, item in value.items()}
        pairs = [
            [self._at(".keys()", key), self._at(f"[{safe_repr(key)[:40]}]", item)]
            for key, item in value.items()
        ]
        return {"$dict": pairs}

    def _items(self, values: Any) -> list[Any]:
        return [self._at(f"[{i}]", item) for i, item in enumerate(values)]

    def _at(self, where: str, value: Any) -> Any:
        self._path.append(where)
        encoded = self.encode(value)
        self._path.pop()
        return encoded


def loses_zone(value: datetime | time) -> bool:
    """Whether ISO text, which has the distance from UTC only, would change a time."""
    again = type(value).fromisoformat(value.isoformat())
    return again.tzinfo != value.tzinfo or again.fold != value.fold


def decode(stored: Any) -> Any:
    """Return the value that an `Encoder` has made *stored* of.

    Raises:
        ValueError: It was not made by it.
    """
    kind = exact_type(stored)
    if kind is list:
        return [decode(item) for item in stored]
    if kind is not dict:
        return stored
    if not any(key.startswith("$") for key in stored):
        return {key: decode(item) for key, item in stored.items()}
    if len(stored) != 1:
        raise ValueError("a tag stands beside other keys")
    ((tag, inner),) = stored.items()
    if tag == "$dict":
        return dict(decode(pair) for pair in inner)
    if tag in LISTS:
        return LISTS[tag](decode(item) for item in inner)
    if tag in TEXTS and exact_type(inner) is str:
        return TEXTS[tag][2](inner)
    raise ValueError(f"the tag {tag} is unknown, or does not hold text")
