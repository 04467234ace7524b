"""Moving all secrets to a new key.

Put the new key in front of the old one, as in ``ENGINE_SECRET_KEY=new,old``, call
`rotate_secrets`, and take the old one away.
"""

from __future__ import annotations

from typing import Any

from engine.blocks import codec
from engine.blocks._bridge import do
from engine.blocks.current import current_store
from engine.blocks.exceptions import BlockDataError
from engine.blocks.names import Reference
from engine.blocks.secrets import Vault
from engine.blocks.store import BlockStore, StoredBlock
from engine.settings.shapes import is_dict, is_list


def rotate_secrets() -> Any:
    """Encrypt every secret in the current store with the first key.

    It can be interrupted and called again, and blocks may be saved meanwhile.

    Returns:
        How many blocks have secrets; in async code an awaitable for it.

    Raises:
        MissingExtraError: There are secrets and the extra ``secrets`` is not installed.
        BlockKeyError: A block's secrets do not decrypt. Those before it are done.
        BlockDataError: A block's data is damaged.
        BlockStoreError: The store cannot be used.
    """

    def work() -> int:
        store = current_store()
        return sum(_rotate(store, reference) for reference in store.references())

    return do("rotate_secrets()", work, abandon=False)


def _rotate(store: BlockStore, reference: Reference) -> bool:
    # Whoever saves the block in between has used the first key, or will be seen by the
    # next round.
    while (stored := store.get(reference)) is not None:
        data = _renewed(stored)
        if data == stored.data:
            return False
        if store.change(stored, data):
            return True
    return False


def _renewed(stored: StoredBlock) -> str:
    vault = Vault(str(stored.reference))
    try:
        return codec.dump(_renew(codec.load(stored.data), vault))
    except (ValueError, TypeError, RecursionError):
        problem = "its data is damaged"
    raise BlockDataError(str(stored.reference), problem)


def _renew(encoded: Any, vault: Vault) -> Any:
    if is_list(encoded):
        return [_renew(item, vault) for item in encoded]
    if not is_dict(encoded):
        return encoded
    tag, inner = codec.split_tag(encoded)
    if tag == codec.SECRET:
        return {tag: vault.encrypt(vault.decrypt(inner))}
    if tag is not None:
        return encoded
    renewed = {key: _renew(item, vault) for key, item in inner.items()}
    return renewed if inner is encoded else {codec.DICT: renewed}
