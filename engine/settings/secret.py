"""A string that does not show itself."""

from __future__ import annotations

import hmac
from typing import Any, Final

MASK: Final = "**********"
"""What stands for a secret wherever it would be seen; its length tells nothing."""


class SecretStr:
    """A string that is masked in ``repr``, ``str``, logs, errors and tracebacks.

    `get_secret_value` is the one way to its text. What has such a method itself, as
    pydantic's type of the same name has, is accepted and copied.

    Args:
        value: The text to hide.

    Raises:
        TypeError: *value* is no text. The message does not show it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        reveal = getattr(value, "get_secret_value", None)
        text = reveal() if callable(reveal) else value
        if not isinstance(text, str):
            raise TypeError(f"a secret is a str, not {type(text).__name__}")
        self._value = text

    def get_secret_value(self) -> str:
        """Return the text itself, masked no more."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretStr):
            return NotImplemented
        ours, theirs = _bytes(self._value), _bytes(other._value)
        return hmac.compare_digest(ours, theirs)

    def __hash__(self) -> int:
        return hash((SecretStr, self._value))

    def __repr__(self) -> str:
        return f"SecretStr({str(self)!r})"

    def __str__(self) -> str:
        return MASK if self._value else ""

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
