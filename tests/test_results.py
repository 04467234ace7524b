"""Keeping results: stores, files, serializers, and what must not be trusted."""

import itertools
import math
import os
import pickle
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import pytest
import structlog.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROOT

from engine.files import DRAFT_MARK
from engine.results import (
    FileResultStore,
    MemoryResultStore,
    ResultKeyError,
    ResultRecord,
    UnstorableResultError,
    home_store,
    use_result_store,
)
from engine.results import files as files_module
from engine.results.current import memory_store
from engine.results.exceptions import UnreadableResultError
from engine.results.files import DRAFT_LIFE, LOOKS, checksum, compose, parse
from engine.results.serializers import (
    CopySerializer,
    JsonSerializer,
    PickleSerializer,
)
from engine.settings import temporary_settings

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
OTHER_KEY = "HxECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHgA="


def record(key: str = "key", payload: bytes = b"1", **facts: Any) -> ResultRecord:
    """Make a record."""
    return ResultRecord(
        **{
            "key": key,
            "payload": payload,
            "serializer": "json",
            "task": "task",
            "run_id": "run-1",
            "created_at": 1.5,
            **facts,
        }
    )


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Give an ENGINE_HOME of its own, with a key in the settings."""
    with temporary_settings(home=tmp_path / "home", secret_key=KEY):
        yield tmp_path / "home"


class TestMemory:
    def test_it_gives_back_what_was_written(self) -> None:
        """Until it is replaced or deleted."""
        store = MemoryResultStore()
        assert store.read("key") is None
        store.write(record())
        store.write(record(payload=b"2"))
        assert store.read("key") == record(payload=b"2")
        store.delete("key")
        store.delete("key")
        assert store.read("key") is None

    def test_what_was_not_used_for_longest_makes_room(self) -> None:
        """Reading counts as use."""
        store = MemoryResultStore(limit=2)
        store.write(record("a"))
        store.write(record("b"))
        store.read("a")
        store.write(record("c"))
        assert [store.read(key) is not None for key in "abc"] == [True, False, True]
        assert len(store) == 2

    def test_a_limit_of_nothing_is_refused(self) -> None:
        """There would be no store."""
        with pytest.raises(ValueError, match="limit must be >= 1, got 0"):
            MemoryResultStore(limit=0)

    def test_an_empty_store_is_a_store(self) -> None:
        """One that was given is used, though it holds nothing yet."""
        mine = MemoryResultStore()
        with use_result_store(mine):
            assert memory_store() is mine
            assert home_store() is mine
        assert memory_store() is not mine


def keys_side_by_side(store: FileResultStore, count: int) -> list[str]:
    """Return keys whose files are in one folder."""
    keys = (f"key-{number}" for number in itertools.count())
    folder = store.path_of("key").parent
    beside = (key for key in keys if store.path_of(key).parent == folder)
    return list(itertools.islice(beside, count))


class TestFiles:
    def test_it_gives_back_what_was_written(self, tmp_path: Path) -> None:
        """Also to another store of the same folder; every fact of it."""
        store = FileResultStore(tmp_path / "results")
        assert store.read("key") is None
        full = record(payload=b"\0\n\xff{}", expires_at=2.25, task="Tä\nsk")
        store.write(full)
        assert FileResultStore(tmp_path / "results").read("key") == full
        store.write(record())
        assert store.read("key") == record()
        store.delete("key")
        store.delete("key")
        assert store.read("key") is None

    def test_any_text_is_a_key(self, tmp_path: Path) -> None:
        """Slashes, dots, half characters and novels are file names to nobody."""
        store = FileResultStore(tmp_path / "results")
        keys = ["../../etc/passwd", "", "\0", "\udcff", "a" * 10_000, "ä", "Ä", "."]
        for key in keys:
            store.write(record(key))
        assert [store.read(key) for key in keys] == [record(key) for key in keys]
        assert {path.parent.parent for path in tmp_path.rglob("*.result")} == {
            tmp_path / "results"
        }

    def test_nothing_is_made_before_the_first_result(self, tmp_path: Path) -> None:
        """Reading and deleting leave no trace."""
        store = FileResultStore(tmp_path / "home" / "results")
        store.read("key")
        store.delete("key")
        assert not (tmp_path / "home").exists()

    @pytest.mark.skipif(os.name != "posix", reason="Windows has no such bits")
    def test_files_are_for_their_owner_only(self, tmp_path: Path) -> None:
        """Whatever the umask is, and so are their folders, and those above."""
        before = os.umask(0)
        try:
            store = FileResultStore(tmp_path / "home" / "results")
            store.write(record())
        finally:
            os.umask(before)
        modes = {
            path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")
        }
        assert modes.pop(store.path_of("key")) == 0o600
        assert len(modes) == 3
        assert set(modes.values()) == {0o700}

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"", "not a result"),
            (b"something else", "not a result"),
            (b"engine-result 2\nabc", "not a result"),
            (b"engine-result 1", "damaged"),
            (b"engine-result 1\n00\n{}", "damaged"),
        ],
    )
    def test_a_foreign_file_is_a_miss(
        self, tmp_path: Path, content: bytes, problem: str
    ) -> None:
        """And a warning that names it."""
        store = FileResultStore(tmp_path)
        path = store.path_of("key")
        path.parent.mkdir()
        path.write_bytes(content)
        assert_unreadable(store, path, problem)

    @settings(max_examples=60)
    @given(st.data())
    def test_a_damaged_file_is_a_miss(self, data: st.DataObject) -> None:
        """Whichever byte was changed, and wherever it was cut short."""
        whole = compose(record(payload=b'{"a":[1,2]}', expires_at=9.0))
        position = data.draw(st.integers(0, len(whole) - 1))
        if data.draw(st.booleans()):
            broken = whole[:position]
        else:
            change = data.draw(st.integers(1, 255))
            changed = bytes([whole[position] ^ change])
            broken = whole[:position] + changed + whole[position + 1 :]
        with pytest.raises(UnreadableResultError):
            parse(broken, "key")

    @pytest.mark.parametrize(
        "header",
        [
            b"[]", b"1", b"{", b"[" * 100_000, b'{"key": "key"}',
            b'{"key": 1, "serializer": "json", "task": "", "run_id": "",'
            b' "created_at": 1, "expires_at": null}',
        ],
    )  # fmt: skip
    def test_a_header_that_is_none_is_a_miss(
        self, tmp_path: Path, header: bytes
    ) -> None:
        """Although the checksum is right: somebody else wrote it."""
        store = FileResultStore(tmp_path)
        rest = header + b"\n1"
        content = b"\n".join((b"engine-result 1", checksum(rest), rest))
        store.path_of("key").parent.mkdir()
        store.path_of("key").write_bytes(content)
        assert_unreadable(store, store.path_of("key"), "header")

    def test_the_result_of_another_key_is_a_miss(self, tmp_path: Path) -> None:
        """A file that was renamed is not taken for what its name says."""
        store = FileResultStore(tmp_path)
        store.write(record("other"))
        store.path_of("key").parent.mkdir()
        store.path_of("other").rename(store.path_of("key"))
        assert_unreadable(store, store.path_of("key"), "another key")

    def test_what_cannot_be_opened_is_a_miss(self, tmp_path: Path) -> None:
        """A folder in the place of the file, for one."""
        store = FileResultStore(tmp_path)
        store.path_of("key").mkdir(parents=True)
        assert_unreadable(store, store.path_of("key"), "")

    def test_what_cannot_be_written_leaves_no_draft(self, tmp_path: Path) -> None:
        """The error goes on, and the folder is as before."""
        store = FileResultStore(tmp_path)
        store.path_of("key").mkdir(parents=True)
        with pytest.raises(IsADirectoryError):
            store.write(record())
        assert list(tmp_path.rglob("*.*")) == [store.path_of("key")]

    def test_what_has_expired_goes_when_something_is_written_beside_it(
        self, tmp_path: Path
    ) -> None:
        """What may still be used stays, and so does what is no result of ours."""
        store = FileResultStore(tmp_path)
        old, new, fresh, lasting = keys_side_by_side(store, 4)
        store.write(record(fresh, expires_at=time.time() + 1000))
        store.write(record(lasting))
        foreign = store.path_of(old).with_name("notes.txt")
        foreign.write_text("not a result")
        store.write(record(old, expires_at=time.time() - 1))
        assert store.path_of(old).exists(), "nothing else was written since"
        store.write(record(new))
        assert not store.path_of(old).exists()
        kept = [store.path_of(key) for key in (new, fresh, lasting)]
        assert set(store.path_of(old).parent.iterdir()) == {foreign, *kept}

    def test_drafts_of_killed_processes_go_in_time(self, tmp_path: Path) -> None:
        """One that is young may be being written at this moment."""
        store = FileResultStore(tmp_path)
        path = store.path_of("key")
        path.parent.mkdir()
        old, young = (path.with_name(f"{path.name}{DRAFT_MARK}{x}") for x in "ab")
        for draft in (old, young):
            draft.write_bytes(b"half a res")
        os.utime(old, (0, time.time() - DRAFT_LIFE - 1))
        store.write(record())
        assert set(path.parent.iterdir()) == {path, young}

    def test_writing_looks_at_a_few_files_only(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many there are, and whatever became of them meanwhile."""
        store = FileResultStore(tmp_path)
        keys = keys_side_by_side(store, 2 * LOOKS)
        looked: list[Path] = []

        def vanished(path: Path) -> float:
            looked.append(path)
            raise FileNotFoundError

        monkeypatch.setattr(files_module, "useless_at", vanished)
        for key in keys:
            store.write(record(key))
        looked.clear()
        store.write(record(keys[0]))
        assert len(looked) == LOOKS

    def test_readers_never_see_a_part(self, tmp_path: Path) -> None:
        """Threads that read while others write get whole results only."""
        store = FileResultStore(tmp_path)
        payloads = [bytes([i]) * 50_000 for i in range(4)]
        store.write(record(payload=payloads[0]))
        found: list[ResultRecord | None] = []

        def write(payload: bytes) -> None:
            for _ in range(20):
                store.write(record(payload=payload))

        def read() -> None:
            found.extend(store.read("key") for _ in range(100))

        threads = [threading.Thread(target=write, args=[p]) for p in payloads]
        threads.append(threading.Thread(target=read))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(one is not None and one.payload in payloads for one in found)
        assert [path.suffix for path in tmp_path.rglob("*.*")] == [".result"]

    def test_two_processes_share_a_folder(self, tmp_path: Path) -> None:
        """What one has kept, the other finds; both write at once and nothing breaks."""
        program = (
            "import sys\n"
            "from pathlib import Path\n"
            "from engine.results import FileResultStore, ResultRecord\n"
            "store, own = FileResultStore(Path(sys.argv[1])), sys.argv[2]\n"
            "for i in range(50):\n"
            "    for key in ('shared', own):\n"
            "        store.write(ResultRecord(key=key, payload=own.encode() * 1000,\n"
            "            serializer='json', task='t', run_id='r', created_at=1.0))\n"
            "    assert store.read('shared') is not None\n"
        )
        processes = [
            subprocess.Popen(
                [sys.executable, "-W", "error", "-c", program, str(tmp_path), name],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            for name in "ab"
        ]
        assert [process.wait(20) for process in processes] == [0, 0]
        store = FileResultStore(tmp_path)
        own = [store.read(name) for name in "ab"]
        assert [one and one.payload for one in own] == [b"a" * 1000, b"b" * 1000]
        shared = store.read("shared")
        assert shared is not None
        assert shared.payload in (b"a" * 1000, b"b" * 1000)

    def test_the_home_store_is_below_the_home(self, home: Path) -> None:
        """In a folder that is made with the first result."""
        home_store().write(record())
        (path,) = home.rglob("*.result")
        assert path.parent.parent == home / "results"


def assert_unreadable(store: FileResultStore, path: Path, problem: str) -> None:
    """Check that a file is a miss, with a warning that names it."""
    with structlog.testing.capture_logs() as lines:
        assert store.read("key") is None
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("result_unreadable", "warning")
    assert line["path"] == str(path)
    assert problem in line["problem"]


def test_a_record_expires() -> None:
    """At its time, and never without one."""
    assert not record().is_expired
    assert record(expires_at=time.time() - 1).is_expired
    assert not record(expires_at=time.time() + 60).is_expired


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | st.timedeltas()
    | st.datetimes(timezones=st.none() | st.just(UTC)).filter(lambda at: not at.fold)
    | st.times().filter(lambda at: not at.fold)
    | st.complex_numbers(allow_nan=False)
)
KEYS = st.text() | st.integers() | st.tuples(st.text()) | st.sampled_from(["$set", "$"])
VALUES = st.recursive(
    PLAIN,
    lambda items: (
        st.lists(items)
        | st.lists(items).map(tuple)
        | st.dictionaries(KEYS, items)
        | st.sets(st.integers() | st.text())
        | st.frozensets(st.integers() | st.binary())
    ),
    max_leaves=20,
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same types, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=True)
        return len(one) == len(other) and all(same(a, b) for a, b in pairs)
    return bool(one == other)


class TestJson:
    @given(VALUES)
    def test_what_is_kept_comes_back_as_it_was(self, value: Any) -> None:
        """Equal, and of exactly the same types, however nested."""
        serializer = JsonSerializer()
        again = serializer.load(serializer.dump(value, "key", "task"), "key")
        assert same(again, value)

    @pytest.mark.parametrize(
        "value",
        [
            math.nan, -math.inf, Path("a/b"), clock(1, 2, 3), UUID(int=1),
            datetime(2025, 1, 1, tzinfo=timezone(timedelta(hours=2))), date(1, 1, 1),
            Decimal("1.50"), "\udcff", {"$tuple": 1}, {1: 2, "1": 3}, b"\0",
        ],
        ids=repr,
    )  # fmt: skip
    def test_odd_values_come_back_too(self, value: Any) -> None:
        """What JSON has no word for, and what looks like a tag."""
        serializer = JsonSerializer()
        again = serializer.load(serializer.dump(value, "key", "task"), "key")
        assert (type(again), repr(again)) == (type(value), repr(value))

    @pytest.mark.parametrize(
        ("value", "where", "problem"),
        [
            (object(), "the result", "an object"),
            ({"a": [1, {2, object}]}, "['a'][1]", "a type"),
            ([{"a": {7: print}}], "[0]['a'][7]", "a builtin_function_or_method"),
            (True.__class__, "the result", "a type"),
            (bytearray(b"x"), "the result", "a bytearray"),
            (Decimal, "the result", "a type"),
            (
                datetime(2025, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
                "the result",
                "zone or fold",
            ),
            (datetime(2025, 1, 1, fold=1), "the result", "zone or fold"),
        ],
    )
    def test_what_would_not_come_back_is_refused(
        self, value: Any, where: str, problem: str
    ) -> None:
        """The error names the task, the place, what is there and the ways out."""
        with pytest.raises(UnstorableResultError) as raised:
            JsonSerializer().dump(value, "key", "my-task")
        text = str(raised.value)
        for part in ("'my-task'", where, problem, "result_serializer='pickle'"):
            assert part in text

    def test_a_number_that_is_too_long_is_refused(self) -> None:
        """Python itself would not read it again."""
        with pytest.raises(UnstorableResultError, match="something odd"):
            JsonSerializer().dump([10**5000], "key", "task")

    def test_what_holds_itself_is_refused(self) -> None:
        """And so is what is nested without end."""
        loop: list[Any] = []
        loop.append(loop)
        with pytest.raises(UnstorableResultError, match="nested too deeply"):
            JsonSerializer().dump(loop, "key", "task")

    def test_a_subclass_is_not_taken_for_its_base(self) -> None:
        """It would come back as something else."""

        class Special(str):
            __slots__ = ()

        with pytest.raises(UnstorableResultError, match="Special"):
            JsonSerializer().dump([Special("x")], "key", "task")

    @pytest.mark.parametrize(
        "payload",
        [
            b"", b"{", b"\xff", b'{"$nope": 1}', b'{"$set": 1, "x": 2}', b"[" * 100_000,
            b'{"$decimal": "x"}', b'{"$decimal": 1}', b'{"$set": 1}', b'{"$set": [[]]}',
            b'{"$dict": [1]}', b'{"$dict": [[[], 1]]}', b'{"$dict": 1}',
            b'{"$uuid": "x"}', b'{"$windows-path": "x"}', b'{"$bytes": "\\u00e4"}',
            b'{"$timedelta": "1,2,3,4,5,6,7,8"}', b'{"$datetime": [1]}',
            b'{"$timedelta": "9999999999,0,0"}', b'{"$float": []}',
        ],
    )  # fmt: skip
    def test_what_was_not_written_by_us_is_a_miss(self, payload: bytes) -> None:
        """Whatever is wrong with it, it is one kind of error."""
        with pytest.raises(UnreadableResultError, match="damaged"):
            JsonSerializer().load(payload, "key")

    @given(st.binary() | st.text().map(str.encode))
    def test_no_payload_raises_anything_else(self, payload: bytes) -> None:
        """Any bytes are a value, or that error."""
        with suppress(UnreadableResultError):
            JsonSerializer().load(payload, "key")


class Bomb:
    """Leaves a trace when it is unpickled."""

    exploded = False

    def __reduce__(self) -> Any:
        return explode, ()


def explode() -> None:
    """Note that code of a pickle was run."""
    Bomb.exploded = True


class Vanishing:
    """Pickles, and does not unpickle."""

    def __reduce__(self) -> Any:
        return fail_to_unpickle, ()


def fail_to_unpickle() -> None:
    """Be a class that is not there any more."""
    raise ImportError("gone")


@pytest.mark.usefixtures("home")
class TestPickle:
    def test_what_is_kept_comes_back(self) -> None:
        """Objects of any class included."""
        serializer = PickleSerializer()
        value = {"x": Decimal(1), "y": [range(3), Bomb]}
        assert serializer.load(serializer.dump(value, "key", "task"), "key") == value

    def test_nothing_is_unpickled_that_we_did_not_sign(self) -> None:
        """A file that anybody could have written runs no code."""
        bomb = pickle.dumps(Bomb())
        ours = PickleSerializer().dump(1, "key", "task")
        for payload in (bomb, b"\0" * 32 + bomb, ours[:32] + bomb, b"", ours[:-1]):
            with pytest.raises(UnreadableResultError, match="signature"):
                PickleSerializer().load(payload, "key")
        assert not Bomb.exploded

    def test_the_signature_is_for_one_key(self) -> None:
        """A signed result cannot be put in the place of another."""
        payload = PickleSerializer().dump(1, "key", "task")
        with pytest.raises(UnreadableResultError, match="signature"):
            PickleSerializer().load(payload, "other")

    def test_keys_are_rotated_like_those_of_secrets(self) -> None:
        """The first key signs, all of them are good for checking."""
        with temporary_settings(secret_key=OTHER_KEY):
            payload = PickleSerializer().dump(1, "key", "task")
        with pytest.raises(UnreadableResultError):
            PickleSerializer().load(payload, "key")
        with temporary_settings(secret_key=f"{KEY},{OTHER_KEY}"):
            assert PickleSerializer().load(payload, "key") == 1

    def test_what_does_not_pickle_is_refused(self) -> None:
        """The error names the task and what is in the way."""
        with pytest.raises(UnstorableResultError, match=r"'task'.* a function that"):
            PickleSerializer().dump(lambda: 1, "key", "task")

    def test_what_does_not_unpickle_any_more_is_a_miss(self) -> None:
        """Its class may be gone since."""
        payload = PickleSerializer().dump(Vanishing(), "key", "task")
        with pytest.raises(UnreadableResultError, match="does not unpickle"):
            PickleSerializer().load(payload, "key")


class TestKeyFile:
    def test_a_key_is_made_when_first_needed(self, tmp_path: Path) -> None:
        """In ENGINE_HOME, and it is the one from then on."""
        with temporary_settings(home=tmp_path, secret_key=None):
            payload = PickleSerializer().dump([1], "key", "task")
            assert PickleSerializer().load(payload, "key") == [1]
            assert (tmp_path / "secret.key").exists()

    def test_without_the_key_nothing_is_read(self, tmp_path: Path) -> None:
        """It is a miss that says why, and no key is made for it."""
        with temporary_settings(home=tmp_path, secret_key=None):
            with pytest.raises(
                UnreadableResultError, match="cannot be signed or check"
            ):
                PickleSerializer().load(b"\0" * 40, "key")
            assert list(tmp_path.iterdir()) == []

    def test_a_key_that_others_may_read_is_refused(self, tmp_path: Path) -> None:
        """Nothing is signed with it."""
        path = tmp_path / "secret.key"
        path.write_text(KEY)
        path.chmod(0o644)
        with (
            temporary_settings(home=tmp_path, secret_key=None),
            pytest.raises(ResultKeyError, match="chmod 600"),
        ):
            PickleSerializer().dump(1, "key", "task")


class TestCopies:
    def test_nobody_sees_what_others_do_to_a_result(self) -> None:
        """Neither who gave it nor who got it before."""
        serializer, value = CopySerializer(), [[1]]
        kept = serializer.dump(value, "key", "task")
        value[0].append(2)
        serializer.load(kept, "key")[0].append(3)
        assert serializer.load(kept, "key") == [[1]]

    def test_what_cannot_be_copied_is_refused(self) -> None:
        """A lock, for one."""
        with pytest.raises(UnstorableResultError, match="a lock that cannot be copied"):
            CopySerializer().dump(threading.Lock(), "key", "task")


def test_errors_survive_pickling() -> None:
    """They keep their facts, and so their text."""
    for error in (
        UnstorableResultError("task", "[0]", "a lock", "do something"),
        ResultKeyError("gone"),
        UnreadableResultError("broken"),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error)
        assert attrs.asdict(again) == attrs.asdict(error)
