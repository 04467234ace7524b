"""Secrets at rest: keys, rotation, and what happens without a key or the extra."""

import base64
import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine import files
from engine.blocks import Block, SecretStr, use_store
from engine.blocks.exceptions import (
    BlockDataError,
    BlockFieldError,
    BlockKeyError,
    BlockNotFoundError,
)
from engine.blocks.names import Reference
from engine.blocks.rotation import rotate_secrets
from engine.blocks.secrets import Vault
from engine.blocks.store import MemoryStore, StoredBlock
from engine.blocks.system import JSON, Secret, String
from engine.exceptions import MissingExtraError
from engine.settings import temporary_settings

posix_only = pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")


def make_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def stored_data(home: Path) -> Any:
    with closing(sqlite3.connect(home / "blocks.sqlite3")) as connection:
        return json.loads(connection.execute("SELECT data FROM blocks").fetchone()[0])


# keys


def test_without_a_key_setting_a_file_is_made_with_the_first_secret(home: Path) -> None:
    String(value="s").save("x")
    assert not (home / "secret.key").exists()
    Secret(value="s").save("x")
    key = (home / "secret.key").read_bytes()
    assert len(base64.urlsafe_b64decode(key)) == 32
    Secret(value="t").save("y")
    assert (home / "secret.key").read_bytes() == key
    assert Secret.load("x").get() == "s"
    assert len(list(home.glob("secret.key*"))) == 1, "no draft is left"


def test_with_a_key_setting_no_file_is_made(home: Path) -> None:
    with temporary_settings(secret_key=make_key()):
        Secret(value="s").save("x")
        assert Secret.load("x").get() == "s"
    assert not (home / "secret.key").exists()


def test_the_first_key_encrypts_and_all_of_them_decrypt() -> None:
    old, new = make_key(), make_key()
    with temporary_settings(secret_key=old):
        Secret(value="s").save("x")
    with temporary_settings(secret_key=f"{new}, {old}"):
        assert Secret.load("x").get() == "s"
        Secret(value="t").save("y")
    with temporary_settings(secret_key=new):
        assert Secret.load("y").get() == "t"
        with pytest.raises(BlockKeyError) as caught:
            Secret.load("x")
    assert str(caught.value) == (
        "the secrets of block secret/x are out of reach: they were encrypted with"
        " another key, or changed since; an old key goes behind the new one in"
        " ENGINE_SECRET_KEY, after a comma"
    )


def test_a_key_file_may_hold_several_keys(home: Path) -> None:
    Secret(value="s").save("x")
    path = home / "secret.key"
    path.write_text(f"{make_key()}\n{path.read_text()}")
    assert Secret.load("x").get() == "s"


def test_reading_never_makes_a_key(home: Path) -> None:
    Secret(value="s").save("x")
    (home / "secret.key").unlink()
    with pytest.raises(BlockKeyError, match="no such file") as caught:
        Secret.load("x")
    assert caught.value.block == "secret/x"
    assert not (home / "secret.key").exists()


@posix_only
def test_a_key_file_that_others_may_read_is_refused(home: Path) -> None:
    Secret(value="s").save("x")
    (home / "secret.key").chmod(0o640)
    for use in (lambda: Secret.load("x"), lambda: Secret(value="t").save("y")):
        with pytest.raises(BlockKeyError, match=r"\(mode 640\): chmod 600 it"):
            use()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe", b"\n,\n"])
def test_a_key_file_without_keys_is_an_error_that_names_it(
    home: Path, content: bytes
) -> None:
    files.create_whole(home / "secret.key", content)
    with pytest.raises(BlockKeyError, match="does not hold Fernet keys") as caught:
        Secret(value="s").save("x")
    assert str(home / "secret.key") in str(caught.value)


def test_a_key_file_that_cannot_be_made_is_an_error_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_links(*_paths: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", no_links)
    with pytest.raises(BlockKeyError, match="or set ENGINE_SECRET_KEY"):
        Secret(value="s").save("x")


# what is stored


def test_a_secret_field_is_one_token_and_nothing_else(home: Path) -> None:
    Secret(value="s").save("x")
    assert list(stored_data(home)["value"]) == ["$secret"]


def test_a_secret_in_another_field_is_encrypted_too(home: Path) -> None:
    JSON(value={"a": [SecretStr("canary-1")], "b": 2}).save("x")
    assert stored_data(home)["value"]["b"] == 2
    assert "canary-1" not in json.dumps(stored_data(home))
    assert JSON.load("x").value == {"a": [SecretStr("canary-1")], "b": 2}


def test_no_secret_is_no_token(home: Path) -> None:
    class Optional(Block):
        token: SecretStr | None = None

    Optional().save("x")
    assert stored_data(home) == {"token": None}
    assert not (home / "secret.key").exists()


def test_the_same_secret_is_never_stored_the_same(home: Path) -> None:
    Secret(value="s").save("x")
    first = stored_data(home)
    Secret(value="s").save("x", overwrite=True)
    assert stored_data(home) != first


def test_a_secret_that_cannot_be_stored_is_not_shown() -> None:
    class Odd(Block):
        token: SecretStr | object

    with pytest.raises(BlockFieldError, match="token of block odd/x cannot be stored"):
        Odd(token=object()).save("x")


@pytest.mark.parametrize("text", ["", "ä\n\0", "\ud800", "x" * 100_000])
def test_any_text_can_be_a_secret(text: str) -> None:
    Secret(value=text).save("x")
    assert Secret.load("x").get() == text


@pytest.mark.parametrize("token", ["nonsense", "", "gAAAAA", "ä"])
def test_a_changed_token_is_an_error_that_names_the_block(token: str) -> None:
    store = MemoryStore()
    data = json.dumps({"value": {"$secret": token}})
    store.put(Reference("secret", "x"), data, overwrite=False)
    with (
        use_store(store),
        temporary_settings(secret_key=make_key()),
        pytest.raises(BlockKeyError, match="secret/x"),
    ):
        Secret.load("x")


def test_a_secret_that_was_encrypted_twice_is_an_error_that_names_the_block() -> None:
    vault = Vault("x")
    inner = SecretStr(json.dumps({"$secret": vault.encrypt(SecretStr("1"))}))
    store = MemoryStore()
    data = json.dumps({"value": {"$secret": vault.encrypt(inner)}})
    store.put(Reference("secret", "x"), data, overwrite=False)
    with use_store(store), pytest.raises(BlockDataError, match="encrypted twice"):
        Secret.load("x")


# the extra


@pytest.fixture
def without_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)


@pytest.mark.usefixtures("without_cryptography")
def test_without_the_extra_a_secret_refuses_to_be_saved(home: Path) -> None:
    with pytest.raises(MissingExtraError) as caught:
        Secret(value="s").save("x")
    assert str(caught.value) == (
        "saving the secrets of block secret/x needs:"
        " pip install 'actor-engine[secrets]'"
    )
    assert not home.exists()
    String(value="s").save("x")
    assert Block.names() == ["string/x"], "what has no secrets needs no extra"


def test_without_the_extra_a_secret_cannot_be_loaded(
    request: pytest.FixtureRequest,
) -> None:
    Secret(value="s").save("x")
    request.getfixturevalue("without_cryptography")
    with pytest.raises(MissingExtraError, match="reading the secrets of block"):
        Secret.load("x")
    Secret.delete("x")


# rotation


def test_rotation_moves_every_secret_to_the_first_key() -> None:
    old, new = make_key(), make_key()
    tagged = {"$secret": "no token", "list": [SecretStr("u")]}
    with temporary_settings(secret_key=old):
        Secret(value="s").save("x")
        JSON(value=[tagged, {"a": SecretStr("t")}]).save("x")
        String(value="plain").save("x")
    with temporary_settings(secret_key=f"{new},{old}"):
        assert rotate_secrets() == 2
    with temporary_settings(secret_key=new):
        assert Secret.load("x").get() == "s"
        assert JSON.load("x").value == [tagged, {"a": SecretStr("t")}]
        assert rotate_secrets() == 2, "it can be repeated"


def test_rotation_without_the_old_key_names_the_block() -> None:
    Secret(value="s").save("x")
    with (
        temporary_settings(secret_key=make_key()),
        pytest.raises(BlockKeyError, match="secret/x"),
    ):
        rotate_secrets()


@pytest.mark.parametrize("data", ["nonsense", '{"a": {"$x": 1}}', "[" * 100_000])
def test_rotation_names_a_damaged_block(data: str) -> None:
    store = MemoryStore()
    store.put(Reference("secret", "x"), data, overwrite=False)
    with use_store(store), pytest.raises(BlockDataError, match="secret/x"):
        rotate_secrets()


def test_rotation_leaves_other_tags_alone() -> None:
    store = MemoryStore()
    data = '{"a":{"$date":"2026-01-31"},"b":{"$dict":{"$x":1}}}'
    store.put(Reference("json", "x"), data, overwrite=False)
    with use_store(store):
        assert rotate_secrets() == 0
    stored = store.get(Reference("json", "x"))
    assert stored is not None
    assert stored.data == data


class BusyStore(MemoryStore):
    """Somebody else writes or deletes just before the first change."""

    def __init__(self, *, delete: bool) -> None:
        super().__init__()
        self.delete_it = delete
        self.changes = 0

    def change(self, stored: StoredBlock, data: str) -> bool:
        self.changes += 1
        if self.changes == 1:
            if self.delete_it:
                self.delete(stored.reference)
            else:
                Secret(value="newer").save("x", overwrite=True)
        return super().change(stored, data)


def test_a_block_that_is_saved_during_rotation_keeps_its_newer_value() -> None:
    with use_store(BusyStore(delete=False)):
        Secret(value="older").save("x")
        assert rotate_secrets() == 1
        assert Secret.load("x").get() == "newer"


def test_a_block_that_is_deleted_during_rotation_stays_deleted() -> None:
    with use_store(BusyStore(delete=True)):
        Secret(value="s").save("x")
        assert rotate_secrets() == 0
        with pytest.raises(BlockNotFoundError):
            Secret.load("x")
