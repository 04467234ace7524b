"""The keys that secrets are encrypted with: from the settings, else from a file.

The file is ``secret.key`` in ``ENGINE_HOME``, made when the first secret is saved. It
may hold several keys, one a line, with the same meaning as in ``ENGINE_SECRET_KEY``:
the first encrypts, all of them decrypt.
"""

from __future__ import annotations

import base64
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from engine.blocks.exceptions import BlockKeyError
from engine.files import create_whole
from engine.settings.current import get_current_settings
from engine.settings.parse import split_keys
from engine.settings.secret import SecretStr

FILE: Final = "secret.key"


def find_keys(block: str, *, create: bool) -> list[SecretStr]:
    """Return the keys that are in force, the encrypting one first.

    Args:
        block: Whose secrets they are for; named in errors.
        create: Whether a key is made if there is none.

    Raises:
        BlockKeyError: There is no key, or its file cannot be used.
    """
    settings = get_current_settings()
    if settings.secret_key is not None:
        return [
            SecretStr(key) for key in split_keys(settings.secret_key.get_secret_value())
        ]
    path = settings.home / FILE
    try:
        if create and not path.exists():
            create_whole(
                path, base64.urlsafe_b64encode(secrets.token_bytes(32)) + b"\n"
            )
        return _read(path, block)
    except OSError as error:
        problem = error.strerror or type(error).__name__
    raise BlockKeyError(
        block, f"the key file {path}: {problem.lower()}; or set ENGINE_SECRET_KEY"
    )


def _read(path: Path, block: str) -> list[SecretStr]:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        # As ssh does with its keys. Windows has no such bits; its homes are private.
        if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BlockKeyError(
                block,
                f"others may read the key file {path} (mode {mode:o}): chmod 600 it",
            )
        keys = _split(file.read())
    if not keys:
        raise BlockKeyError(block, f"the key file {path} does not hold Fernet keys")
    return keys


def _split(content: bytes) -> list[SecretStr]:
    try:
        return [SecretStr(key) for key in split_keys(content.decode("ascii"))]
    except ValueError:  # which a decoding error is, too
        return []
