"""Where blocks are kept: the interface, and a store in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from threading import Lock
from typing import Protocol
from uuid import UUID, uuid4

import attrs

from engine.blocks.names import Reference


@attrs.frozen(kw_only=True)
class StoredBlock:
    """A block as a store keeps it.

    Attributes:
        id: Stays the same when the block is replaced.
        reference: Its type's slug and its name, unique together.
        data: JSON text of its fields, see `engine.blocks.codec`; secrets encrypted.
        created_at: When the name was first saved, in UTC.
        updated_at: When this content was saved, in UTC.
    """

    id: UUID
    reference: Reference
    data: str
    created_at: datetime
    updated_at: datetime


class BlockStore(Protocol):
    """What keeps blocks. Its methods block, and may be called from any thread."""

    def __str__(self) -> str:
        """Return what it is called in errors."""
        ...

    def put(self, reference: Reference, data: str, *, overwrite: bool) -> UUID | None:
        """Keep a block.

        Returns:
            Its id; None if there is one of that name and it was not to be replaced.
        """
        ...

    def get(self, reference: Reference) -> StoredBlock | None:
        """Return a block; None if there is none of that name."""
        ...

    def delete(self, reference: Reference) -> bool:
        """Remove a block; False if there was none."""
        ...

    def delete_by_id(self, block_id: UUID) -> bool:
        """Remove a block; False if there was none."""
        ...

    def references(self, type_slug: str | None = None) -> list[Reference]:
        """Return the full names of all blocks, or of those of a type, sorted."""
        ...

    def change(self, stored: StoredBlock, data: str) -> bool:
        """Replace the data of a block; False if it is no longer as in *stored*."""
        ...


class MemoryStore:
    """A store that ends with the process; for tests."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._blocks: dict[Reference, StoredBlock] = {}

    def __str__(self) -> str:
        return "memory"

    def put(self, reference: Reference, data: str, *, overwrite: bool) -> UUID | None:
        """Keep a block; see `BlockStore.put`."""
        now = datetime.now(UTC)
        with self._lock:
            old = self._blocks.get(reference)
            if old is not None and not overwrite:
                return None
            new = StoredBlock(
                id=old.id if old else uuid4(),
                reference=reference,
                data=data,
                created_at=old.created_at if old else now,
                updated_at=now,
            )
            self._blocks[reference] = new
            return new.id

    def get(self, reference: Reference) -> StoredBlock | None:
        """Return a block; see `BlockStore.get`."""
        return self._blocks.get(reference)

    def delete(self, reference: Reference) -> bool:
        """Remove a block; see `BlockStore.delete`."""
        with self._lock:
            return self._blocks.pop(reference, None) is not None

    def delete_by_id(self, block_id: UUID) -> bool:
        """Remove a block; see `BlockStore.delete_by_id`."""
        with self._lock:
            found = [one for one in self._blocks.values() if one.id == block_id]
            for one in found:
                del self._blocks[one.reference]
            return bool(found)

    def references(self, type_slug: str | None = None) -> list[Reference]:
        """Return full names; see `BlockStore.references`."""
        with self._lock:
            found = sorted(self._blocks)
        return [one for one in found if type_slug in (None, one.type_slug)]

    def change(self, stored: StoredBlock, data: str) -> bool:
        """Replace data; see `BlockStore.change`."""
        with self._lock:
            if self._blocks.get(stored.reference) != stored:
                return False
            changed = attrs.evolve(stored, data=data, updated_at=datetime.now(UTC))
            self._blocks[stored.reference] = changed
            return True
