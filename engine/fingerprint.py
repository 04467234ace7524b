"""Fingerprints of values: the same for the same value, in every process, on any day.

A value is written down in a form that has one reading (each part says its kind and its
length), the parts of what has no order sorted, and that is hashed. So ``1``, ``1.0``,
``True`` and ``"1"`` differ, ``{"a": 1, "b": 2}`` and ``{"b": 2, "a": 1}`` do not.

What has no such form is refused rather than guessed at: a ``repr`` may hold an address,
a pickle depends on versions, and a wrong fingerprint would give a wrong result.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from types import EllipsisType, MappingProxyType, NoneType
from typing import Any, Final
from uuid import UUID

import attrs

from engine.checks import with_article
from engine.states import safe_repr, safe_text


@attrs.define(eq=False)
class NoFingerprintError(ValueError):
    """A value has no form that stays the same.

    Attributes:
        path: Where in the value the trouble is, such as ``[0].session``; empty is the
            value itself.
        problem: What is there instead of a value that has one.
    """

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path or 'the value'}: {self.problem}"


def fingerprint(value: Any) -> str:
    """Return 64 hexadecimal digits that stand for *value*.

    Args:
        value: Built from None, numbers, strings, bytes, dates and times, paths, UUIDs,
            enum members and classes, in lists, tuples, sets, mappings, dataclasses,
            attrs classes and pydantic models.

    Raises:
        NoFingerprintError: There is something else in it, or it holds itself.
    """
    encoder = Encoder()
    try:
        encoded = encoder.encode(value)
    except RecursionError:
        problem = "too many levels of nesting"
    else:
        return hashlib.sha256(encoded).hexdigest()
    raise NoFingerprintError("", problem)


def type_name(kind: type) -> str:
    """Return where a class is defined and what it is called there."""
    return f"{kind.__module__}.{kind.__qualname__}"


def text_bytes(text: str) -> bytes:
    """Return a string's bytes, also those of half a surrogate pair."""
    return text.encode("utf-8", "surrogatepass")


def ascii_text(value: object) -> bytes:
    """Return ``str(value)`` as bytes."""
    return text_bytes(str(value))


def whole_number(value: int) -> bytes:
    """Return a number's digits; hexadecimal ones, of which Python has no limit."""
    return format(value, "x").encode()


def complex_number(value: complex) -> bytes:
    """Return the exact parts of a complex number."""
    return f"{value.real.hex()},{value.imag.hex()}".encode()


def moment(value: datetime | time) -> bytes:
    """Return a time's text, and which of two equal local times it is."""
    return f"{value.isoformat()}/{value.fold}".encode()


SCALARS: Final[Mapping[type, Callable[[Any], bytes]]] = {
    NoneType: ascii_text,
    EllipsisType: ascii_text,
    bool: ascii_text,
    int: whole_number,
    float: lambda value: value.hex().encode(),
    complex: complex_number,
    str: text_bytes,
    bytes: bytes,
    bytearray: bytes,
    memoryview: bytes,
    range: ascii_text,
    datetime: moment,
    date: ascii_text,
    time: moment,
    timedelta: ascii_text,
    Decimal: ascii_text,
    Fraction: ascii_text,
    UUID: ascii_text,
}
"""Exact types without parts, and their text."""

BASES: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (str, str.__str__),
    (bytes, bytes.__bytes__),
    (int, int.__index__),
    (float, float.__float__),
)
"""How a value of a class derived from one of these is had without what it overrides."""

Where = str | tuple[Any]
"""Where a part of a value is: text, or a mapping's key, of which text is made late."""

Parts = Iterable[tuple[Where, Any]]
"""What a value is made of: for each part where it is, and what it is."""

UNSET: Final = ...
"""Stands for an attribute that a class declares and an object does not have."""


class Encoder:
    """Writes down one value."""

    def __init__(self) -> None:
        self._path: list[Where] = []
        self._inside: set[int] = set()

    def encode(self, value: Any) -> bytes:
        """Return the one form of *value*."""
        kind = exact_type(value)
        scalar = SCALARS.get(kind)
        if scalar is not None:
            return part(kind.__name__, scalar(value))
        if has_kind(value, enum.Enum):
            return part("enum", text_bytes(f"{type_name(kind)}.{value.name}"))
        if has_kind(value, PurePath):
            return part(kind.__name__, ascii_text(value))
        if has_kind(value, type):
            return self._encode_class(value)
        with self._entered(value):
            return part(type_name(kind), self._encode_parts(kind, value))

    def _encode_class(self, value: type) -> bytes:
        if "<locals>" in value.__qualname__:
            raise self._refuse("a class defined in a function, of which there are many")
        return part("class", text_bytes(type_name(value)))

    def _encode_parts(self, kind: type, value: Any) -> bytes:
        """Return the form of what *value* holds; its kind is written already."""
        if has_kind(value, set, frozenset):
            return b"".join(sorted(self._each(("{}", item) for item in value)))
        if has_kind(value, Mapping):
            return self._encode_mapping(value)
        try:
            parts = parts_of(kind, value)
        except RecursionError:
            raise  # of ours: how deep it gets is for the whole value to say
        except Exception as error:
            # A property, or an iteration, of the user's own.
            problem = f"{with_article(kind.__qualname__)} that cannot be looked into"
            raise self._refuse(f"{problem}: {safe_text(error)}") from error
        if parts is None:
            raise self._refuse(with_article(kind.__qualname__))
        return b"".join(self._each(parts))

    def _encode_mapping(self, value: Mapping[Any, Any]) -> bytes:
        pairs = (
            self._at(".keys()", key) + self._at((key,), item)
            for key, item in value.items()
        )
        encoded = b"".join(sorted(pairs))
        if type(value) in (dict, MappingProxyType, OrderedDict):
            return encoded
        return encoded + self.encode(own_state(value))

    def _each(self, parts: Parts) -> Iterator[bytes]:
        return (self._at(where, item) for where, item in parts)

    def _at(self, where: Where, value: Any) -> bytes:
        self._path.append(where)
        encoded = self.encode(value)
        self._path.pop()
        return encoded

    @contextmanager
    def _entered(self, value: object) -> Generator[None, None, None]:
        """Note that *value* is being looked into; refuse one that holds itself."""
        if id(value) in self._inside:
            raise self._refuse("an object that holds itself")
        self._inside.add(id(value))
        try:
            yield
        finally:
            self._inside.discard(id(value))

    def _refuse(self, problem: str) -> NoFingerprintError:
        path = (
            where if isinstance(where, str) else f"[{safe_repr(where[0])[:40]}]"
            for where in self._path
        )
        return NoFingerprintError("".join(path), problem)


def part(kind: str, content: bytes) -> bytes:
    """Return one part of a form: its kind and length, so that it has one reading."""
    return b"%s:%d:%s" % (text_bytes(kind), len(content), content)


def parts_of(kind: type, value: Any) -> Parts | None:
    """Return what a value with ordered parts is made of; None if nobody knows."""
    names = field_names(kind)
    if names is not None:
        return [(f".{name}", getattr(value, name, UNSET)) for name in names]
    if has_kind(getattr(kind, "model_fields", None), Mapping):  # pydantic's
        return [(f".{name}", item) for name, item in value]
    reveal = getattr(value, "get_secret_value", None)
    if callable(reveal):
        return [(".get_secret_value()", reveal())]
    if has_kind(value, list, tuple, deque):
        items: list[tuple[Where, Any]] = [((i,), item) for i, item in enumerate(value)]
        derived = kind not in (list, tuple, deque)
        return [*items, ("", own_state(value))] if derived else items
    for base, plain in BASES:
        if has_kind(value, base):
            return [("", plain(value)), ("", own_state(value))]
    return None


def field_names(kind: type) -> list[str] | None:
    """Return the names of a dataclass's or attrs class's fields; None of another's."""
    if attrs.has(kind):
        return [field.name for field in attrs.fields(kind)]
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return None


def exact_type(value: object) -> Any:
    """Return the type of *value*; not its ``__class__``, which it may make up."""
    return type(value)


def has_kind(value: object, *kinds: type) -> bool:
    """Whether *value* is of one of the kinds, or one derived from them.

    ``isinstance`` would believe an object's ``__class__``, and leaves type checkers
    with items of unknown types.
    """
    return issubclass(type(value), kinds)


def own_state(value: Any) -> dict[str, Any]:
    """Return what an object of a class derived from a built-in one holds beside it."""
    return dict(getattr(value, "__dict__", {}))
