"""The store that is in force here and now."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from engine.blocks.sqlite import FILE, SqliteStore
from engine.blocks.store import BlockStore
from engine.settings.current import get_current_settings

_store: ContextVar[BlockStore | None] = ContextVar("engine_block_store", default=None)


def current_store() -> BlockStore:
    """Return the store of `use_store`, else the one in ``ENGINE_HOME``."""
    return _store.get() or SqliteStore(get_current_settings().home / FILE)


@contextmanager
def use_store(store: BlockStore) -> Generator[None, None, None]:
    """Keep blocks in another store for the length of a ``with`` block.

    In force in the current context: in this task or thread and those that it starts
    with a copy of its context. For tests: ``with use_store(MemoryStore()): …``.

    Args:
        store: The store; the caller keeps it.
    """
    token = _store.set(store)
    try:
        yield
    finally:
        _store.reset(token)
