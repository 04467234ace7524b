"""What blocks and their types may be called, and how one names the other.

A *reference* is the type's slug and the block's name, as in ``slack-webhook/alerts``.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from engine.blocks.exceptions import BlockNameError
from engine.states import safe_repr

MAX_LENGTH: Final = 255
_NAME: Final = re.compile(r"[a-z0-9-]+")
_WORDS: Final = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z0-9]+")


class Reference(NamedTuple):
    """The full name of a block."""

    type_slug: str
    name: str

    def __str__(self) -> str:
        return f"{self.type_slug}/{self.name}"


def check_name(name: object, what: str = "the name of a block") -> str:
    """Return *name* if it is one.

    Raises:
        BlockNameError: It is not: only lowercase letters, digits and dashes are.
    """
    if isinstance(name, str) and len(name) <= MAX_LENGTH and _NAME.fullmatch(name):
        return name
    shown = safe_repr(name)
    raise BlockNameError(shown if len(shown) <= 80 else f"{shown[:80]}…", what)


def make_slug(class_name: str) -> str:
    """Return the slug of a class: ``SlackWebhook`` is ``slack-webhook``."""
    words = _WORDS.findall(class_name)
    return check_name("-".join(words).lower(), f"the slug of type {class_name}")
