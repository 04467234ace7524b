"""What a block's fields are, and which of them are secret.

A field is secret if its annotation mentions a type called ``SecretStr``, as in
``SecretStr | None`` or ``dict[str, SecretStr]``. Its strings are wrapped when the block
is made, so that they are masked wherever the block is shown.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from threading import RLock
from typing import Any, Final
from weakref import WeakKeyDictionary

import attrs

from engine.settings.secret import SecretStr
from engine.settings.shapes import is_list, is_mapping, is_tuple

_SECRET: Final = re.compile(r"\bSecretStr\b")
_preparing: Final = RLock()
_secret_fields: WeakKeyDictionary[type[Any], frozenset[str]] = WeakKeyDictionary()


def prepare(cls: type[Any], root: type[Any]) -> None:
    """Make attrs classes of *cls* and its parents below *root* that are none yet.

    This is what makes ``class Database(Block): host: str`` enough, while a class with
    attrs' own decorator keeps what it says. It is done late, at the first use, because
    a class's decorators run after ``__init_subclass__``.
    """
    if "__attrs_attrs__" in vars(cls):
        return
    # attrs takes the defaults out of the class: a second thread would find none.
    with _preparing:
        for parent in reversed(cls.__mro__):
            is_block = issubclass(parent, root) and parent is not root
            if is_block and "__attrs_attrs__" not in vars(parent):
                attrs.define(parent, slots=False, kw_only=True, repr=False)


def all_fields(cls: type[Any]) -> tuple[attrs.Attribute[Any], ...]:
    """Return the fields of an attrs class."""
    return tuple(attrs.fields(cls))


def stored_fields(cls: type[Any]) -> tuple[attrs.Attribute[Any], ...]:
    """Return the fields that are saved: those that ``__init__`` takes."""
    return tuple(field for field in attrs.fields(cls) if field.init)


def secret_fields(cls: type[Any]) -> frozenset[str]:
    """Return the names of the fields whose annotation says that they are secret."""
    if cls not in _secret_fields:
        _secret_fields[cls] = frozenset(_find_secrets(cls))
    return _secret_fields[cls]


def _find_secrets(cls: type[Any]) -> Iterator[str]:
    try:
        hints = typing.get_type_hints(cls)
    except Exception:  # a name that exists for type checkers only, or in a function
        hints = {}
    for field in attrs.fields(cls):
        if _SECRET.search(str(hints.get(field.name, field.type))):
            yield field.name


def seal(value: Any) -> Any:
    """Wrap every string in the value of a secret field."""
    if isinstance(value, str) or callable(getattr(value, "get_secret_value", None)):
        return SecretStr(value)
    if is_mapping(value):
        return {key: seal(item) for key, item in value.items()}
    if is_list(value):
        return [seal(item) for item in value]
    return tuple(map(seal, value)) if is_tuple(value) else value


def seal_fields(block: object) -> None:
    """Wrap the strings in all secret fields of *block*, frozen or not."""
    for name in secret_fields(type(block)):
        if hasattr(block, name):  # a field without init= may have no value yet
            object.__setattr__(block, name, seal(getattr(block, name)))
