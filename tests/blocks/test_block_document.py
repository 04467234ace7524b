"""Documents: blocks as a client sees them, without their classes and keys."""

from pathlib import Path
from uuid import UUID, uuid4

import pytest

from engine.blocks import MemoryStore, SecretStr, use_store
from engine.blocks.document import (
    delete_document,
    read_document_by_name,
    read_documents,
)
from engine.blocks.exceptions import BlockDataError, BlockNameError, BlockNotFoundError
from engine.blocks.names import Reference
from engine.blocks.store import StoredBlock
from engine.blocks.system import Secret, String


def test_a_document_is_read_by_name() -> None:
    block_id = String(value="s").save("x")
    document = read_document_by_name("x", block_type_slug="string")
    assert document.id == block_id
    assert (document.name, document.block_type_slug) == ("x", "string")
    assert document.data == {"value": "s"}
    assert document.created == document.updated


def test_secrets_are_asterisks_unless_asked_for_and_never_plain(home: Path) -> None:
    Secret(value="canary-1").save("x")
    opened = read_document_by_name("x", "secret", include_secrets=True)
    assert opened.data == {"value": SecretStr("canary-1")}
    (home / "secret.key").unlink()
    masked = read_document_by_name("x", "secret")
    assert masked.data == {"value": "**********"}, "which needs no key"
    assert "canary-1" not in f"{opened} {masked}"


def test_a_missing_document_is_named() -> None:
    with pytest.raises(BlockNotFoundError, match="there is no block string/x"):
        read_document_by_name("x", "string")
    with pytest.raises(BlockNameError):
        read_document_by_name("X", "string")
    with pytest.raises(BlockNameError):
        read_document_by_name("x", "S")


def test_a_document_is_deleted_by_id() -> None:
    block_id: UUID = String(value="s").save("x")
    assert delete_document(block_id)
    assert not delete_document(block_id)
    assert not delete_document(uuid4())


def test_all_documents_are_read_or_those_of_one_type() -> None:
    String(value="1").save("b")
    Secret(value="2").save("c")
    String(value="3").save("a")
    assert [one.name for one in read_documents()] == ["c", "a", "b"]
    assert [one.name for one in read_documents("string")] == ["a", "b"]
    (opened,) = read_documents("secret", include_secrets=True)
    assert opened.data["value"].get_secret_value() == "2"
    assert read_documents("nothing") == []
    with pytest.raises(BlockNameError, match="'Secret' cannot be the slug of a type"):
        read_documents("Secret")


def test_a_document_of_an_unknown_type_can_be_read_and_a_damaged_one_is_named() -> None:
    store = MemoryStore()
    store.put(Reference("unknown", "x"), '{"a":1}', overwrite=False)
    with use_store(store):
        assert read_documents()[0].data == {"a": 1}
        store.put(Reference("unknown", "y"), "nonsense", overwrite=False)
        with pytest.raises(BlockDataError, match="unknown/y"):
            read_documents()


def test_a_document_that_is_deleted_meanwhile_is_left_out() -> None:
    class Vanishing(MemoryStore):
        def get(self, reference: Reference) -> StoredBlock | None:
            return None if reference.name == "x" else super().get(reference)

    with use_store(Vanishing()):
        String(value="s").save("x")
        String(value="s").save("y")
        assert [one.name for one in read_documents()] == ["y"]
