"""Making a setting's value from what a source holds.

Variables hold text, files hold what TOML knows, tests give Python's own values: each
parser takes all of them. It raises `ValueError` for the rest, and what it was is said
by whoever knows the source.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Final

from engine.settings.secret import SecretStr

TRUTHS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def parse_text(value: object, _folder: Path) -> str:
    """Take printable text on one line, without spaces around it."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError
    return value.strip()


def parse_truth(value: object, _folder: Path) -> bool:
    """Take a bool, or one of the usual words for it in any case."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise ValueError
    try:
        return TRUTHS[value.strip().lower()]
    except KeyError:
        raise ValueError from None


def parse_path(value: object, folder: Path) -> Path:
    """Take a path, of which a relative one starts at *folder*; ``~`` is the home."""
    if (
        not isinstance(value, str | Path)
        or not str(value).strip()
        or "\0" in str(value)
    ):
        raise ValueError
    try:
        return (folder / Path(value).expanduser()).absolute()
    except (RuntimeError, OSError):  # nobody's ~, or a working directory that is gone
        raise ValueError from None


def parse_keys(value: object, _folder: Path) -> SecretStr:
    """Take Fernet keys between commas, which makes every one of them well-formed."""
    secret = value if isinstance(value, SecretStr) else SecretStr(value)
    if not split_keys(secret.get_secret_value()):
        raise ValueError
    return secret


def split_keys(text: str) -> list[str]:
    """Return the keys in *text*, which stand between commas or spaces, in order.

    Raises:
        ValueError: One of them is not the URL-safe base64 of 32 bytes. The message
            does not show it.
    """
    keys = text.replace(",", " ").split()
    if not all(_is_key(key) for key in keys):
        raise ValueError("not the URL-safe base64 of 32 bytes")
    return keys


def _is_key(key: str) -> bool:
    try:
        raw = base64.b64decode(key.encode("ascii"), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return False
    return len(raw) == 32
