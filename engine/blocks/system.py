"""Blocks that hold one value."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs

from engine.blocks.core import Block
from engine.blocks.exceptions import BlockFieldError
from engine.settings.secret import SecretStr


def _to_datetime(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(value)
    except (ValueError, TypeError):
        problem = "must be a datetime, or its ISO 8601 text"
    raise BlockFieldError("DateTime", "value", problem)


def _to_secret(value: Any) -> SecretStr:
    try:
        return SecretStr(value)
    except TypeError:
        raise BlockFieldError("Secret", "value", "must be text") from None


def _to_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise BlockFieldError(
        "String", "value", f"must be text, not {type(value).__name__}"
    )


@attrs.define(kw_only=True, slots=False)
class String(Block):
    """A text.

    Attributes:
        value: The text.
    """

    value: str = attrs.field(converter=_to_text)


@attrs.define(kw_only=True, slots=False)
class Secret(Block):
    """A text that is masked when shown and encrypted when stored.

    Attributes:
        value: The masked text.
    """

    value: SecretStr = attrs.field(converter=_to_secret)

    def get(self) -> str:
        """Return the text itself."""
        return self.value.get_secret_value()


@attrs.define(kw_only=True, slots=False)
class JSON(Block):
    """Anything that JSON can hold.

    Attributes:
        value: The value; tuples in it come back as lists.
    """

    value: Any


@attrs.define(kw_only=True, slots=False)
class DateTime(Block):
    """A point in time.

    Attributes:
        value: Given as a datetime or as ISO 8601 text. One without a time zone stays
            without.
    """

    value: datetime = attrs.field(converter=_to_datetime)
