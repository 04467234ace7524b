"""A secret is found nowhere: not in files, logs, reprs, errors or tracebacks."""

import importlib
import logging
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs
from webhook_receiver import Receiver

from engine import task
from engine.blocks import Block, SecretStr
from engine.blocks import sqlite as sqlite_module
from engine.blocks.document import read_documents
from engine.blocks.fields import secret_fields
from engine.blocks.names import Reference
from engine.blocks.notifications import (
    AppriseNotification,
    NotificationBlock,
    SlackWebhook,
    Webhook,
)
from engine.blocks.registry import BUILT_IN, find_class
from engine.blocks.rotation import rotate_secrets
from engine.blocks.system import JSON, Secret, String
from engine.cache_policies import INPUTS
from engine.exceptions import EngineError

# In parts, so that the source lines that a traceback shows do not hold it.
CANARY = "canary" + "4711"


class Credentials(Block):
    user: str
    token: SecretStr
    more: dict[str, SecretStr]
    maybe: SecretStr | None = None


def make_all(url: str) -> list[Block]:
    """One block of each type that has secrets, each with the canary in it."""
    return [
        Secret(value=CANARY),
        Credentials(user="u", token=CANARY, more={"a": CANARY}, maybe=CANARY),
        JSON(value={"a": [SecretStr(CANARY)]}),
        SlackWebhook(url=f"{url}/{CANARY}"),
        Webhook(
            url=f"{url}/{CANARY}?t={CANARY}",
            headers={"Authorization": f"Bearer {CANARY}"},
            template={"key": SecretStr(CANARY), "text": "{body}"},
        ),
        AppriseNotification(url=url.replace("http", "json") + f"/{CANARY}"),
    ]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """Everything that was logged, at every level, as text."""
    with capture_logs() as logs, caplog.at_level(logging.NOTSET + 1):
        yield lambda: f"{logs} {caplog.text}"


def everything_stored(home: Path) -> bytes:
    return b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")
def test_a_secret_is_in_no_file_log_or_repr_while_all_goes_well(
    home: Path, receiver: Receiver, lines: Callable[[], str]
) -> None:
    shown = ""
    for block in make_all(receiver.url):
        block.save("x")
        loaded = type(block).load("x")
        assert loaded == block
        shown += f"{block!r} {block} {loaded!r}"
        if isinstance(loaded, NotificationBlock):
            loaded.notify("b", subject="s")
    shown += f"{read_documents()} {read_documents(include_secrets=True)}"
    assert rotate_secrets() == 6
    assert CANARY.encode() not in everything_stored(home)
    assert CANARY not in shown + lines()
    assert CANARY in "".join(str(request.headers) for request in receiver.requests)


def test_the_canary_is_in_every_secret_field_that_there_is() -> None:
    covered = {
        (type(block).get_block_type_slug(), name)
        for block in make_all("http://x")
        for name in secret_fields(type(block))
        if CANARY in str(revealed(getattr(block, name)))
    }
    for module in set(BUILT_IN.values()):
        importlib.import_module(module)
    for slug in BUILT_IN:
        kind = find_class(Reference(slug, "x"))
        assert {(slug, name) for name in secret_fields(kind)} <= covered


def revealed(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return [revealed(item) for item in value.values()]
    return None


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_secret_is_in_no_journal_of_the_store(
    home: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Neither in the usual one nor in a write-ahead log that an owner has chosen."""
    String(value="first").save("first")
    reader = sqlite3.connect(home / "blocks.sqlite3", isolation_level=None)
    reader.execute(f"PRAGMA journal_mode = {mode}")
    reader.execute("SELECT * FROM blocks").fetchall()
    seen: dict[str, bytes] = {}

    class Watched(sqlite3.Connection):
        def execute(self, query: str, *values: Any) -> Any:
            done = super().execute(query, *values)
            for path in home.iterdir():
                seen[path.name] = seen.get(path.name, b"") + path.read_bytes()
            return done

    connect = partial(sqlite3.connect, factory=Watched)
    monkeypatch.setattr(sqlite_module.sqlite3, "connect", connect)
    for block in make_all("http://x"):
        for overwrite in (False, True):
            block.save("x", overwrite=overwrite)
    rotate_secrets()
    for name in Block.names():
        Block.delete(name)
    reader.close()
    assert f"blocks.sqlite3-{'wal' if mode == 'wal' else 'journal'}" in seen
    assert CANARY.encode() not in b"".join(seen.values())
    assert b"gAAAA" in b"".join(seen.values()), "they were there, encrypted"


def test_a_secret_that_was_assigned_as_text_is_in_no_traceback(home: Path) -> None:
    block = Credentials(user="u", token="", more={})
    block.token = CANARY  # type: ignore[assignment]
    block.more = {"a": CANARY, "b": {"c": CANARY}}  # type: ignore[dict-item]
    home.mkdir()
    (home / "secret.key").write_text("no key")
    assert CANARY not in trace_of(partial(block.save, "x"))


def test_a_secret_is_in_no_result_that_is_kept(
    home: Path, lines: Callable[[], str]
) -> None:
    """A secret value is refused: results are signed at most, never encrypted."""

    def make() -> list[Block]:
        return [Credentials(user="u", token=CANARY, more={})]

    for options in ({}, {"result_serializer": "pickle"}):
        kept = task(make, persist_result=True, cache_policy=INPUTS, **options)
        text = trace_of(kept)
        assert "cannot be kept" in text
        assert CANARY not in text
    assert CANARY.encode() not in everything_stored(home)
    assert CANARY not in lines()


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")
def test_a_secret_is_in_no_error_and_no_local_of_a_traceback(
    home: Path, receiver: Receiver, lines: Callable[[], str]
) -> None:
    receiver.status, receiver.body = 500, f"no {CANARY}".encode()
    blocks = make_all(receiver.url)
    for block in blocks:
        block.save("x")
    problems: list[Callable[[], Any]] = []
    for block in blocks:
        problems += [partial(block.save, "x"), partial(block.save, "No")]
        if isinstance(block, NotificationBlock):
            problems.append(partial(block.notify, "b"))
    refused = make_all("http://10.0.0.1")
    unreachable = make_all("http://127.0.0.1:9")
    for block in (*refused[3:5], *unreachable[3:5]):
        assert isinstance(block, NotificationBlock)
        problems.append(partial(block.notify, "b"))
    odd = Credentials(user="u", token=CANARY, more={"a": CANARY})
    odd.more["b"] = object()  # type: ignore[assignment]
    problems.append(partial(odd.save, "y"))
    texts = [trace_of(problem) for problem in problems]
    (home / "secret.key").write_text("no key")
    texts += [trace_of(partial(block.save, "y")) for block in blocks]
    (home / "secret.key").unlink()
    texts += [trace_of(partial(type(block).load, "x")) for block in blocks]
    assert len(texts) > 20
    for text in texts:
        assert CANARY not in text
    assert CANARY not in lines()


def trace_of(problem: Callable[[], Any]) -> str:
    """Return all that a traceback can show of an error: chain, locals, fields."""
    try:
        problem()
    except EngineError as error:
        trace = traceback.TracebackException.from_exception(error, capture_locals=True)
        logger = structlog.get_logger("engine")
        logger.error("hook_failed", exc_info=error, error=error)
        return f"{''.join(trace.format())} {error!r} {error.args} {vars(error)}"
    raise AssertionError("there was no error")
