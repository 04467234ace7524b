"""The stores that are in force here and now."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from engine.results.files import FileResultStore
from engine.results.store import MemoryResultStore, ResultStore
from engine.settings import get_current_settings

FOLDER: Final = "results"

_given: ContextVar[ResultStore | None] = ContextVar("engine_result_store", default=None)
_memory: Final = MemoryResultStore()


def memory_store() -> ResultStore:
    """Return the store of `use_result_store`, else the memory of this process."""
    given = _given.get()
    return _memory if given is None else given


def home_store() -> ResultStore:
    """Return the store of `use_result_store`, else the folder in ``ENGINE_HOME``."""
    given = _given.get()
    if given is not None:
        return given
    return FileResultStore(get_current_settings().home / FOLDER)


@contextmanager
def use_result_store(store: ResultStore) -> Generator[None, None, None]:
    """Keep results in another store for the length of a ``with`` block.

    In force in the current context: in this task or thread and in the runs that are
    started there. For tests: ``with use_result_store(MemoryResultStore()): …``.

    Args:
        store: For persisted results and others alike; the caller keeps it.
    """
    token = _given.set(store)
    try:
        yield
    finally:
        _given.reset(token)
