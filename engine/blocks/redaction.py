"""Taking the secrets of a request out of text that others have made.

A receiver may repeat what it was sent, and libraries log what they send.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Final
from urllib.parse import unquote, urlsplit

from engine.settings.secret import MASK, SecretStr

MIN_LENGTH: Final = 6
"""Shorter parts of a URL are words such as ``api``, which would mask half a text."""

_PARTS: Final = re.compile(r"[^/?&=:@#;,]+")


class Redactor:
    """Replaces secrets in text.

    Args:
        secrets: What is secret as a whole. Of a URL all parts but its host are, too.
    """

    def __init__(self, secrets: Iterable[SecretStr]) -> None:
        found: set[str] = set()
        for secret in secrets:
            found |= _pieces(secret.get_secret_value())
        # A long secret may begin with a shorter one.
        ordered = sorted(found, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")

    def __call__(self, text: str) -> str:
        """Return *text* with each secret replaced by asterisks."""
        return self._pattern.sub(MASK, text)

    @contextmanager
    def over_logs(self, *names: str) -> Generator[None, None, None]:
        """Redact what the loggers of these names write inside of the block."""
        loggers = [logging.getLogger(name) for name in names]
        for logger in loggers:
            logger.addFilter(self._redact_record)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(self._redact_record)

    def _redact_record(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self(record.getMessage()), ()
        return True


def _pieces(secret: str) -> set[str]:
    pieces: set[str] = {secret} if secret else set()
    if "://" in secret:
        host = _host_of(secret)
        parts = set(_PARTS.findall(secret.partition("://")[2]))
        parts |= {unquote(part) for part in parts}
        pieces |= {part for part in parts if len(part) >= MIN_LENGTH and part != host}
    return pieces


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
