"""The store of results in a folder, shared by any number of processes.

Each result is a file of its own, named after the fingerprint of its key::

    engine-result 1
    <SHA-256 of all that follows, in hexadecimal>
    {"key": …, "serializer": "json", "task": …, "run_id": …, "created_at": …, …}
    <the value, as the serializer has written it>

It is written beside its place and moved there, so that a reader sees the old one or the
new one and never a part. It is not forced to the disk: after a power loss a file may be
empty or cut short, which the checksum shows, and then the result is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import attrs

from engine.logging import log
from engine.results.exceptions import UnreadableResultError
from engine.results.store import ResultRecord

MAGIC: Final = b"engine-result 1"
SUFFIX: Final = ".result"

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

    The folder and the files are for their owner only. Nothing is ever removed but what
    is deleted or replaced.

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
        return self.folder / f"{name}{SUFFIX}"

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
        draft = path.with_name(f".{path.name}.{uuid4().hex}")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(compose(record))
            draft.replace(path)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise

    def delete(self, key: str) -> None:
        """Remove a record; see `ResultStore.delete`."""
        self.path_of(key).unlink(missing_ok=True)


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
