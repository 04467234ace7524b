"""Making files that only their owner may read, and their folders, when first needed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Final
from uuid import uuid4

PRIVATE: Final = 0o600
PRIVATE_FOLDER: Final = 0o700
DRAFT_MARK: Final = ".draft-"


def make_folder(folder: Path) -> None:
    """Make a folder that may be there already, and all that are missing above it."""
    try:
        folder.mkdir(PRIVATE_FOLDER)
    except FileNotFoundError:
        if folder.parent == folder:
            raise  # a drive that does not exist
        make_folder(folder.parent)  # mkdir(parents=True) would make them for everybody
        folder.mkdir(PRIVATE_FOLDER, exist_ok=True)
    except FileExistsError:
        if not folder.is_dir():
            raise


def create_empty(path: Path) -> None:
    """Create a file unless there is one, which is not even opened.

    To close it again would drop the locks that this process has on it.
    """
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))


def create_whole(path: Path, content: bytes) -> None:
    """Create a file with all of its content at once, unless there is one.

    Whoever creates it first, from any process, wins, and nobody ever sees a part of it.
    It survives a power loss.

    Raises:
        OSError: The file system refuses, perhaps because it has no hard links.
    """
    first = contextlib.suppress(FileExistsError)
    with _draft(path, content, lasting=True) as draft, first:
        # Not a rename: that would replace what another process has just created.
        os.link(draft, path)
    _sync_folder(path.parent)


def replace_whole(path: Path, content: bytes) -> None:
    """Write a file, so that others see all that was there before or all of *content*.

    It is not forced to the disk: after a power loss it may be empty, or cut short.

    Raises:
        OSError: The file system refuses; what was there before is still there.
    """
    with _draft(path, content, lasting=False) as draft:
        draft.replace(path)


def is_draft(name: str) -> bool:
    """Whether a file is one of ours that was not finished, or is not yet."""
    return DRAFT_MARK in name


@contextlib.contextmanager
def _draft(path: Path, content: bytes, *, lasting: bool) -> Generator[Path, None, None]:
    """Write *content* beside its place for the length of the block."""
    make_folder(path.parent)
    draft = path.with_name(f"{path.name}{DRAFT_MARK}{uuid4().hex}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        yield draft
    finally:
        # The error that led here says more than one of tidying up.
        with contextlib.suppress(OSError):
            draft.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a new name in *folder* survive a power loss; Windows has no such call."""
    if os.name == "posix":  # pragma: no branch - tests run on one platform at a time
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
