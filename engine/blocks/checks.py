"""What the fields of the notification blocks accept; errors never show a value."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, get_args
from urllib.parse import urlsplit

import attrs

from engine.blocks.exceptions import BlockFieldError
from engine.settings.secret import SecretStr
from engine.settings.shapes import is_mapping

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]

MAX_SECONDS: Final = 3600.0
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_TEXT: Final = re.compile(r"[\t\x20-\x7e]*")
_OURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection"})


def to_secret_url(value: Any) -> SecretStr:
    """Mask a URL of any kind.

    Raises:
        BlockFieldError: It is no text.
    """
    try:
        return SecretStr(value)
    except TypeError:
        raise BlockFieldError("a notification block", "url", "must be text") from None


def to_http_url(value: Any) -> SecretStr:
    """Mask an ``http://`` or ``https://`` URL with a host.

    Raises:
        BlockFieldError: It is something else.
    """
    secret = to_secret_url(value)
    if _is_http_url(secret.get_secret_value()):
        return secret
    problem = "must be an http:// or https:// URL with a host"
    raise BlockFieldError("a notification block", "url", problem)


def seconds(block: Any, field: attrs.Attribute[Any], value: Any) -> None:
    """Accept a positive number of seconds, an hour at most.

    Raises:
        BlockFieldError: It is something else.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= MAX_SECONDS:  # which nan is not either
        raise _wrong(
            block, field, f"must be seconds, above 0 and at most {MAX_SECONDS:g}"
        )


def one_of(literal: Any) -> Validator:
    """Return what accepts the values of a `Literal`."""
    options = get_args(literal)

    def check(block: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if value not in options:
            raise _wrong(block, field, f"must be one of {', '.join(options)}")

    return check


def to_headers(value: Any) -> dict[str, SecretStr]:
    """Make HTTP headers of a mapping, their values masked.

    Raises:
        BlockFieldError: It is none, a name or value is not valid in HTTP, or the header
            is one that follows from the request.
    """
    if not is_mapping(value):
        raise BlockFieldError("Webhook", "headers", "must be a mapping of text to text")
    return {
        _header_name(name): _header_value(name, text) for name, text in value.items()
    }


def _header_name(name: Any) -> str:
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        problem = "must have names that are valid in HTTP"
    elif name.lower() in _OURS:
        problem = f"cannot set {name}, which follows from the request"
    else:
        return name
    raise BlockFieldError("Webhook", "headers", problem)


def _header_value(name: str, value: Any) -> SecretStr:
    try:
        secret = SecretStr(value)
        if _HEADER_TEXT.fullmatch(secret.get_secret_value()):
            return secret
    except TypeError:
        pass
    problem = f"must have values of printable ASCII, which that of {name} is not"
    raise BlockFieldError("Webhook", "headers", problem)


def _is_http_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        _ = url.port  # raises where it is no number
    except ValueError:
        return False
    # urlsplit drops some characters silently, httpx2 would not.
    plain = text.isprintable() and " " not in text
    return plain and url.scheme in ("http", "https") and bool(url.hostname)


def _wrong(block: Any, field: attrs.Attribute[Any], problem: str) -> BlockFieldError:
    return BlockFieldError(type(block).__name__, field.name, problem)
