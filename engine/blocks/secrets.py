"""Encrypting the secrets of a block where they are stored.

Fernet is AES-128 in CBC mode with an HMAC: what was tampered with does not decrypt. It
comes from the ``cryptography`` library, which is imported when a secret is first met.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from engine.blocks.exceptions import BlockKeyError
from engine.blocks.extras import require
from engine.blocks.keys import find_keys
from engine.settings.secret import SecretStr

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet


class Vault:
    """Encrypts and decrypts the secrets of one block, for one operation.

    Args:
        block: The block, to be named in errors.
    """

    def __init__(self, block: str) -> None:
        self._block = block

    def encrypt(self, text: SecretStr) -> str:
        """Return *text* encrypted with the first key; a first key is made if needed.

        Raises:
            MissingExtraError: The extra ``secrets`` is not installed.
            BlockKeyError: The key cannot be had.
        """
        keys = self._encrypting  # may fail, while no frame holds the plain text
        return keys.encrypt(text.get_secret_value().encode()).decode("ascii")

    def decrypt(self, token: str) -> SecretStr:
        """Return what a token holds, whichever of the keys it was encrypted with.

        Raises:
            MissingExtraError: The extra ``secrets`` is not installed.
            BlockKeyError: There is no key, none of the keys is the right one, or the
                token was changed.
        """
        keys = self._decrypting
        from cryptography.fernet import InvalidToken

        try:
            return SecretStr(keys.decrypt(token).decode())
        except (InvalidToken, ValueError):  # the latter where it is not even base64
            pass
        raise BlockKeyError(
            self._block,
            "they were encrypted with another key, or changed since; an old key goes"
            " behind the new one in ENGINE_SECRET_KEY, after a comma",
        )

    @cached_property
    def _encrypting(self) -> MultiFernet:
        return self._fernet("saving", create=True)

    @cached_property
    def _decrypting(self) -> MultiFernet:
        return self._fernet("reading", create=False)

    def _fernet(self, doing: str, *, create: bool) -> MultiFernet:
        feature = f"{doing} the secrets of block {self._block}"
        require("cryptography.fernet", feature, "secrets")
        from cryptography.fernet import Fernet, MultiFernet

        keys = find_keys(self._block, create=create)
        return MultiFernet([Fernet(key.get_secret_value()) for key in keys])
