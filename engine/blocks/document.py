"""Blocks as documents: what a client reads and removes without their classes.

The functions here block; `engine.client` calls them in threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import attrs

from engine.blocks import storage
from engine.blocks.current import current_store
from engine.blocks.names import Reference, check_name
from engine.blocks.store import StoredBlock
from engine.settings.secret import MASK


@attrs.frozen(kw_only=True)
class BlockDocument:
    """A saved block, seen without its class.

    Attributes:
        id: Stays the same when the block is replaced.
        name: Its name.
        block_type_slug: The slug of its type.
        data: Its fields. Each secret is a `SecretStr`, or just asterisks where secrets
            were not asked for.
        created: When the name was first saved.
        updated: When this content was saved.
    """

    id: UUID
    name: str
    block_type_slug: str
    data: Mapping[str, Any]
    created: datetime
    updated: datetime


def read_document_by_name(
    name: str, block_type_slug: str, *, include_secrets: bool = False
) -> BlockDocument:
    """Return a block's document.

    Args:
        name: The block's name.
        block_type_slug: Its type's slug.
        include_secrets: Whether to decrypt its secrets; they stay `SecretStr`.

    Raises:
        BlockNameError: One of the two is no name.
        BlockNotFoundError: There is no such block.
        BlockDataError: What is stored is damaged.
        BlockKeyError: The secrets were asked for and do not decrypt.
        MissingExtraError: They were asked for and the extra ``secrets`` is missing.
        BlockStoreError: The store cannot be used.
    """
    slug = check_name(block_type_slug, "the slug of a type")
    stored = storage.find(current_store(), Reference(slug, check_name(name)))
    return _document(stored, include_secrets=include_secrets)


def read_documents(
    block_type_slug: str | None = None, *, include_secrets: bool = False
) -> list[BlockDocument]:
    """Return the documents of all blocks, or of those of one type, sorted by name.

    Args:
        block_type_slug: The type; None is every type.
        include_secrets: As in `read_document_by_name`.

    Raises:
        BlockNameError: That is no slug.
        BlockDataError: What is stored of one of them is damaged; the error names it.
        BlockKeyError: The secrets were asked for and do not decrypt.
        MissingExtraError: They were asked for and the extra ``secrets`` is missing.
        BlockStoreError: The store cannot be used.
    """
    if block_type_slug is not None:
        check_name(block_type_slug, "the slug of a type")
    store = current_store()
    # One may be deleted between the list and its reading.
    found = [store.get(one) for one in store.references(block_type_slug)]
    return [_document(one, include_secrets=include_secrets) for one in found if one]


def delete_document(block_id: UUID) -> bool:
    """Remove a block by its id; return False if there is none.

    Raises:
        BlockStoreError: The store cannot be used.
    """
    return current_store().delete_by_id(block_id)


def _document(stored: StoredBlock, *, include_secrets: bool) -> BlockDocument:
    decrypt = storage.opener(stored.reference) if include_secrets else _mask
    return BlockDocument(
        id=stored.id,
        name=stored.reference.name,
        block_type_slug=stored.reference.type_slug,
        data=storage.read_values(stored, decrypt),
        created=stored.created_at,
        updated=stored.updated_at,
    )


def _mask(_token: str) -> str:
    return MASK
