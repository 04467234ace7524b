"""Block: defining types, saving, loading, deleting and listing, in sync code."""

import copy
import os
import pickle
import stat
import subprocess
import sys
import threading
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import attrs
import pytest
from structlog.testing import capture_logs

from engine.blocks import Block, MemoryStore, SecretStr, use_store
from engine.blocks.exceptions import (
    BlockDataError,
    BlockExistsError,
    BlockFieldError,
    BlockNameError,
    BlockNotFoundError,
    BlockReferenceError,
    BlockSlugTakenError,
    UnknownBlockTypeError,
)
from engine.blocks.names import Reference
from engine.blocks.registry import BUILT_IN
from engine.blocks.system import JSON, DateTime, Secret, String
from engine.exceptions import EngineError

if TYPE_CHECKING:
    from nowhere import NeverImported


class Database(Block):
    host: str
    port: int = 5432
    password: SecretStr | None = None


class Replica(Database):
    lag: float = 0.0


@attrs.define
class Decorated(Block):
    host: str
    token: SecretStr
    port: int = 1


@attrs.frozen
class Frozen(Block):
    token: SecretStr


class Described(Block):
    """A type with a slug of its own, and a field that is not stored."""

    _block_type_slug = "other-name"

    value: int
    connection: Any = attrs.field(init=False, default=None)


# definition


def test_a_subclass_with_annotations_is_a_type_of_block() -> None:
    block = Database(host="h", password="p")
    assert (block.host, block.port) == ("h", 5432)
    assert block.password == SecretStr("p")
    assert block == Database(host="h", password=SecretStr("p"))
    assert block != Database(host="other")


def test_a_subclass_of_a_type_has_its_fields_too() -> None:
    assert Replica(host="h", lag=1.5).port == 5432


def test_attrs_own_decorator_keeps_what_it_says() -> None:
    block = Decorated("h", "t", 2)  # type: ignore[arg-type]
    assert (block.host, block.token, block.port) == ("h", SecretStr("t"), 2)
    assert repr(block) == "Decorated(host='h', token='**********', port=2)"


def test_a_frozen_type_works() -> None:
    Frozen(token=SecretStr("t")).save("x")
    assert Frozen.load("x").token.get_secret_value() == "t"
    assert Frozen("t").token == SecretStr("t")  # type: ignore[arg-type]


def test_a_parent_that_was_never_used_gives_its_fields_to_a_decorated_child() -> None:
    class Unused(Block):
        first: int

    @attrs.define(kw_only=True)
    class Child(Unused):
        second: int

    assert Child(first=1, second=2).first == 1


def test_a_first_use_by_many_threads_at_once_defines_the_type_once() -> None:
    class Racy(Block):
        value: int = 7

    made: list[Racy] = []
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait()
        made.append(Racy())

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.value for one in made] == [7] * 8


def test_missing_and_unknown_fields_are_pythons_own_errors() -> None:
    with pytest.raises(TypeError, match="host"):
        Database()
    with pytest.raises(TypeError, match="hos"):
        Database(hos="h")


def test_block_itself_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="make a subclass"):
        Block()


def test_blocks_can_be_copied_and_pickled() -> None:
    block = Database(host="h", password="p")
    assert pickle.loads(pickle.dumps(block)) == copy.deepcopy(block) == block


@pytest.mark.parametrize(
    ("cls", "slug"),
    [
        (Database, "database"),
        (String, "string"),
        (JSON, "json"),
        (DateTime, "date-time"),
        (Described, "other-name"),
        (type("MyS3Bucket", (Block,), {}), "my-s3-bucket"),
        (type("HTTPServerV2", (Block,), {}), "http-server-v2"),
        (type("snake_case", (Block,), {}), "snake-case"),
    ],
)
def test_the_slug_is_made_of_the_name_unless_it_is_given(
    cls: type[Block], slug: str
) -> None:
    assert cls.get_block_type_slug() == slug


def test_a_slug_that_is_none_is_refused_at_the_definition() -> None:
    with pytest.raises(BlockNameError, match="slug of Wrong"):
        type("Wrong", (Block,), {"_block_type_slug": "No Slug"})
    with pytest.raises(BlockNameError, match="slug of type Ä"):
        type("Ä", (Block,), {})


def test_the_slugs_of_the_librarys_own_types_are_taken() -> None:
    with pytest.raises(BlockSlugTakenError, match="_block_type_slug"):
        type("Webhook", (Block,), {})


def test_the_last_class_of_a_slug_wins_and_that_is_logged() -> None:
    with capture_logs() as logs:
        first = type("Twice", (Block,), {"__qualname__": "Twice"})
        again = type("Twice", (Block,), {"__qualname__": "Twice"})
        assert not logs, "a reloaded module is no surprise"
        other = type("Other", (Block,), {"_block_type_slug": "twice"})
    assert [line["event"] for line in logs] == ["block_type_replaced"]
    assert (logs[0]["slug"], logs[0]["log_level"]) == ("twice", "warning")
    other().save("x")
    assert type(Block.load("twice/x")) is other
    assert type(again.load("x")) is again
    assert first is not again


# saving and loading


def test_a_saved_block_is_loaded_by_its_type_or_by_reference() -> None:
    block = Database(host="h", port=1, password="p")
    block_id = block.save("main")
    assert isinstance(block_id, UUID)
    assert Database.load("main") == block
    assert Database.load(name="main") == block
    assert Block.load("database/main") == block
    assert Database.load("database/main") == block


def test_a_type_loads_the_kinds_of_it() -> None:
    Replica(host="h").save("r")
    assert isinstance(Database.load("replica/r"), Replica)
    Database(host="h").save("d")
    with pytest.raises(BlockReferenceError, match="its class Database is no Replica"):
        Replica.load("database/d")


def test_names_belong_to_their_type() -> None:
    String(value="s").save("x")
    JSON(value=1).save("x")
    assert (String.load("x").value, JSON.load("x").value) == ("s", 1)


def test_a_taken_name_is_refused_unless_it_is_to_be_overwritten() -> None:
    first = String(value="one").save("x")
    with pytest.raises(BlockExistsError, match="string/x already: save"):
        String(value="two").save("x")
    assert String.load("x").value == "one"
    assert String(value="two").save("x", overwrite=True) == first
    assert String.load("x").value == "two"


def test_a_missing_block_is_named_with_its_store(home: Path) -> None:
    with pytest.raises(BlockNotFoundError) as caught:
        String.load("x")
    assert str(caught.value) == (
        f"there is no block string/x in {home / 'blocks.sqlite3'}"
    )
    assert isinstance(caught.value, ValueError)


def test_reading_creates_nothing(home: Path) -> None:
    assert Block.names() == []
    with pytest.raises(BlockNotFoundError):
        String.load("x")
    with pytest.raises(BlockNotFoundError):
        String.delete("x")
    assert not home.exists()


def test_deleting_removes_the_block() -> None:
    String(value="s").save("x")
    assert String.delete("x") is None
    String(value="s").save("x")
    Block.delete("string/x")
    with pytest.raises(BlockNotFoundError, match="string/x"):
        String.delete("x")


def test_listing_gives_references_of_the_type_or_of_all() -> None:
    String(value="s").save("b")
    String(value="s").save("a")
    JSON(value=1).save("c")
    assert String.names() == ["string/a", "string/b"]
    assert Block.names() == ["json/c", "string/a", "string/b"]
    assert [Block.load(name).get_block_type_slug() for name in Block.names()]


@pytest.mark.parametrize(
    "name", ["", "A", "a b", "ä", "a_b", "x" * 256, "a\n", None, 3, "../x", "\ud800"]
)
def test_a_name_has_lowercase_letters_digits_and_dashes(name: Any) -> None:
    with pytest.raises(BlockNameError, match="lowercase letters, digits and dashes"):
        String(value="s").save(name)
    with pytest.raises(BlockNameError):
        String.load(name)


def test_a_long_wrong_name_is_cut_in_the_error() -> None:
    with pytest.raises(BlockNameError) as caught:
        String.load("X" * 1000)
    assert len(str(caught.value)) < 250


def test_block_load_needs_the_type() -> None:
    with pytest.raises(BlockReferenceError, match="say which, as in 'string/name'"):
        Block.load("x")


@pytest.mark.parametrize("reference", ["/x", "string/", "string/a/b", "String/x", "/"])
def test_a_reference_has_two_parts(reference: str) -> None:
    with pytest.raises(BlockNameError):
        Block.load(reference)


def test_an_unknown_type_is_an_error_that_names_block_and_way_out() -> None:
    with pytest.raises(UnknownBlockTypeError) as caught:
        Block.load("no-such-type/x")
    assert str(caught.value) == (
        "the type 'no-such-type' of block no-such-type/x is not known: import the"
        " module that defines its class"
    )


def test_the_librarys_own_types_are_known_without_an_import(home: Path) -> None:
    String(value="s").save("x")
    Secret(value="s").save("x")
    code = (
        "import sys; from engine.blocks.core import Block;"
        "assert 'engine.blocks.system' not in sys.modules;"
        "print(Block.load('string/x').value, Block.load('secret/x'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout.strip() == "s Secret(value='**********')"


def test_a_module_is_imported_when_a_type_of_it_is_first_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lazily.py").write_text(
        "from engine.blocks import Block\nclass Lazy(Block):\n    value: int\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(BUILT_IN, "lazy", "lazily")
    store = MemoryStore()
    store.put(Reference("lazy", "x"), '{"value":1}', overwrite=False)
    with use_store(store):
        assert repr(Block.load("lazy/x")) == "Lazy(value=1)"


def test_every_kind_of_value_comes_back() -> None:
    class Everything(Block):
        values: dict[str, Any]

    values = {
        "none": None, "true": True, "int": 2**70, "float": 0.1, "text": "ä\n\ud800",
        "list": [1, [2]], "dict": {"a": {}}, "secret": SecretStr("s"),
        "datetime": datetime(2026, 1, 31, 8, tzinfo=timezone(timedelta(hours=2))),
        "naive": datetime(2026, 1, 31), "date": date(2026, 1, 31),
        "decimal": Decimal("1.10"), "uuid": uuid4(),
        "tagged": {"$secret": "x", "$dict": {"$dict": {}}, "plain": SecretStr("t")},
    }  # fmt: skip
    Everything(values=values).save("x")
    assert Everything.load("x").values == values


def test_tuples_come_back_as_lists() -> None:
    JSON(value=(1, (2,))).save("x")
    assert JSON.load("x").value == [1, [2]]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "it holds an object"),
        ({1: 2}, "a dictionary with a key of type int"),
        ([{"a": {2}}], "it holds a set"),
        (float("nan"), "the number nan, which JSON does not have"),
        ([float("inf")], "the number inf"),
        pytest.param(10**5000, "a number with too many digits", id="long"),
    ],
)
def test_a_value_that_cannot_be_stored_is_an_error_that_names_the_field(
    value: Any, said: str
) -> None:
    with pytest.raises(BlockFieldError) as caught:
        JSON(value=value).save("x")
    assert str(caught.value).startswith("value of block json/x cannot be stored: ")
    assert said in str(caught.value)
    assert Block.names() == []


def test_a_value_that_holds_itself_is_an_error() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(BlockFieldError, match="nested too deeply"):
        JSON(value=value).save("x")


def test_fields_without_init_are_not_stored() -> None:
    block = Described(value=1)
    block.connection = object()
    block.save("x")
    assert Described.load("x").connection is None
    assert "other-name/x" in Block.names()


def test_a_field_without_init_and_value_does_not_disturb() -> None:
    class Late(Block):
        value: int
        token: SecretStr = attrs.field(init=False)

    block = Late(value=1)
    assert repr(block) == "Late(value=1, token='**********')"
    block.save("x")
    assert Late.load("x").value == 1


def test_a_field_may_have_an_alias() -> None:
    class Aliased(Block):
        _hidden: int
        other: int = attrs.field(alias="another")

    Aliased(hidden=1, another=2).save("x")
    assert Aliased.load("x") == Aliased(hidden=1, another=2)


def test_a_field_that_the_class_has_lost_is_ignored_and_logged() -> None:
    type("Shrinking", (Block,), {"__annotations__": {"a": int, "b": int}})(
        a=1, b=2
    ).save("x")
    smaller = type("Shrinking", (Block,), {"__annotations__": {"a": int}})
    with capture_logs() as logs:
        assert smaller.load("x").a == 1  # type: ignore[attr-defined]
    assert logs[0]["event"] == "block_fields_ignored"
    assert (logs[0]["block"], logs[0]["fields"]) == ("shrinking/x", ["b"])


def test_a_field_that_the_class_has_gained_needs_a_default() -> None:
    type("Growing", (Block,), {"__annotations__": {"a": int}})(a=1).save("x")
    body = {"__annotations__": {"a": int, "b": int, "c": int}, "c": 3}
    larger = type("Growing", (Block,), body)
    with pytest.raises(BlockDataError) as caught:
        larger.load("x")
    assert str(caught.value) == (
        "block growing/x cannot be read: class Growing needs b, not saved with it"
    )


def test_an_error_of_the_users_own_class_stays_and_gets_a_note() -> None:
    strict = [False]

    class Picky(Block):
        value: int

        def __attrs_post_init__(self) -> None:
            super().__attrs_post_init__()
            if strict[0]:
                raise LookupError("no")

    Picky(value=1).save("x")
    strict[0] = True
    with pytest.raises(LookupError) as caught:
        Picky.load("x")
    assert caught.value.__notes__ == ["while loading block picky/x"]


def test_another_store_is_used_inside_of_a_block_only(home: Path) -> None:
    with use_store(MemoryStore()):
        String(value="s").save("x")
        assert String.load("x").value == "s"
        with pytest.raises(BlockNotFoundError, match="in memory"):
            String.load("y")
    assert Block.names() == []
    assert not home.exists()


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
def test_files_are_for_their_owner_only(home: Path) -> None:
    Secret(value="s").save("x")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()}
    assert modes == {"blocks.sqlite3": 0o600, "secret.key": 0o600}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


# secret fields


def test_secret_fields_are_known_by_their_annotation() -> None:
    class Several(Block):
        one: SecretStr
        some: list[SecretStr]
        named: "dict[str, SecretStr | None]"
        pair: tuple[SecretStr, ...] = ()
        maybe: SecretStr | None = None
        plain: str = ""

    block = Several(one="1", some=["2"], named={"a": "3", "b": None}, pair=("4",))
    assert block.some == [SecretStr("2")]
    assert block.named == {"a": SecretStr("3"), "b": None}
    assert block.pair == (SecretStr("4"),)
    assert repr(block) == (
        "Several(one='**********', some='**********', named='**********',"
        " pair='**********', maybe=None, plain='')"
    )
    block.save("x")
    loaded = Several.load("x")
    assert loaded == attrs.evolve(block, pair=[SecretStr("4")])


def test_an_annotation_that_cannot_be_evaluated_is_read_as_text() -> None:
    class Text(Block):
        token: "SecretStr | NeverImported"

    assert repr(Text(token="t")) == "Text(token='**********')"


def test_a_secret_that_is_assigned_later_is_masked_and_encrypted(home: Path) -> None:
    for block in (Database(host="h"), Decorated("h", SecretStr("t"))):
        field = "password" if isinstance(block, Database) else "token"
        setattr(block, field, "canary-1")
        assert "canary-1" not in repr(block)
        block.save("x")
        assert b"canary-1" not in (home / "blocks.sqlite3").read_bytes()


def test_a_secret_that_is_no_text_is_masked_and_encrypted(home: Path) -> None:
    class Pin(Block):
        pin: SecretStr | int

    block = Pin(pin=471147114711)
    assert "4711" not in repr(block)
    block.save("x")
    assert b"4711" not in (home / "blocks.sqlite3").read_bytes()
    assert Pin.load("x").pin == 471147114711


def test_a_type_that_forgets_to_wrap_still_stores_no_plain_secret(home: Path) -> None:
    class Forgetful(Block):
        token: SecretStr

        def __attrs_post_init__(self) -> None:
            """Do not call the base's."""

    Forgetful(token="canary-1").save("x")
    assert b"canary-1" not in (home / "blocks.sqlite3").read_bytes()


# the system's types


def test_string_holds_text_only() -> None:
    with pytest.raises(BlockFieldError, match="value of String must be text, not int"):
        String(value=3)


def test_secret_gives_its_text_when_asked() -> None:
    Secret(value="s").save("x")
    assert Secret.load("x").get() == "s"
    assert Secret(value=SecretStr("s")) == Secret(value="s")
    with pytest.raises(BlockFieldError, match="value of Secret must be text") as caught:
        Secret(value=4711)
    assert "4711" not in str(caught.value)


def test_date_time_takes_iso_text() -> None:
    block = DateTime(value="2026-01-31T08:00:00+00:00")
    block.save("x")
    assert DateTime.load("x").value == datetime.fromisoformat(
        "2026-01-31T08:00:00+00:00"
    )
    for wrong in ("yesterday", 3, None):
        with pytest.raises(BlockFieldError, match="ISO 8601"):
            DateTime(value=wrong)


def test_errors_survive_pickling_and_are_the_librarys() -> None:
    for error in (
        BlockNameError("a", "b"), BlockExistsError("a"), BlockNotFoundError("a", "b"),
        BlockFieldError("a", "b", "c"), BlockDataError("a", "b"),
    ):  # fmt: skip
        copied = pickle.loads(pickle.dumps(error))
        assert str(copied) == str(error)
        assert isinstance(copied, EngineError)
