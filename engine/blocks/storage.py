"""Saving blocks and making them again; all of it blocks its thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import attrs
import structlog

from engine.blocks.codec import (
    UnstorableError,
    decode,
    dump,
    encode,
    encode_secret,
    load,
    reveal,
)
from engine.blocks.current import current_store
from engine.blocks.exceptions import (
    BlockDataError,
    BlockExistsError,
    BlockFieldError,
    BlockNotFoundError,
)
from engine.blocks.fields import seal, secret_fields, stored_fields
from engine.blocks.names import Reference
from engine.blocks.secrets import Vault
from engine.blocks.store import BlockStore, StoredBlock
from engine.settings.shapes import is_dict

if TYPE_CHECKING:
    from engine.blocks.codec import Decrypt
    from engine.blocks.core import Block

log = structlog.get_logger("engine")

B = TypeVar("B", bound="Block")


def save(block: Block, reference: Reference, *, overwrite: bool) -> UUID:
    """Keep a block in the current store; see `Block.save`."""
    block_id = current_store().put(
        reference, _data_of(block, reference), overwrite=overwrite
    )
    if block_id is None:
        raise BlockExistsError(str(reference))
    return block_id


def make(cls: type[B], reference: Reference) -> B:
    """Return the block that is stored under a name; see `Block.load`."""
    stored = find(current_store(), reference)
    values = read_values(stored, opener(reference))
    fields = {field.name: field.alias for field in stored_fields(cls)}
    unknown = sorted(values.keys() - fields.keys())
    if unknown:  # the class had more fields when the block was saved
        log.warning("block_fields_ignored", block=str(reference), fields=unknown)
    missing = sorted(
        field.name
        for field in stored_fields(cls)
        if field.default is attrs.NOTHING and field.name not in values
    )
    if missing:
        problem = f"class {cls.__name__} needs {', '.join(missing)}, not saved with it"
        raise BlockDataError(str(reference), problem)
    arguments: dict[str, Any] = {
        str(fields[name]): value for name, value in values.items() if name in fields
    }
    try:
        return cls(**arguments)
    except Exception as error:
        error.add_note(f"while loading block {reference}")
        raise


def find(store: BlockStore, reference: Reference) -> StoredBlock:
    """Return a block as it is stored.

    Raises:
        BlockNotFoundError: There is none of that name.
    """
    stored = store.get(reference)
    if stored is None:
        raise BlockNotFoundError(str(reference), str(store))
    return stored


def delete(reference: Reference) -> None:
    """Remove a block from the current store; see `Block.delete`."""
    store = current_store()
    if not store.delete(reference):
        raise BlockNotFoundError(str(reference), str(store))


def read_values(stored: StoredBlock, decrypt: Decrypt) -> dict[str, Any]:
    """Return the fields of a stored block by name.

    Args:
        stored: The block.
        decrypt: Makes a value of an encrypted one.

    Raises:
        BlockDataError: Its data is damaged.
        BlockKeyError: Its secrets do not decrypt.
        MissingExtraError: It has secrets and the extra ``secrets`` is not installed.
    """
    block = str(stored.reference)
    try:
        encoded = load(stored.data)
        if is_dict(encoded):
            return {name: decode(value, decrypt) for name, value in encoded.items()}
        problem = "its data is not an object"
    except (ValueError, TypeError, RecursionError) as error:
        problem = f"its data is damaged, {error}"
    raise BlockDataError(block, problem)


def opener(reference: Reference) -> Decrypt:
    """Return what decrypts the values of one block."""
    vault = Vault(str(reference))
    return lambda token: reveal(vault.decrypt(token))


def _data_of(block: Block, reference: Reference) -> str:
    vault = Vault(str(reference))
    secrets = secret_fields(type(block))
    data: dict[str, Any] = {}
    for field in stored_fields(type(block)):
        name, value, write = field.name, getattr(block, field.name), encode
        if name in secrets:  # perhaps assigned as plain text since the block was made
            value, write = seal(value), encode_secret
        try:
            data[name] = write(value, vault.encrypt)
            dump(data[name])
            continue
        except UnstorableError as error:
            problem = f"cannot be stored: it holds {error}"
        except RecursionError:
            problem = "cannot be stored: it is nested too deeply, or holds itself"
        raise BlockFieldError(f"block {reference}", name, problem)
    return dump(data)
