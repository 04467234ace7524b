"""Caching: keys, what they are made of, and tasks that use kept results."""

import dataclasses
import enum
import functools
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

import anyio
import anyio.lowlevel
import attrs
import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT, Way, in_every_way

from engine import Engine, State, flow, runtime, task, transaction
from engine.actors.flights import Flights
from engine.cache_policies import (
    DEFAULT,
    INPUTS,
    NO_CACHE,
    RUN_ID,
    TASK_SOURCE,
    CacheContext,
    CacheKeyError,
    CachePolicy,
    task_input_hash,
)
from engine.fingerprint import NoFingerprintError, fingerprint
from engine.results import (
    FileResultStore,
    MemoryResultStore,
    ResultRecord,
    UnstorableResultError,
    use_result_store,
)
from engine.settings import SecretStr, temporary_settings
from engine.transactions import Transaction

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def memory() -> Iterator[MemoryResultStore]:
    """Keep results of each test apart."""
    store = MemoryResultStore()
    with use_result_store(store):
        yield store


class Colour(enum.Enum):
    RED = 1
    CRIMSON = 2


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Plain:
    x: Any = 1


@attrs.define
class Slotted:
    x: Any = 1


class Model:
    """Stands for pydantic's: it has model_fields, and is iterated over."""

    model_fields: ClassVar[Any] = {"x": None}

    def __init__(self, x: Any) -> None:
        self.x = x

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter([("x", self.x)])


class Text(str):
    """A string with an attribute of its own."""


class Numbers(list[int]):
    """A list with an attribute of its own."""


def with_note(value: Any, note: str) -> Any:
    """Return *value* with an attribute."""
    value.note = note
    return value


HASHABLE = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
)
VALUES = st.recursive(
    HASHABLE | st.decimals() | st.dates() | st.datetimes() | st.uuids(),
    lambda items: (
        st.lists(items)
        | st.lists(items).map(tuple)
        | st.dictionaries(HASHABLE, items)
        | st.frozensets(HASHABLE)
        | items.map(Plain)
        | items.map(Slotted)
    ),
    max_leaves=15,
)


def rebuilt(value: Any) -> Any:
    """Return an equal value that shares nothing, dictionaries and sets reversed."""
    if isinstance(value, list | tuple):
        return type(value)(map(rebuilt, value))
    if isinstance(value, dict):
        return {rebuilt(key): rebuilt(value[key]) for key in reversed(list(value))}
    if isinstance(value, frozenset):
        return frozenset(reversed(list(value)))
    if isinstance(value, Plain | Slotted):
        return type(value)(rebuilt(value.x))
    return value


def written(value: Any) -> Any:
    """Return a text that is the same for values that are: types and contents."""
    kind = type(value).__name__
    if isinstance(value, list | tuple):
        return f"{kind}({', '.join(map(written, value))})"
    if isinstance(value, dict):
        pairs = sorted(f"{written(key)}: {written(value[key])}" for key in value)
        return f"{kind}({', '.join(pairs)})"
    if isinstance(value, frozenset):
        return f"{kind}({', '.join(sorted(map(written, value)))})"
    if isinstance(value, Plain | Slotted):
        return f"{kind}({written(value.x)})"
    return f"{kind}({value!r})"


DIFFERENT = [
    None, True, False, 1, 0, 1.0, -0.0, 0.0, "1", b"1", bytearray(b"1"), 1j, "", b"",
    [], (), {}, set(), frozenset(), [()], ([],), [[]], [1], (1,), {1}, frozenset({1}),
    {1: 2}, {"1": 2}, {1: "2"}, [1, 2], [2, 1], ["1", 2], ["12"], ["1", "2"],
    [["1"], "2"], range(1), range(2), ..., Colour.RED, Colour.CRIMSON, Point(1, 2),
    (1, 2), Plain(), Plain(2), Slotted(), Slotted(2), Model(1), Model(2), int, str,
    Plain, Path("a"), "a", Decimal(1), Decimal("1.0"), Fraction(1), UUID(int=1),
    timedelta(1), datetime(1, 1, 1), datetime(1, 1, 1, tzinfo=UTC),
    datetime(1, 1, 1, fold=1), datetime(1, 1, 1).date(), datetime(1, 1, 1).time(),
    OrderedDict({1: 2}), defaultdict(int, {1: 2}), deque([1]), Counter([1]),
    Text("1"), with_note(Text("1"), "a"), with_note(Text("1"), "b"), Numbers([1]),
    with_note(Numbers([1]), "a"), SecretStr("1"), SecretStr("2"), float("nan"),
    float("inf"), "\udcff", memoryview(b"1"),
]  # fmt: skip


class TestFingerprints:
    @given(VALUES)
    def test_they_are_the_same_for_equal_values(self, value: Any) -> None:
        """However the value was built, and in whatever order."""
        mark = fingerprint(value)
        assert mark == fingerprint(rebuilt(value))
        assert len(mark) == 64

    @given(VALUES, VALUES)
    def test_they_differ_for_different_values(self, one: Any, other: Any) -> None:
        """Equal ones have equal values; a fingerprint never confuses two."""
        assert (fingerprint(one) == fingerprint(other)) is (
            written(one) == written(other)
        )

    def test_they_tell_types_apart(self) -> None:
        """Equal numbers of two types are two values, and so are empty collections."""
        marks = [fingerprint(value) for value in DIFFERENT]
        assert len(set(marks)) == len(DIFFERENT)

    def test_they_have_one_reading(self) -> None:
        """What a value holds cannot be moved over its borders."""
        pairs = [
            (["a", "b"], ["ab"]),
            (["a:1:", "b"], ["a", "1::b"]),
            ({"a": "b"}, {"a", "b"}),
            ([["a"], "b"], [["a", "b"]]),
            ({1: {2: 3}}, {1: 2, 2: 3}),
        ]
        for one, other in pairs:
            assert fingerprint(one) != fingerprint(other)

    def test_they_are_the_same_in_every_process(self) -> None:
        """Whatever seed the process hashes strings with."""
        program = (
            "from engine.fingerprint import fingerprint\n"
            "print(fingerprint([{'b': 1, 'a': {'x', 'y'}}, frozenset('abc'), 1.5]))"
        )
        marks = {
            subprocess.run(
                [sys.executable, "-c", program],
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed in ("1", "2")
        }
        assert len(marks) == 1

    @pytest.mark.parametrize(
        ("value", "path", "problem"),
        [
            (object(), "", "an object"),
            ([1, {"a": (object(),)}], "[1]['a'][0]", "an object"),
            ({object(): 1}, ".keys()", "an object"),
            ({frozenset({print})}, "{}{}", "a builtin_function_or_method"),
            (Plain(lambda: 1), ".x", "a function"),
            (Slotted(threading), ".x", "a module"),
            (Model(iter([])), ".x", "a list_iterator"),
            ([ValueError("x")], "[0]", "a ValueError"),
        ],
    )
    def test_what_has_no_lasting_form_is_refused(
        self, value: Any, path: str, problem: str
    ) -> None:
        """The error says where it is."""
        with pytest.raises(NoFingerprintError) as raised:
            fingerprint(value)
        assert (raised.value.path, raised.value.problem) == (path, problem)

    def test_what_holds_itself_is_refused(self) -> None:
        """Directly or not; what only occurs twice is fine."""
        loop: list[Any] = [{}]
        loop[0]["me"] = loop
        with pytest.raises(NoFingerprintError, match=r"\[0\]\['me'\]: .* holds itself"):
            fingerprint(loop)
        twice = [1]
        assert fingerprint([twice, twice]) == fingerprint([[1], [1]])

    def test_endless_nesting_is_refused(self) -> None:
        """Rather than ending in a RecursionError, in whichever call that comes."""
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]

        def look(calls_between: int) -> str:
            return look(calls_between - 1) if calls_between else fingerprint(deep)

        for calls_between in range(12):
            with pytest.raises(NoFingerprintError, match="too many levels"):
                look(calls_between)

    def test_classes_of_functions_are_refused(self) -> None:
        """There are many of one name."""

        class Local:
            pass

        with pytest.raises(NoFingerprintError, match="a class defined in a function"):
            fingerprint([Local])

    def test_objects_that_raise_are_refused(self) -> None:
        """Whatever a property, a repr or an iteration of the user's does."""

        @dataclasses.dataclass
        class Broken:
            x: int = 0

            def __getattribute__(self, name: str) -> Any:
                raise LookupError("broken")

        class BadText(str):
            def __repr__(self) -> str:
                raise LookupError

        with pytest.raises(NoFingerprintError, match="Broken that cannot be looked"):
            fingerprint([Broken()])
        with pytest.raises(NoFingerprintError, match="its __repr__ failed"):
            fingerprint({BadText("x"): object()})

    def test_what_pretends_to_be_something_else_is_not(self) -> None:
        """A proxy's __class__ is not believed."""

        class Proxy:
            @property
            def __class__(self) -> Any:
                return int

        with pytest.raises(NoFingerprintError, match=r"a .*Proxy"):
            fingerprint(Proxy())

    def test_attributes_that_are_not_set_are_part_of_it(self) -> None:
        """An attrs class may have some without a value."""

        @attrs.define
        class Partial:
            x: int = attrs.field(init=False)

        unset, given_ = Partial(), Partial()
        given_.x = 1
        assert fingerprint(unset) != fingerprint(given_)


def make_context(parameters: dict[str, Any], **facts: Any) -> CacheContext:
    """Make what keys are made of."""
    given_task = facts.pop("task", None) or task(lambda: None)
    return CacheContext(
        task=given_task,
        task_run=facts.pop("task_run", None),
        parameters=parameters,
        flow_run_id=facts.pop("flow_run_id", "flow-1"),
    )


class TestPolicies:
    @given(st.dictionaries(st.text(), VALUES), st.dictionaries(st.text(), VALUES))
    def test_inputs_are_the_arguments(self, one: Any, other: Any) -> None:
        """Equal arguments give equal keys in any order; a key stands for one call."""
        key = INPUTS.compute_key(make_context(one))
        again = INPUTS.compute_key(make_context(rebuilt(one)))
        assert key == again
        if INPUTS.compute_key(make_context(other)) == key:
            assert fingerprint(one) == fingerprint(other)

    @given(st.from_type(object) | VALUES)
    def test_any_argument_gives_a_key_or_a_clear_error(self, value: Any) -> None:
        """Never an error from inside."""
        try:
            key = INPUTS.compute_key(make_context({"name": value}))
        except CacheKeyError as error:
            key = str(error)
            assert "'name'" in key  # it need not be raised
        assert key

    @given(
        made=st.text() | st.none() | st.integers() | st.binary(), persists=st.booleans()
    )
    def test_whatever_a_function_makes_is_a_key_or_a_clear_error(
        self, made: Any, persists: bool
    ) -> None:
        """A text finds the result again; anything else is said to be none."""
        counting = Counter[str]()

        @task(cache_key_fn=lambda _context, _parameters: made, persist_result=persists)
        def count() -> int:
            counting["calls"] += 1
            return counting["calls"]

        with (
            tempfile.TemporaryDirectory() as folder,
            use_result_store(
                FileResultStore(Path(folder)) if persists else MemoryResultStore()
            ),
        ):
            states = [count(return_state=True) for _ in range(2)]
        if isinstance(made, str) and made:
            assert [(s.name, s.data) for s in states] == [
                ("Completed", 1),
                ("Cached", 1),
            ]
        elif made is None:
            assert [s.data for s in states] == [1, 2]
        else:
            assert "the cache key of task 'count' must" in str(states[0].message)
            assert counting["calls"] == 0

    def test_parameters_can_be_left_out(self) -> None:
        """One or many, of one policy or of several together."""
        here = make_context({"a": 1, "b": object(), "c": print})
        assert (INPUTS - "b" - "c").compute_key(here)
        assert (DEFAULT - ["b", "c"]).compute_key(here)
        assert repr(INPUTS - "b" - "c") == "INPUTS - 'b' - 'c'"
        with pytest.raises(CacheKeyError, match="parameter 'b' holds an object"):
            INPUTS.compute_key(here)
        with pytest.raises(TypeError, match="RUN_ID has no parameters"):
            RUN_ID - "b"

    def test_policies_add_up(self) -> None:
        """Each part tells runs apart; NO_CACHE adds nothing."""
        one, two = make_context({"a": 1}), make_context({"a": 2})
        other = make_context({"a": 1}, flow_run_id="flow-2")
        both = INPUTS + RUN_ID
        keys = [both.compute_key(context) for context in (one, two, other)]
        assert len(set(keys)) == 3
        assert both.compute_key(one) == keys[0]
        assert NO_CACHE.compute_key(one) is None
        assert (NO_CACHE + NO_CACHE).compute_key(one) is None
        assert (NO_CACHE + INPUTS).compute_key(one) != (
            (NO_CACHE + INPUTS).compute_key(two)
        )
        assert repr(DEFAULT) == "INPUTS + TASK_SOURCE + RUN_ID"
        with pytest.raises(TypeError):
            INPUTS + "inputs"  # type: ignore[operator]

    def test_the_source_is_the_text_of_the_function(self) -> None:
        """Not where it stands; two texts give two keys."""

        def first() -> int:
            return 1

        def make() -> Any:
            def first() -> int:
                return 1

            return first

        def second() -> int:
            return 2

        keys = [
            TASK_SOURCE.compute_key(make_context({}, task=task(fn)))
            for fn in (first, make(), second)
        ]
        assert keys[0] == keys[1] != keys[2]

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("lambda: 1", "lambda: 2"),
            ("lambda: {'a', 'b'}", "lambda: {'a', 'c'}"),
            ("lambda: (lambda: 1)", "lambda: (lambda: 2)"),
            ("lambda: len", "lambda: max"),
        ],
    )
    def test_a_function_without_text_has_its_bytecode(
        self, one: str, other: str
    ) -> None:
        """As in a shell, or where only compiled files are."""
        keys = [
            TASK_SOURCE.compute_key(make_context({}, task=task(eval(text))))
            for text in (one, one, other)
        ]
        assert keys[0] == keys[1] != keys[2]

    def test_callables_without_code_have_a_source_too(self) -> None:
        """It is just always the same."""
        for fn in (len, functools.partial(len), Adder(1)):
            context = make_context({}, task=task(fn))
            assert isinstance(TASK_SOURCE.compute_key(context), str)

    def test_the_run_is_the_flows_or_its_own(self) -> None:
        """Outside of flows every run differs."""

        @task(cache_policy=RUN_ID)
        def step() -> str | None:
            return runtime.task_run.id

        assert step() != step()
        first, second = flow(lambda: (step(), step()))()
        assert first == second
        assert flow(lambda: step())() != first


class Adder:
    """A callable object, of which there may be several."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, x: int) -> int:
        return x + self.n


class Counting:
    """Makes tasks that note each call of their body."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def task(self, way: Way, **options: Any) -> Any:
        """Make a task that returns ten times its argument."""

        def times_ten(x: Any, *rest: Any, y: Any = 0) -> Any:
            self.calls.append(x)
            return [x, x * 10]

        return way.task(times_ten, **options)


def calls_of(way: Way, made: Any, *arguments: Any) -> list[State[Any]]:
    """Call a task with each argument in one flow; return the states."""
    states: list[State[Any]] = []
    if way.is_async:

        async def body() -> None:
            states.extend([await made(x, return_state=True) for x in arguments])
    else:

        def body() -> None:  # type: ignore[misc]
            states.extend(made(x, return_state=True) for x in arguments)

    way.call(flow(body))
    return states


@in_every_way
class TestTasks:
    def test_a_kept_result_is_used_again(self, way: Way) -> None:
        """The body does not run; the state is Cached, a COMPLETED one."""
        counting = Counting()
        made = counting.task(way, cache_policy=INPUTS)
        first, second, other = calls_of(way, made, 1, 1, 2)
        assert counting.calls == [1, 2]
        assert [s.name for s in (first, second, other)] == [
            "Completed", "Cached", "Completed",
        ]  # fmt: skip
        assert second.is_completed()
        assert second.data == first.data == [1, 10]
        assert first.run_id is not None
        assert first.run_id in (second.message or "")
        (third,) = calls_of(way, made, 1)
        assert third.name == "Cached"

    def test_the_hooks_of_a_cached_run(self, way: Way) -> None:
        """On_running, then on_completion; those of its transaction owe nothing."""
        notes: list[str] = []
        counting = Counting()
        made = counting.task(
            way,
            cache_policy=INPUTS,
            on_running=[lambda *_: notes.append("running")],
            on_completion=[lambda task, run, state: notes.append(state.name)],
            on_commit=[lambda _: notes.append("commit")],
        )
        calls_of(way, made, 1)
        calls_of(way, made, 1)
        assert notes == ["running", "commit", "Completed", "running", "Cached"]
        assert way.transitions(made, 1)[-2].state.name == "Running"

    def test_nobody_sees_what_others_do_to_a_result(self, way: Way) -> None:
        """Each caller has a copy of its own."""
        counting = Counting()
        made = counting.task(way, cache_policy=INPUTS)
        first = calls_of(way, made, 1)[0].result()
        first.append("mine")
        second = calls_of(way, made, 1)[0].result()
        second.append("mine too")
        assert calls_of(way, made, 1)[0].result() == [1, 10]

    def test_failures_are_not_kept(self, way: Way) -> None:
        """The next call tries again."""
        errors = [ValueError("bad")]

        def body(x: int) -> int:
            if errors:
                raise errors.pop()
            return x

        made = way.task(body, cache_policy=INPUTS)
        with pytest.raises(ValueError, match="bad"):
            way.call(made, 1)
        assert way.call(made, 1) == 1

    def test_a_retry_uses_what_the_first_attempt_has_kept(self, way: Way) -> None:
        """A flow that runs again does not repeat its finished steps."""
        counting, errors = Counting(), [ValueError("bad")]
        made = counting.task(way, persist_result=True)
        if way.is_async:

            async def body() -> None:
                await made(1)
                if errors:
                    raise errors.pop()
        else:

            def body() -> None:  # type: ignore[misc]
                made(1)
                if errors:
                    raise errors.pop()

        way.call(flow(retries=1)(body))
        assert counting.calls == [1]

    def test_refresh_makes_the_result_anew(self, way: Way) -> None:
        """And keeps the new one."""
        counting = Counting()
        made = counting.task(way, cache_policy=INPUTS)
        calls_of(way, made, 1)
        calls_of(way, made.with_options(refresh_cache=True), 1)
        assert counting.calls == [1, 1]
        assert calls_of(way, made, 1)[0].name == "Cached"

    def test_an_expired_result_is_made_anew(
        self, way: Way, memory: MemoryResultStore
    ) -> None:
        """From its time on; a fresh one is used."""
        counting = Counting()
        lasting = timedelta(hours=1)
        made = counting.task(way, cache_key_fn=lambda *_: "k", cache_expiration=lasting)
        calls_of(way, made, 1, 1)
        assert counting.calls == [1]
        found = memory.read("k")
        assert found is not None
        assert found.expires_at == found.created_at + 3600
        memory.write(attrs.evolve(found, expires_at=found.created_at))
        calls_of(way, made, 1)
        assert counting.calls == [1, 1]

    def test_a_key_function_makes_the_whole_key(
        self, way: Way, memory: MemoryResultStore
    ) -> None:
        """It gets the context and the parameters; two tasks may share its keys."""
        seen: list[Any] = []

        def make_key(context: CacheContext, parameters: dict[str, Any]) -> str:
            seen.append((context.task.name, context.task_run.name, parameters))
            assert context.flow_run_id == runtime.task_run.flow_run_id
            return f"key-{parameters['x']}"

        counting = Counting()
        one = counting.task(way, name="one", cache_key_fn=make_key)
        two = counting.task(way, name="two", cache_key_fn=make_key)
        calls_of(way, one, 1)
        assert calls_of(way, two, 1)[0].name == "Cached"
        assert memory.read("key-1") is not None
        name, run_name, parameters = seen[0]
        assert name == "one"
        assert run_name.startswith("one-")
        assert parameters == {"x": 1, "rest": (), "y": 0}

    def test_a_key_of_none_is_not_cached(
        self, way: Way, memory: MemoryResultStore
    ) -> None:
        """That run is executed and its result not kept."""
        counting = Counting()
        made = counting.task(way, cache_key_fn=lambda context, parameters: None)
        states = calls_of(way, made, 1, 1)
        assert [s.name for s in states] == ["Completed", "Completed"]
        assert len(memory) == 0

    @pytest.mark.parametrize(
        ("key_fn", "error"),
        [
            (lambda *_: 1, TypeError("must be a string")),
            (lambda *_: "", ValueError("must not be empty")),
            (lambda *_: {}["x"], KeyError("x")),
        ],
    )
    def test_a_key_function_that_fails_fails_the_task(
        self, way: Way, key_fn: Any, error: Exception
    ) -> None:
        """Before its body, with what was wrong."""
        counting = Counting()
        made = counting.task(way, cache_key_fn=key_fn)
        with pytest.raises(type(error), match=str(error)):
            way.call(made, 1)
        assert counting.calls == []

    def test_an_argument_without_a_form_fails_the_task(self, way: Way) -> None:
        """Before its body; the error names the task, the parameter and the way out."""
        counting = Counting()
        made = counting.task(way, cache_policy=INPUTS)
        with pytest.raises(CacheKeyError) as raised:
            way.call(made, [1, object()])
        assert counting.calls == []
        assert (raised.value.task, raised.value.parameter) == ("times_ten", "x")
        assert "an object (at x[1])" in str(raised.value)
        without = counting.task(way, cache_policy=INPUTS - "x")
        assert [s.data for s in calls_of(way, without, 1, 2)] == [[1, 10], [1, 10]]

    def test_a_result_that_cannot_be_kept_fails_the_task(self, way: Way) -> None:
        """Its body has run, so its own rollback hooks run too."""
        notes: list[str] = []
        made = way.task(
            threading.Lock,
            cache_policy=INPUTS,
            on_rollback=[lambda _: notes.append("x")],
        )
        with pytest.raises(UnstorableResultError, match="a lock that cannot be copied"):
            way.call(made)
        assert notes == ["x"]

    def test_a_state_that_was_returned_is_kept_by_its_data(self, way: Way) -> None:
        """A completed one; a failed one is no result."""
        from engine.states import Completed, Failed

        def body(good: bool) -> State[Any]:
            return Completed(data=[1]) if good else Failed(message="bad")

        made = way.task(body, cache_policy=INPUTS)
        names = [
            (s.name, s.data) for s in calls_of(way, made, True, True, False, False)
        ]
        assert names[:2] == [("Completed", [1]), ("Cached", [1])]
        assert [name for name, _ in names[2:]] == ["Failed", "Failed"]


class TestIdentity:
    def test_tasks_do_not_share_keys(self) -> None:
        """The same arguments of another task are another call."""
        one = task(cache_policy=INPUTS)(lambda x: "one")
        two = task(cache_policy=INPUTS, name="two")(lambda x: "two")
        assert (one(1), two(1)) == ("one", "two")

    def test_calls_that_mean_the_same_share_a_key(self) -> None:
        """By position, by name, or by default."""
        counting = Counting()
        made = counting.task(Way("plain"), cache_policy=INPUTS)
        made(1)
        made(x=1)
        made(1, y=0)
        made(1, y=1)
        assert counting.calls == [1, 1]

    def test_methods_are_cached_by_their_object(self) -> None:
        """Two objects are two callers; one without a form is an error."""

        @attrs.define
        class Account:
            n: int

            @task(cache_policy=INPUTS)
            def add(self, x: int) -> int:
                return self.n + x

            @task(cache_policy=INPUTS)
            @classmethod
            def named(cls, x: int) -> str:
                return f"{cls.__name__} {x}"

        assert (Account(1).add(1), Account(2).add(1), Account(1).add(1)) == (2, 3, 2)
        with pytest.raises(CacheKeyError, match="parameter 'self' holds a class"):
            Account.named(1)

    def test_objects_and_partials_are_cached_by_what_they_hold(self) -> None:
        """Two of one kind are two functions."""

        @attrs.define
        class Add:
            n: int

            def __call__(self, x: int) -> int:
                return self.n + x

        def add(n: int, x: int) -> int:
            return n + x

        objects = [task(cache_policy=INPUTS)(Add(n)) for n in (1, 2)]
        assert [made(1) for made in objects] == [2, 3]
        partials = [
            task(cache_policy=INPUTS)(functools.partial(add, n)) for n in (1, 2)
        ]
        assert [made(1) for made in partials] == [2, 3]
        nested = [
            task(cache_policy=INPUTS)(functools.partial(functools.partial(add), n))
            for n in (1, 2)
        ]
        assert [made(1) for made in nested] == [2, 3]

    def test_the_peers_key_function_is_there(self) -> None:
        """Task_input_hash: the code and the arguments."""
        counting = Counting()
        made = counting.task(Way("plain"), cache_key_fn=task_input_hash)
        other = task(cache_key_fn=task_input_hash, name="other")(lambda x: x)
        made(1)
        assert other(1) == 1
        assert made(1, return_state=True).name == "Cached"

    def test_a_policy_of_the_users_own(self) -> None:
        """Derived from CachePolicy, alone or added to others."""

        class Even(CachePolicy):
            def compute_key(self, context: CacheContext) -> str | None:
                return str(context.parameters["x"] // 2)

        counting = Counting()
        made = counting.task(Way("plain"), cache_policy=Even() + TASK_SOURCE)
        made(2)
        made(3)
        made(4)
        assert counting.calls == [2, 4]
        with pytest.raises(NotImplementedError):
            task(cache_policy=CachePolicy())(lambda: 1)()


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"persist_result": 1}, "persist_result must be True or False, got 1"),
            ({"refresh_cache": "yes", "cache_policy": INPUTS}, "refresh_cache must be"),
            ({"cache_policy": "inputs"}, "one of engine.cache_policies, got 'inputs'"),
            ({"cache_policy": INPUTS - "y"}, "leaves out 'y'; the function has x"),
            ({"cache_key_fn": "key"}, "cache_key_fn must be callable"),
            ({"cache_key_fn": lambda: ""}, r"\(context, parameters\)"),
            ({"cache_expiration": timedelta(1)}, "cache_expiration needs cache_policy"),
            ({"refresh_cache": True}, "refresh_cache needs"),
            ({"cache_policy": INPUTS, "cache_expiration": 5}, "must be a timedelta"),
            (
                {"cache_policy": INPUTS, "cache_expiration": timedelta()},
                "must be positive, got 0:00:00",
            ),
            (
                {"persist_result": True, "result_serializer": "yaml"},
                "must be 'json' or 'pickle', got 'yaml'",
            ),
            ({"persist_result": True, "result_serializer": []}, "must be 'json' or"),
            ({"result_serializer": "json"}, "needs persist_result=True"),
            (
                {"persist_result": True, "cache_policy": NO_CACHE},
                "by their key, and NO_CACHE has none",
            ),
        ],
    )
    def test_what_cannot_be_is_refused_at_the_decoration(
        self, options: dict[str, Any], text: str
    ) -> None:
        """The error names the option, the value and the task."""
        with pytest.raises((ValueError, TypeError), match=text) as raised:
            task(name="mine", **options)(lambda x: x)
        assert "(task 'mine')" in str(raised.value)

    def test_an_async_key_function_is_refused(self) -> None:
        """The key is needed before anything could be awaited."""

        async def key(context: Any, parameters: Any) -> str:
            return ""

        with pytest.raises(TypeError, match="it is async"):
            task(cache_key_fn=key)(lambda: 1)  # type: ignore[arg-type]

    def test_options_that_are_off_cost_nothing(self) -> None:
        """Such a task is no transaction."""
        off: list[dict[str, Any]] = [
            {},
            {"persist_result": False},
            {"persist_result": None, "refresh_cache": False, "cache_policy": None},
            {"cache_policy": NO_CACHE},
        ]
        for options in off:
            assert not task(**options)(lambda: 1).is_transactional

    def test_flows_are_not_cached(self) -> None:
        """The options are the task's."""
        with pytest.raises(TypeError, match="cache_policy"):
            flow(cache_policy=INPUTS)(lambda: 1)  # type: ignore[call-overload]

    def test_results_of_one_run_have_an_end(self) -> None:
        """Nobody finds them after the run, so they must not stay for ever."""
        options: list[tuple[dict[str, Any], timedelta | None]] = [
            ({"persist_result": True}, timedelta(days=7)),
            ({"cache_policy": INPUTS + RUN_ID}, timedelta(days=7)),
            ({"cache_policy": DEFAULT, "cache_expiration": HOUR}, HOUR),
            ({"cache_policy": DEFAULT, "cache_key_fn": lambda *_: "key"}, None),
            ({"cache_policy": INPUTS}, None),
        ]
        for given_options, life in options:
            store = MemoryResultStore()
            with use_result_store(store):
                task(lambda: 1, name="step", **given_options)()
            (found,) = store._records.values()
            ends_at = found.created_at + (life or timedelta()).total_seconds()
            assert found.expires_at == (ends_at if life else None)

    def test_copies_may_change_or_lose_their_caching(self) -> None:
        """What is not given stays."""
        counting = Counting()
        made = counting.task(Way("plain"), cache_policy=INPUTS)
        made.with_options(name="other")(1)
        made.with_options(cache_policy=NO_CACHE)(1)
        made.with_options(cache_policy=None)(1)
        made(1)
        assert counting.calls == [1, 1, 1, 1]
        made.with_options(tags=["x"])(1)
        assert len(counting.calls) == 4


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Persist into a folder of its own."""
    store = FileResultStore(tmp_path / "results")
    with temporary_settings(home=tmp_path), use_result_store(store):
        yield tmp_path


class TestPersistence:
    def test_the_default_is_inputs_source_and_run(self, home: Path) -> None:
        """Within one flow run a result is used again, in the next it is not."""
        counting = Counting()
        made = counting.task(Way("plain"), persist_result=True)
        assert [s.name for s in calls_of(Way("plain"), made, 1, 1)] == [
            "Completed", "Cached",
        ]  # fmt: skip
        calls_of(Way("plain"), made, 1)
        assert counting.calls == [1, 1]

    @in_every_way
    def test_results_are_json_files_in_the_home(self, way: Way, home: Path) -> None:
        """One for each key; async code reads and writes them beside the loop."""
        counting = Counting()
        made = counting.task(way, persist_result=True, cache_policy=INPUTS)
        states = calls_of(way, made, 1, 1, 2)
        assert [s.name for s in states] == ["Completed", "Cached", "Completed"]
        files = list((home / "results").rglob("*.result"))
        assert len(files) == 2
        assert sorted(path.read_bytes().splitlines()[-1] for path in files) == [
            b"[1,10]", b"[2,20]",
        ]  # fmt: skip

    def test_other_processes_find_them(self, tmp_path: Path) -> None:
        """The second process runs no body."""
        program = (
            "from engine import task\n"
            "from engine.cache_policies import INPUTS, TASK_SOURCE\n"
            "@task(persist_result=True, cache_policy=INPUTS + TASK_SOURCE)\n"
            "def step(x, names=frozenset('abc')):\n"
            "    print('body')\n"
            "    return (x, {1: names})\n"
            "state = step(1, return_state=True)\n"
            "print(state.name, state.result() == (1, {1: frozenset('abc')}))\n"
        )
        path = tmp_path / "program.py"
        path.write_text(program)
        lines = [
            subprocess.run(
                [sys.executable, "-W", "error", str(path)],
                env={
                    **os.environ, "PYTHONPATH": str(ROOT), "ENGINE_HOME": str(tmp_path),
                    "PYTHONHASHSEED": seed,
                },
                capture_output=True, text=True, check=True, timeout=20,
            ).stdout.split("\n")[:-1]
            for seed in ("1", "2")
        ]  # fmt: skip
        assert lines == [["body", "Completed True"], ["Cached True"]]

    def test_pickles_are_opt_in_by_name(self, home: Path) -> None:
        """What JSON cannot hold needs the option; its files are signed."""
        plain = task(persist_result=True, cache_policy=INPUTS)(lambda: Plain(2))
        with pytest.raises(UnstorableResultError, match="result_serializer='pickle'"):
            plain()
        pickled = plain.with_options(result_serializer="pickle", name="other")
        assert [pickled(return_state=True).name for _ in range(2)] == [
            "Completed", "Cached",
        ]  # fmt: skip
        assert pickled() == Plain(2)

    def test_a_task_reads_only_what_it_would_write(self, home: Path) -> None:
        """A file that says pickle is a miss for a task of JSON, whoever signed it."""
        made = task(persist_result=True, cache_key_fn=lambda *_: "k")(lambda: 1)
        made.with_options(result_serializer="pickle")()
        with structlog.testing.capture_logs() as lines:
            assert made(return_state=True).name == "Completed"
        (line,) = [one for one in lines if one["event"] == "result_unreadable"]
        assert "written with pickle, not json" in line["problem"]
        assert line["path"] == str(FileResultStore(home / "results").path_of("k"))
        assert made(return_state=True).name == "Cached"

    @in_every_way
    def test_a_damaged_file_is_made_anew(self, way: Way, home: Path) -> None:
        """With a warning that names it."""
        made = way.task(lambda: 1, persist_result=True, cache_key_fn=lambda *_: "k")
        way.call(made)
        path = FileResultStore(home / "results").path_of("k")
        path.write_bytes(path.read_bytes()[:-1])
        with structlog.testing.capture_logs() as lines:
            assert way.state(made).name == "Completed"
        assert {
            one["path"] for one in lines if one["event"] == "result_unreadable"
        } == {str(path)}
        assert way.state(made).name == "Cached"

    @in_every_way
    def test_a_store_that_fails_to_write_undoes_the_task(self, way: Way) -> None:
        """A full disk: the value is given, the state's name says what became of it."""

        class Full(MemoryResultStore):
            is_blocking = True

            def write(self, record: ResultRecord) -> None:
                raise OSError(28, "No space left on device")

        notes: list[str] = []
        made = way.task(
            lambda: 1, persist_result=True, on_rollback=[lambda _: notes.append("undo")]
        )
        with use_result_store(Full()):
            state = way.state(made)
        assert (state.name, state.data) == ("RolledBack", 1)
        assert "No space left" in state.message
        assert notes == ["undo"]

    @in_every_way
    def test_async_code_never_calls_a_blocking_store_on_the_loop(
        self, way: Way
    ) -> None:
        """Its methods are called in threads there, and in place in sync code."""
        here, threads = threading.get_ident(), set[int]()

        class Slow(MemoryResultStore):
            is_blocking = True

            def read(self, key: str) -> ResultRecord | None:
                threads.add(threading.get_ident())
                return super().read(key)

            def write(self, record: ResultRecord) -> None:
                threads.add(threading.get_ident())
                super().write(record)

            def delete(self, key: str) -> None:
                threads.add(threading.get_ident())
                super().delete(key)

        def fail(_: Transaction) -> None:
            raise ValueError

        store = Slow()
        made = way.task(lambda: 1, persist_result=True, on_commit=[fail])
        with use_result_store(store):
            assert way.state(made).name == "RolledBack"
        assert len(store) == 0
        assert (here in threads) is not way.is_async


class TestTransactions:
    @in_every_way
    def test_a_result_counts_inside_before_it_is_committed(
        self, way: Way, memory: MemoryResultStore
    ) -> None:
        """In the same transaction, and in those inside of it; nobody else sees it."""
        counting, sizes = Counting(), []
        made = counting.task(way, cache_policy=INPUTS)
        if way.is_async:

            async def body() -> None:
                async with transaction():
                    await made(1)
                    await made(1)
                    async with transaction():
                        await made(1)
                        await made(2)
                    await made(2)
                    sizes.append(len(memory))
        else:

            def body() -> None:  # type: ignore[misc]
                with transaction():
                    made(1)
                    made(1)
                    with transaction():
                        made(1)
                        made(2)
                    made(2)
                    sizes.append(len(memory))

        way.call(flow(body))
        assert counting.calls == [1, 2]
        assert sizes == [0]
        assert len(memory) == 2

    @in_every_way
    def test_a_result_that_was_rolled_back_is_made_anew(
        self, way: Way, memory: MemoryResultStore
    ) -> None:
        """It is in no store, and an inner block's is not seen after it failed."""
        counting = Counting()
        made = counting.task(way, cache_policy=INPUTS)
        if way.is_async:

            async def body() -> None:
                try:
                    async with transaction():
                        await made(1)
                        raise ValueError("bad")
                except ValueError:
                    await made(1)
        else:

            def body() -> None:  # type: ignore[misc]
                try:
                    with transaction():
                        made(1)
                        raise ValueError("bad")
                except ValueError:
                    made(1)

        way.call(flow(body))
        assert counting.calls == [1, 1]
        assert len(memory) == 1


class TestConcurrency:
    @pytest.mark.anyio
    async def test_one_run_makes_the_result_and_the_others_wait(self) -> None:
        """A fan-out over equal arguments executes the body once."""
        calls: list[int] = []

        @task(cache_policy=INPUTS)
        async def step(x: int) -> int:
            calls.append(x)
            await anyio.lowlevel.checkpoint()
            return x

        @flow
        async def fan_out() -> list[str]:
            handles = step.map([1] * 20 + [2] * 20)
            await handles
            return [handle.state.name for handle in handles]

        names = await fan_out()
        assert sorted(calls) == [1, 2]
        assert sorted(names) == ["Cached"] * 38 + ["Completed"] * 2

    def test_threads_wait_too(self) -> None:
        """Sync bodies in worker threads, however few places there are."""
        calls: list[int] = []
        inside, go_on = threading.Event(), threading.Event()

        @task(cache_policy=INPUTS)
        def step(x: int) -> int:
            calls.append(x)
            inside.set()
            go_on.wait(5)
            return x

        @flow
        def fan_out() -> list[Any]:
            handles = step.map([1] * 60)
            inside.wait(5)
            go_on.set()
            return handles.result()

        assert fan_out() == [1] * 60
        assert calls == [1]

    @pytest.mark.anyio
    async def test_who_waited_for_a_failure_tries_itself(self) -> None:
        """A failure is nobody else's, and is not waited for twice."""
        calls: list[int] = []

        @task(cache_key_fn=lambda *_: "k")
        async def step(x: int) -> int:
            calls.append(x)
            await anyio.wait_all_tasks_blocked()
            if x == calls[0]:
                raise ValueError("bad")
            return x

        @flow
        async def fan_out() -> list[Any]:
            handles = step.map(range(3))
            return [await handle.join() for handle in handles]

        states = await fan_out()
        names = [state.name for state in states]
        assert names.pop(calls[0]) == "Failed"
        assert names == ["Completed", "Completed"]
        assert sorted(calls) == [0, 1, 2]

    @pytest.mark.anyio
    async def test_a_waiting_run_can_be_cancelled(self) -> None:
        """It leaves the one that works alone."""
        inside, go_on = anyio.Event(), anyio.Event()

        @task(cache_key_fn=lambda *_: "k")
        async def step() -> int:
            inside.set()
            await go_on.wait()
            return 1

        async with Engine() as engine:
            first = engine.start(step)
            await inside.wait()
            second = engine.start(step)
            await anyio.wait_all_tasks_blocked()
            second.cancel()
            assert (await second.join()).name == "Cancelled"
            go_on.set()
            assert await first == 1

    @pytest.mark.anyio
    async def test_a_task_that_calls_itself_is_no_deadlock(self) -> None:
        """With a key that does not tell the calls apart."""

        @task(cache_key_fn=lambda *_: "k")
        async def down(n: int) -> int:
            return 0 if n == 0 else await down(n - 1) + 1

        assert await down(3) == 3

    @pytest.mark.anyio
    async def test_tasks_that_call_each_other_are_no_deadlock(self) -> None:
        """Each holds the key that the other one wants."""
        both = [anyio.Event(), anyio.Event()]

        async def meet(mine: int, n: int) -> int:
            both[mine].set()
            await both[1 - mine].wait()
            return n

        @task(cache_key_fn=lambda *_: "a")
        async def a(n: int) -> int:
            return await meet(0, n) if n == 0 else await b(n - 1)

        @task(cache_key_fn=lambda *_: "b")
        async def b(n: int) -> int:
            return await meet(1, n) if n == 0 else await a(n - 1)

        async def outer_a() -> None:
            both[0].set()
            await both[1].wait()
            await b(0)

        async def outer_b() -> None:
            both[1].set()
            await both[0].wait()
            await a(0)

        hold_a = task(cache_key_fn=lambda *_: "a", name="hold_a")(outer_a)
        hold_b = task(cache_key_fn=lambda *_: "b", name="hold_b")(outer_b)
        with anyio.fail_after(5):
            async with Engine() as engine:
                handles = [engine.start(hold_a), engine.start(hold_b)]
                states = [await handle.join() for handle in handles]
        assert [state.name for state in states] == ["Completed", "Completed"]

    @pytest.mark.anyio
    async def test_a_limit_of_one_is_no_deadlock(self) -> None:
        """Who waits for a result gives his place to what makes it."""

        @task
        async def inner() -> int:
            await anyio.lowlevel.checkpoint()
            return 1

        @task(cache_key_fn=lambda *_: "k")
        async def step() -> int:
            return await inner.submit()

        @flow
        async def fan_out() -> list[int]:
            return [await handle for handle in [step.submit() for _ in range(5)]]

        with anyio.fail_after(5):
            async with Engine(max_concurrency=1) as engine:
                assert await engine.run(fan_out) == [1] * 5

    @pytest.mark.anyio
    async def test_who_waited_in_vain_waits_for_a_place(self) -> None:
        """After a failure no more execute at once than the engine allows."""
        live: list[int] = []
        most: list[int] = []

        @task(cache_key_fn=lambda *_: "k")
        async def step() -> None:
            live.append(1)
            most.append(len(live))
            await anyio.wait_all_tasks_blocked()
            live.pop()
            raise ValueError("bad")

        async with Engine(max_concurrency=2) as engine:
            handles = [engine.start(step) for _ in range(5)]
            states = [await handle.join() for handle in handles]
        assert {state.name for state in states} == {"Failed"}
        assert len(most) == 5
        assert max(most) == 2

    @pytest.mark.anyio
    async def test_a_flight_may_land_before_anybody_waits(self) -> None:
        """In another thread, just before the wait begins: it ends at once."""
        flights, waits = Flights(), []

        class Landing:
            can_interrupt = True

            async def wait(self, subscribe: Any, unsubscribe: Any) -> None:
                flights.land(flight)
                waits.append(subscribe(lambda: None))

        pilot: Any = FakeRun()
        other: Any = FakeRun()
        flight = flights.take_off(("store", "key"), pilot)
        assert flight is not None
        assert flights.take_off(("store", "key"), other) is None
        on: Any = Landing()
        await flights.wait(("store", "key"), other, on)
        await flights.wait(("store", "key"), other, on)
        assert waits == [False]

    @pytest.mark.anyio
    async def test_a_call_that_holds_the_loop_does_not_wait_for_it(self) -> None:
        """The one that works needs the loop to end: both execute."""
        calls: list[str] = []
        go_on = anyio.Event()

        @task(cache_key_fn=lambda *_: "k")
        async def on_the_loop() -> int:
            calls.append("async")
            await go_on.wait()
            return 1

        @task(cache_key_fn=lambda *_: "k")
        def in_place() -> int:
            calls.append("sync")
            return 2

        async with Engine() as engine:
            handle = engine.start(on_the_loop)
            await anyio.wait_all_tasks_blocked()
            assert in_place() == 2
            go_on.set()
            assert await handle == 1
        assert calls == ["async", "sync"]

    @pytest.mark.anyio
    async def test_transactions_do_not_wait_for_each_others_end(self) -> None:
        """What one of them has staged is not the other's to use: it makes its own."""
        counting = Counting()
        made = counting.task(Way("asyncio"), cache_policy=INPUTS)
        staged, go_on = anyio.Event(), anyio.Event()

        async def first() -> None:
            async with transaction():
                await made(1)
                staged.set()
                await go_on.wait()

        async with Engine(), anyio.create_task_group() as group:
            group.start_soon(first)
            await staged.wait()
            with anyio.fail_after(5):
                await made(1)
            go_on.set()
        assert counting.calls == [1, 1]


class FakeRun:
    """As much of a run as a flight asks for."""

    parent = None

    def descends_from(self, other: Any) -> bool:
        return False


def test_importing_the_engine_loads_none_of_this() -> None:
    """Neither settings nor blocks, neither stores nor keys, before they are used."""
    program = (
        "import sys\n"
        "given = set(sys.modules)  # a tool that watches the tests may be there\n"
        "from engine import task, flow, transaction\n"
        "@task\n"
        "def step(): return 1\n"
        "@step.on_rollback\n"
        "def undo(txn): pass\n"
        "with transaction(): step()\n"
        "heavy = ('sqlite3', 'pickle5', 'engine.settings', 'engine.blocks',\n"
        "    'engine.results', 'engine.caching', 'engine.cache_policies')\n"
        "print([name for name in heavy if name in set(sys.modules) - given])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "[]\n"
