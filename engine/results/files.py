"""The store of results in a folder, shared by any number of processes.

Each result is a file of its own, named after the fingerprint of its key, in one of 256
folders by the beginning of its name::

    engine-result 1
    <SHA-256 of all that follows, in hexadecimal>
    {"key": …, "serializer": "json", "task": …, "run_id": …, "created_at": …, …}
    <the value, as the serializer has written it>

It is written beside its place and moved there, so that a reader sees the old one or the
new one and never a part. It is not forced to the disk: after a power loss a file may be
empty or cut short, which the checksum shows, and then the result is made again.

Nobody looks after the folder, so whoever writes a result looks at a few of the files
beside it, and removes those that have expired. As keys spread evenly, each file is
looked at several times as often as one is added.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs

from engine.files import is_draft, replace_whole
from engine.logging import log
from engine.results.exceptions import UnreadableResultError
from engine.results.store import ResultRecord

MAGIC: Final = b"engine-result 1"
SUFFIX: Final = ".result"
LONGEST_LINE: Final = 65_536
"""How much of a line is read to find out whether a result has expired."""

LOOKS: Final = 4
"""How many files are looked at with each result that is written."""
DRAFT_LIFE: Final = 3600.0
"""Seconds after which an unfinished file is that of a process that was killed."""

HEADER: Final[dict[str, tuple[type, ...]]] = {
    "key": (str,),
    "serializer": (str,),
    "task": (str,),
    "run_id": (str,),
    "created_at": (float, int),
    "expires_at": (float, int, type(None)),
}
"""What stands in a file beside the value."""


@attrs.frozen
class FileResultStore:
    """Results in the files of a folder, which is made with the first one.

    The folder and the files are for their owner only. Of results that have expired a
    few are removed with each one that is written; the others stay until they are
    deleted or replaced.

    Args:
        folder: Where they are.
    """

    folder: Path

    is_blocking = True

    def __str__(self) -> str:
        return str(self.folder)

    def path_of(self, key: str) -> Path:
        """Return the file of a key, whatever characters and length the key has."""
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / name[:2] / f"{name}{SUFFIX}"

    def read(self, key: str) -> ResultRecord | None:
        """Return a record; see `ResultStore.read`."""
        path = self.path_of(key)
        try:
            return parse(path.read_bytes(), key)
        except FileNotFoundError:
            return None
        except (OSError, UnreadableResultError) as error:
            log.warning("result_unreadable", path=str(path), problem=str(error))
            return None

    def write(self, record: ResultRecord) -> None:
        """Keep a record; see `ResultStore.write`.

        Raises:
            OSError: The file cannot be written.
        """
        path = self.path_of(record.key)
        remove_expired(path.parent)
        replace_whole(path, compose(record))

    def delete(self, key: str) -> None:
        """Remove a record; see `ResultStore.delete`."""
        self.path_of(key).unlink(missing_ok=True)


def remove_expired(folder: Path) -> None:
    """Look at a few files in *folder*, and remove those that nobody can use any more.

    One that another process replaces in this very moment may go with them, and is then
    made again.
    """
    with suppress(OSError):  # a result that was written is written, whatever this does
        names = os.listdir(folder)
        for name in random.sample(names, min(LOOKS, len(names))):
            path = folder / name
            with suppress(OSError, UnreadableResultError):
                if time.time() >= useless_at(path):
                    path.unlink()


def useless_at(path: Path) -> float:
    """Return when a file is of no use any more, in seconds of Unix time.

    Raises:
        UnreadableResultError: It is no result; whoever wants it there may keep it.
        OSError: It cannot be read.
    """
    if is_draft(path.name):
        return path.stat().st_mtime + DRAFT_LIFE
    with path.open("rb") as file:
        magic, _, header = (file.readline(LONGEST_LINE).rstrip() for _ in range(3))
    if magic != MAGIC:
        raise UnreadableResultError("it is not a result that this version can read")
    expires_at = parse_header(header)["expires_at"]
    return float("inf") if expires_at is None else float(expires_at)


def compose(record: ResultRecord) -> bytes:
    """Return the content of a record's file."""
    header = json.dumps({name: getattr(record, name) for name in HEADER})
    rest = header.encode("ascii") + b"\n" + record.payload
    return b"\n".join((MAGIC, checksum(rest), rest))


def parse(content: bytes, key: str) -> ResultRecord:
    """Return the record in a file.

    Raises:
        UnreadableResultError: The file is damaged, or no result of this key.
    """
    magic, _, checked = content.partition(b"\n")
    found, _, rest = checked.partition(b"\n")
    if magic != MAGIC:
        raise UnreadableResultError("it is not a result that this version can read")
    if found != checksum(rest):
        raise UnreadableResultError("it is damaged: its checksum is another one")
    header, _, payload = rest.partition(b"\n")
    facts = parse_header(header)
    if facts["key"] != key:
        raise UnreadableResultError("it holds the result of another key")
    return ResultRecord(**facts, payload=payload)


def parse_header(header: bytes) -> dict[str, Any]:
    """Return what stands in a file beside the value.

    Raises:
        UnreadableResultError: It is not what `compose` writes.
    """
    facts: dict[str, Any] = {}
    with suppress(ValueError, TypeError, RecursionError):
        facts = dict(json.loads(header))
    if facts.keys() == HEADER.keys() and all(
        isinstance(facts[name], kinds) for name, kinds in HEADER.items()
    ):
        return facts
    raise UnreadableResultError("its header is not one of a result")


def checksum(content: bytes) -> bytes:
    """Return the hexadecimal SHA-256 of *content*."""
    return hashlib.sha256(content).hexdigest().encode()
