"""The stores: one behaviour for both, and what a file can suffer."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PureWindowsPath
from uuid import UUID, uuid4

import pytest

from engine.blocks import Block, BlockStore, MemoryStore
from engine.blocks import sqlite as sqlite_module
from engine.blocks.exceptions import BlockDataError, BlockStoreError
from engine.blocks.names import Reference
from engine.blocks.sqlite import SCHEMA_VERSION, SqliteStore, uri_of
from engine.blocks.system import Secret, String
from engine.settings import temporary_settings

X = Reference("string", "x")
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlockStore:
    if request.param == "memory":
        return MemoryStore()
    return SqliteStore(tmp_path / "deep" / "er" / "blocks.sqlite3")


@pytest.fixture
def path(home: Path) -> Path:
    """The file of the default store, with the block string/x in it."""
    String(value="s").save("x")
    return home / "blocks.sqlite3"


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


# both stores


def test_what_is_put_can_be_got(store: BlockStore) -> None:
    block_id = store.put(X, "{}", overwrite=False)
    stored = store.get(X)
    assert stored is not None
    assert (stored.id, stored.reference, stored.data) == (block_id, X, "{}")
    assert stored.created_at == stored.updated_at


def test_an_empty_store_has_nothing(store: BlockStore) -> None:
    assert store.get(X) is None
    assert store.references() == []
    assert not store.delete(X)
    assert not store.delete_by_id(uuid4())


def test_a_taken_name_is_kept_unless_overwritten(store: BlockStore) -> None:
    first = store.put(X, "1", overwrite=True)
    assert store.put(X, "2", overwrite=False) is None
    before = store.get(X)
    assert store.put(X, "3", overwrite=True) == first
    after = store.get(X)
    assert before is not None
    assert after is not None
    assert (before.data, after.data) == ("1", "3")
    assert before.created_at == after.created_at <= after.updated_at


def test_a_block_is_deleted_by_name_or_id(store: BlockStore) -> None:
    store.put(X, "1", overwrite=False)
    assert store.delete(X)
    assert not store.delete(X)
    block_id = store.put(X, "1", overwrite=False)
    assert block_id is not None
    assert store.delete_by_id(block_id)
    assert not store.delete_by_id(block_id)


def test_references_are_sorted_and_can_be_of_one_type(store: BlockStore) -> None:
    for reference in (Reference("b", "y"), Reference("a", "z"), Reference("b", "x")):
        store.put(reference, "", overwrite=False)
    assert list(map(str, store.references())) == ["a/z", "b/x", "b/y"]
    assert list(map(str, store.references("b"))) == ["b/x", "b/y"]
    assert store.references("c") == []


def test_data_is_changed_only_if_nobody_else_has(store: BlockStore) -> None:
    store.put(X, "1", overwrite=False)
    stored = store.get(X)
    assert stored is not None
    assert store.change(stored, "2")
    assert not store.change(stored, "3")
    changed = store.get(X)
    assert changed is not None
    assert changed.data == "2"
    store.delete(X)
    assert not store.change(changed, "4")


# the file


def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    execute(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    for use in (
        lambda: String.load("x"),
        lambda: String(value="s").save("y"),
        lambda: String.delete("x"),
        Block.names,
    ):
        with pytest.raises(BlockStoreError, match="newer version of engine") as caught:
            use()
        assert caught.value.path == path


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE t (x)", "PRAGMA user_version = 1", "PRAGMA application_id = 7"],
)
def test_another_programs_database_is_not_touched(home: Path, statement: str) -> None:
    home.mkdir()
    execute(home / "blocks.sqlite3", statement)
    before = (home / "blocks.sqlite3").read_bytes()
    with pytest.raises(BlockStoreError, match="another program's database"):
        String(value="s").save("x")
    with pytest.raises(BlockStoreError, match="loading block string/x failed"):
        String.load("x")
    assert (home / "blocks.sqlite3").read_bytes() == before


def test_a_file_that_is_no_database_is_an_error_that_names_it(home: Path) -> None:
    home.mkdir()
    (home / "blocks.sqlite3").write_bytes(b"no database" * 100)
    with pytest.raises(BlockStoreError, match="file is not a database") as caught:
        String.load("x")
    assert str(home / "blocks.sqlite3") in str(caught.value)


def test_a_damaged_page_is_an_error_that_names_the_file(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    path.write_bytes(content)
    with pytest.raises(BlockStoreError):
        String.load("x")


def test_an_empty_file_is_an_empty_store(home: Path) -> None:
    """As one that another process has created and not yet written."""
    home.mkdir()
    (home / "blocks.sqlite3").touch()
    assert Block.names() == []
    String(value="s").save("x")
    assert Block.names() == ["string/x"]


def test_a_home_that_cannot_be_made_is_an_error_that_names_the_file(
    home: Path,
) -> None:
    home.write_text("a file, not a folder")
    with pytest.raises(BlockStoreError, match="saving block string/x failed"):
        String(value="s").save("x")
    with pytest.raises(BlockStoreError, match="loading block string/x failed"):
        String.load("x")


def test_a_store_that_is_locked_for_too_long_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "LOCK_TIMEOUT", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BlockStoreError, match="database is locked"):
            String(value="s").save("y")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data = 'nonsense'", "its data is damaged, "),
        ("data = x'ff'", "its data is damaged, "),
        ("data = '[1]'", "its data is not an object"),
        ("data = 7", "its data is not an object"),
        ("""data = '{"value": {"$x": "y"}}'""", "a tag is unknown"),
        ("""data = '{"value": {"$date": "y"}}'""", "$date does not hold what it says"),
        ("""data = '{"value": {"$decimal": "y"}}'""", "$decimal does not hold"),
        ("""data = '{"value": {"$date": 1}}'""", "a tag does not hold text"),
        ("""data = '{"value": {"$date": "y", "a": 1}}'""", "stands beside other"),
        ("data = '" + "[" * 100_000 + "'", "nested too deeply"),
        ("""data = '{"values": "s"}'""", "class String needs value"),
        ("id = 'nonsense'", "the id in its row is damaged"),
        ("id = 7", "the id in its row is damaged"),
        ("created_at = 'nonsense'", "a date in its row is damaged"),
        ("updated_at = 7", "a date in its row is damaged"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_damaged_row_is_an_error_that_names_the_block(
    path: Path, change: str, said: str
) -> None:
    execute(path, f"UPDATE blocks SET {change}")
    with pytest.raises(BlockDataError, match="block string/x cannot be read") as caught:
        String.load("x")
    assert said in str(caught.value)
    assert Block.names() == ["string/x"], "it can still be found"
    String.delete("x")
    assert Block.names() == [], "and removed"


def test_a_row_that_is_no_text_at_all_is_an_error_that_names_the_block(
    path: Path,
) -> None:
    execute(path, "UPDATE blocks SET data = CAST(x'ff' AS TEXT)")
    with pytest.raises(BlockStoreError, match="loading block string/x failed"):
        String.load("x")


def test_overwriting_a_block_with_a_damaged_id_names_it(path: Path) -> None:
    execute(path, "UPDATE blocks SET id = 'nonsense'")
    with pytest.raises(BlockDataError, match="the id in its row"):
        String(value="s").save("x", overwrite=True)


def test_a_failed_write_leaves_the_store_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "uuid4", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        String(value="s").save("y")
    monkeypatch.undo()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM blocks").fetchone() == (1,)


@pytest.mark.parametrize("name", ["a#b?c=d&e", "100% ü", "mode=ro", " "])
def test_any_folder_can_hold_the_store(tmp_path: Path, name: str) -> None:
    with temporary_settings(home=tmp_path / name):
        String(value="s").save("x")
        assert String.load("x").value == "s"
    assert (tmp_path / name / "blocks.sqlite3").exists()


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (r"C:\Users\U #1\blocks.sqlite3", "file:///C:/Users/U%20%231/blocks.sqlite3"),
        (r"\\server\share\blocks.sqlite3", "file:////server/share/blocks.sqlite3"),
    ],
)
def test_paths_of_windows_are_given_to_sqlite_as_it_takes_them(
    path: str, uri: str
) -> None:
    """It refuses a host in its URIs, which a network folder's would be."""
    assert uri_of(PureWindowsPath(path)) == uri  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["con", "nul", "aux", "com1", "lpt1", "-", "prn-1"])
def test_names_that_windows_keeps_for_devices_are_names(name: str) -> None:
    """Blocks are rows, and no file is named after one."""
    Secret(value="s").save(name)
    assert Secret.load(name).get() == "s"
    assert Block.names() == [f"secret/{name}"]


def test_nothing_but_the_store_is_left_behind(path: Path) -> None:
    assert [one.name for one in path.parent.iterdir()] == ["blocks.sqlite3"]


# several processes

CODE = """
import sys
from engine.blocks.exceptions import BlockExistsError
from engine.blocks.system import Secret, String
number = int(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for turn in range(10):
    Secret(value=f"{number}-{turn}").save(f"own-{number}-{turn}")
    String(value=str(number)).save("shared", overwrite=True)
try:
    String(value=str(number)).save("once")
    print("won")
except BlockExistsError:
    print("lost")
"""


@contextlib.contextmanager
def savers(count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that begin to save together."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for number in range(count)
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.enter_context(process)
        yield processes


def test_processes_may_save_at_once_into_a_new_home() -> None:
    """They make the folder, the key and the store together; each save counts."""
    with savers(4) as processes:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        ended = [process.communicate()[0].strip() for process in processes]
    assert sorted(ended) == ["lost", "lost", "lost", "won"]
    for number in range(4):
        for turn in range(10):
            loaded = Block.load(f"secret/own-{number}-{turn}")
            assert loaded.get() == f"{number}-{turn}"  # type: ignore[attr-defined]
    assert String.load("shared").value in "0123"
    assert len(Block.names()) == 42


def test_an_id_is_a_random_uuid() -> None:
    block_id = String(value="s").save("x")
    assert isinstance(block_id, UUID)
    assert block_id.version == 4
