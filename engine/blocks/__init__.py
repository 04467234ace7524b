"""Blocks: configuration and credentials that are saved by name and loaded anywhere."""

from engine.blocks.core import Block
from engine.blocks.current import use_store
from engine.blocks.rotation import rotate_secrets
from engine.blocks.store import BlockStore, MemoryStore
from engine.settings.secret import SecretStr

__all__ = [
    "Block",
    "BlockStore",
    "MemoryStore",
    "SecretStr",
    "rotate_secrets",
    "use_store",
]
