"""Making files that only their owner may read, and their folder, when first needed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final
from uuid import uuid4

PRIVATE: Final = 0o600
PRIVATE_FOLDER: Final = 0o700


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, that may be there already."""
    folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)


def create_empty(path: Path) -> None:
    """Create a private file unless there is one; its content is not touched."""
    make_folder(path.parent)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE))


def create_whole(path: Path, content: bytes) -> None:
    """Create a private file with all of its content at once, unless there is one.

    Whoever creates it first, from any process, wins, and nobody ever sees a part of it.

    Raises:
        OSError: The file system refuses, perhaps because it has no hard links.
    """
    make_folder(path.parent)
    draft = path.with_name(f"{path.name}.{uuid4().hex}")
    try:
        _write(draft, content)
        # Not a rename: that would replace what another process has just created.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a new name in *folder* survive a power loss; Windows has no such call."""
    if os.name == "posix":  # pragma: no branch - tests run on one platform at a time
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
