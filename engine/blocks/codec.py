"""Making JSON of the values in a block, and the values again.

JSON's own types are written as they are; tuples come back as lists. The others are an
object with one key that begins with ``$``, which says what they are::

    {"$datetime": "2026-01-31T08:00:00+00:00"}
    {"$secret": "gAAAAA…"}      encrypted, whatever it is
    {"$text": "…"}              a SecretStr, only ever inside of an encrypted value
    {"$dict": {"$key": 1}}      a dictionary that looks like one of these
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from engine.checks import with_article
from engine.settings.secret import SecretStr
from engine.settings.shapes import is_dict, is_list, is_mapping, is_tuple

Encrypt = Callable[[SecretStr], str]
Decrypt = Callable[[str], Any]

SECRET: Final = "$secret"
TEXT: Final = "$text"
DICT: Final = "$dict"


def _isoformat(value: Any) -> str:
    text: str = value.isoformat()
    return text


# From the narrower type to the wider one: a datetime is a date.
TEXTS: Final[
    Mapping[str, tuple[type[Any], Callable[[Any], str], Callable[[str], Any]]]
] = {
    "$datetime": (datetime, _isoformat, datetime.fromisoformat),
    "$date": (date, _isoformat, date.fromisoformat),
    "$decimal": (Decimal, str, Decimal),
    "$uuid": (UUID, str, UUID),
}


class UnstorableError(ValueError):
    """A value cannot be written; the text says what is wrong, and not the value."""


def encode(value: Any, encrypt: Encrypt) -> Any:
    """Return what JSON can hold of *value*, its secrets encrypted.

    Raises:
        UnstorableError: There is something in it that cannot be stored.
    """
    if isinstance(value, SecretStr):
        return encode_secret(value, encrypt)
    return _encode(value, lambda item: encode(item, encrypt))


def encode_secret(value: Any, encrypt: Encrypt) -> Any:
    """Encrypt the whole of *value*; None stays None.

    Raises:
        UnstorableError: There is something in it that cannot be stored.
    """
    if value is None:
        return None
    return {SECRET: encrypt(SecretStr(dump(_encode_plain(value))))}


def decode(stored: Any, decrypt: Decrypt) -> Any:
    """Return the value that *stored* was made of.

    Args:
        stored: What `encode` or `encode_secret` has returned.
        decrypt: Makes a value of what was encrypted; see `reveal`.

    Raises:
        ValueError: It was not made by them.
    """
    if is_list(stored):
        return [decode(item, decrypt) for item in stored]
    if not is_dict(stored):
        return stored
    tag, inner = split_tag(stored)
    if tag is None:
        return {key: decode(item, decrypt) for key, item in inner.items()}
    if tag == SECRET:
        return decrypt(inner)
    if tag == TEXT:
        return SecretStr(inner)
    return _from_text(tag, inner)


def reveal(text: SecretStr) -> Any:
    """Return the value of a decrypted text.

    Raises:
        ValueError: It is not one.
    """
    return decode(load(text.get_secret_value()), _refuse)


def dump(encoded: Any) -> str:
    """Return encoded values as JSON text in ASCII.

    Raises:
        UnstorableError: A number in it is too long.
    """
    try:
        return json.dumps(encoded, separators=(",", ":"))
    except ValueError:
        problem = "a number with too many digits"
    raise UnstorableError(problem)


def load(text: str | bytes) -> Any:
    """Return the encoded values in JSON text.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        problem = "it is nested too deeply"
    raise ValueError(problem)


def split_tag(stored: dict[str, Any]) -> tuple[str | None, Any]:
    """Return the tag of an object and what it holds; None and the items without one.

    Raises:
        ValueError: There is a tag beside other keys, or it does not hold text.
    """
    if not any(key.startswith("$") for key in stored):
        return None, stored
    if len(stored) != 1:
        raise ValueError("a tag stands beside other keys")
    ((tag, inner),) = stored.items()
    if tag == DICT and is_dict(inner):
        return None, inner
    if not isinstance(inner, str):
        raise ValueError("a tag does not hold text")
    return tag, inner


def _encode_plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return {TEXT: value.get_secret_value()}
    return _encode(value, _encode_plain)


def _encode(value: Any, encode_item: Callable[[Any], Any]) -> Any:
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise UnstorableError(f"the number {value}, which JSON does not have")
    if is_list(value) or is_tuple(value):
        return [encode_item(item) for item in value]
    if is_mapping(value):
        return _encode_mapping(value, encode_item)
    for tag, (kind, to_text, _) in TEXTS.items():
        if isinstance(value, kind):
            return {tag: to_text(value)}
    raise UnstorableError(with_article(type(value).__name__))


def _encode_mapping(value: Mapping[Any, Any], encode_item: Callable[[Any], Any]) -> Any:
    for key in value:
        if not isinstance(key, str):
            raise UnstorableError(
                f"a dictionary with a key of type {type(key).__name__}"
            )
    encoded = {key: encode_item(item) for key, item in value.items()}
    looks_tagged = any(key.startswith("$") for key in encoded)
    return {DICT: encoded} if looks_tagged else encoded


def _from_text(tag: str, text: str) -> Any:
    if tag not in TEXTS:
        raise ValueError("a tag is unknown")
    try:
        return TEXTS[tag][2](text)
    except (ValueError, ArithmeticError):
        raise ValueError(f"{tag} does not hold what it says") from None


def _refuse(_token: str) -> Any:
    raise ValueError("a secret is encrypted twice")
