"""Runs as arguments of other runs: waited for, resolved, or refused."""

import dataclasses
import threading
from collections import OrderedDict, namedtuple
from typing import Any

import anyio
import attrs
import pytest
from support import Notes, Way, in_every_way

from engine import (
    Engine,
    RunHandle,
    State,
    StateType,
    allow_failure,
    flow,
    opaque,
    quote,
    task,
    unmapped,
)
from engine.exceptions import (
    BlockingCallError,
    DeadlockError,
    FailedRun,
    UpstreamNotCompleted,
)
from engine.states import Completed, Failed


@task
def one() -> int:
    return 1


@task
def echo(*args: Any, **kwargs: Any) -> Any:
    return (args, kwargs) if kwargs else args[0] if len(args) == 1 else args


@flow
def echo_flow(value: Any) -> Any:
    return [value] if isinstance(value, State | RunHandle) else value


@task
def fail() -> None:
    raise ValueError("upstream")


@dataclasses.dataclass
class Data:
    content: Any
    label: str = "label"
    made: int = dataclasses.field(default=0, init=False)


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenData:
    content: Any


@attrs.define
class Attrs:
    content: Any
    _private: Any = None


@attrs.frozen(kw_only=True)
class FrozenAttrs:
    content: Any = attrs.field(alias="given")


Named = namedtuple("Named", ["content", "other"])


class TestResolving:
    @pytest.mark.parametrize("echoing", [echo, echo_flow])
    def test_handles_and_states_become_their_results(self, echoing: Any) -> None:
        """A run given for a parameter is replaced by what it returned."""
        with Engine():
            assert echoing(one.submit()) == 1
            assert echoing(one(return_state=True)) == 1
            assert echoing(Completed(data=7)) == 7

    async def test_submitted_runs_wait_for_their_upstreams(self) -> None:
        """A run stays Pending until the runs among its arguments have ended."""
        release = anyio.Event()

        @task
        async def slow() -> int:
            await release.wait()
            return 5

        @task
        async def echo_async(value: Any) -> Any:
            return value

        async with Engine():
            upstream = slow.submit()
            handles = [echo.submit(upstream), echo_async.submit(upstream)]
            await anyio.wait_all_tasks_blocked()
            assert [h.state.name for h in handles] == ["Pending", "Pending"]
            release.set()
            assert [await handle for handle in handles] == [5, 5]

    async def test_calls_in_place_wait_for_their_upstreams(self) -> None:
        """An async call waits without blocking, with its run Pending."""
        release = anyio.Event()

        @task
        async def slow() -> int:
            await release.wait()
            return 5

        @task
        async def echo_async(value: Any) -> Any:
            return value

        values = []

        async def call(upstream: Any) -> None:
            values.append(await echo_async(upstream))

        async with Engine() as engine, anyio.create_task_group() as group:
            group.start_soon(call, slow.submit())
            await anyio.wait_all_tasks_blocked()
            [run] = engine.runs(name="echo_async")
            assert run.state_name == "Pending"
            release.set()
        assert values == [5]

    async def test_sync_calls_do_not_block_a_loop_for_their_upstreams(self) -> None:
        """On the loop's thread such a call says to await the handle first."""
        release = anyio.Event()

        @task
        async def slow() -> int:
            await release.wait()
            return 5

        async with Engine():
            upstream = slow.submit()
            with pytest.raises(BlockingCallError, match="await"):
                echo([upstream])
            release.set()
            await upstream
            assert echo([upstream]) == [5]

    def test_sync_calls_block_for_their_upstreams(self) -> None:
        """A sync call waits in its thread for a run that goes on elsewhere."""
        opened = threading.Event()

        @task
        def slow() -> int:
            assert opened.wait(10)
            return 5

        @task(on_running=[lambda *_: None])
        def opener() -> None:
            opened.set()

        with Engine():
            upstream = slow.submit()
            opener.submit()
            assert echo(upstream) == 5

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda x: [x],
            lambda x: (x, 0),
            lambda x: {x},
            lambda x: frozenset([x]),
            lambda x: {"key": x},
            lambda x: {x: "value"},
            lambda x: [{"key": ([x],)}],
            lambda x: {"a": [x, {"b": (x, 2)}], "c": 3},
            Data,
            FrozenData,
            Attrs,
            lambda x: Attrs(0, private=[x]),
            lambda x: FrozenAttrs(given=x),
            lambda x: [Data({"key": FrozenAttrs(given=(x,))})],
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("echoing", [echo, echo_flow])
    def test_runs_are_found_at_any_depth(self, wrap: Any, echoing: Any) -> None:
        """In collections, dataclasses and attrs classes, however nested."""
        with Engine():
            resolved = echoing(wrap(one.submit()))
            assert resolved == wrap(1)
            assert type(resolved) is type(wrap(1))

    @pytest.mark.parametrize(
        "make",
        [
            lambda x: Named(x, 2),
            lambda x: OrderedDict(key=x),
        ],
        ids=["namedtuple", "OrderedDict"],
    )
    def test_subclasses_of_collections_are_kept(self, make: Any) -> None:
        """A run in a named tuple or ordered dict is found, and the type stays."""
        with Engine():
            resolved = echo(make(one.submit()))
            assert resolved == make(1)
            assert type(resolved) is type(make(1))

    @pytest.mark.parametrize("key", ["positional", "keyword", "var", "kwargs"])
    def test_runs_are_found_in_any_argument(self, key: str) -> None:
        """Positional, keyword, *args and **kwargs alike."""

        @task
        def body(a: Any = 0, *args: Any, b: Any = 0, **kwargs: Any) -> Any:
            return a, args, b, kwargs

        with Engine():
            run = one.submit()
            calls = {
                "positional": (lambda: body(run), (1, (), 0, {})),
                "keyword": (lambda: body(b=run), (0, (), 1, {})),
                "var": (lambda: body(0, 0, run), (0, (0, 1), 0, {})),
                "kwargs": (lambda: body(c=run), (0, (), 0, {"c": 1})),
            }
            call, expected = calls[key]
            assert call() == expected

    def test_what_holds_no_runs_is_passed_as_it_is(self) -> None:
        """Collections without runs are neither copied nor rebuilt."""
        given = [{"a": (1, {2})}, Data([1]), Attrs({}), Named(1, 2), object()]
        assert echo(given) is given
        with Engine():
            run = one.submit()
            resolved = echo([run, given])
            assert resolved[1] is given

    def test_the_callers_collections_stay_as_they_are(self) -> None:
        """Resolving makes new collections around what changed."""
        with Engine():
            run = one.submit()
            given = {"a": [run], "b": Data(run)}
            assert echo(given) == {"a": [1], "b": Data(1)}
            assert given == {"a": [run], "b": Data(run)}

    def test_collections_that_hold_themselves_are_no_trap(self) -> None:
        """A list or dict inside of itself is looked into once."""
        circle: list[Any] = [1]
        circle.append(circle)
        ring: dict[str, Any] = {}
        ring["ring"] = ring
        assert echo(circle) is circle
        assert echo_flow(ring) is ring
        with Engine():
            mixed: list[Any] = [one.submit()]
            mixed.append(mixed)
            assert echo(mixed)[0] == 1

    def test_deep_collections_are_no_trap(self) -> None:
        """Arguments nested deeper than Python recurses still work as arguments."""
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        assert echo(deep) is deep

    def test_shared_collections_are_looked_into_once(self) -> None:
        """The time it takes grows with the size of arguments, not of their paths."""
        shared: list[Any] = []
        for _ in range(100):
            shared = [shared, shared]
        assert echo(shared) is shared
        with Engine():
            part = [one.submit()]
            left, right = echo([part, part])
            assert left is right

    def test_strings_and_classes_are_left_alone(self) -> None:
        """What only looks like a collection is not taken apart."""
        for value in ("text", Data, Attrs, range(3), iter([1]), b"bytes"):
            assert echo(value) is value

    def test_parameters_are_the_resolved_ones(self) -> None:
        """Hooks see what the body sees."""
        seen = []
        noting = echo_flow.with_options(
            on_running=[lambda f, run, s: seen.append(run.parameters)]
        )
        with Engine():
            noting(one.submit())
        assert seen == [{"value": 1}]


class TestNotReady:
    @in_every_way
    def test_a_run_whose_upstream_failed_does_not_start(self, way: Way) -> None:
        """It ends NotReady, with on_failure, and its caller is told why."""
        notes = Notes()
        made = way.task(lambda x: notes.append("body"), retries=2, **notes.hooks())
        state = fail(return_state=True)
        with pytest.raises(UpstreamNotCompleted, match="is Failed") as caught:
            way.call(made, state)
        assert caught.value.__cause__ is state.data
        assert "allow_failure()" in str(caught.value)
        assert "pass its handle" not in str(caught.value)
        assert notes == [("on_failure", "NotReady")]
        ended = way.state(made, [state])
        assert (ended.type, ended.name, ended.cause, ended.attempt) == (
            StateType.FAILED,
            "NotReady",
            "upstream",
            0,
        )
        assert way.states(made, state) == ["Pending", "NotReady"]

    async def test_a_submitted_run_is_not_ready_either(self) -> None:
        """The error of the run at the start of the chain can be found at its end."""
        async with Engine():
            first = fail.submit()
            last = echo.submit(echo.submit(first))
            state = await last.join()
            assert state.name == "NotReady"
            with pytest.raises(UpstreamNotCompleted) as caught:
                await last
            middle = caught.value.__cause__
            assert isinstance(middle, UpstreamNotCompleted)
            assert middle.__cause__ is first.state.data

    @pytest.mark.parametrize("ending", ["cancelled", "crashed"])
    async def test_other_ends_are_no_completion_either(self, ending: str) -> None:
        """A cancelled or crashed upstream keeps a run from starting as well."""

        @task
        async def upstream() -> None:
            if ending == "crashed":
                raise SystemExit(1)
            await anyio.sleep_forever()

        async with Engine():
            first = upstream.submit()
            last = echo.submit(first)
            await anyio.wait_all_tasks_blocked()
            first.cancel()
            assert (await last.join()).name == "NotReady"

    async def test_an_unfinished_state_is_no_result(self) -> None:
        """The state of a run that has not ended cannot stand for its result."""
        release = anyio.Event()

        @task
        async def slow() -> None:
            await release.wait()

        async with Engine():
            handle = slow.submit()
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(UpstreamNotCompleted, match="is Running; pass its h"):
                echo(handle.state)
            release.set()

    async def test_looking_at_a_failure_this_way_observes_it(self) -> None:
        """The failure of a run that others depend on is not unobserved: theirs is."""

        @flow
        async def body() -> list[str]:
            first = fail.submit()
            last = echo.submit(first)
            while not last.state.is_final():
                await anyio.lowlevel.checkpoint()
            return [last.id]

        async with Engine() as engine:
            handle = engine.start(body)
            assert await handle == [child.id for child in handle.unobserved]

    async def test_a_waiting_run_can_be_cancelled(self) -> None:
        """A run that waits for an upstream ends when it is asked to."""
        release = anyio.Event()

        @task
        async def slow() -> None:
            await release.wait()

        async with Engine() as engine:
            upstream = slow.submit()
            waiting = echo.submit(upstream)
            await anyio.wait_all_tasks_blocked()
            waiting.cancel()
            assert (await waiting.join()).is_cancelled()
            assert upstream.state.is_running()
            assert engine.statistics().live_runs == 1
            release.set()


class TestWaitFor:
    @in_every_way
    def test_a_call_waits_without_taking_a_value(self, way: Way) -> None:
        """wait_for names runs that have to complete first."""
        made = way.flow(lambda x: x)
        assert way.call(made, 1, wait_for=[one(return_state=True)]) == 1

    async def test_submitted_runs_wait(self) -> None:
        """The order of the runs is that of their dependency."""
        release = anyio.Event()
        order = []

        @task
        async def first() -> None:
            await release.wait()
            order.append("first")

        @task
        async def second() -> None:
            order.append("second")

        async with Engine():
            upstream = first.submit()
            handles = [
                second.submit(wait_for=[upstream]),
                second.submit(wait_for=upstream),
                second.submit(wait_for={"nested": [(upstream,)]}.values()),
            ]
            await anyio.wait_all_tasks_blocked()
            assert {h.state.name for h in handles} == {"Pending"}
            release.set()
            for handle in handles:
                await handle
        assert order == ["first", "second", "second", "second"]

    @in_every_way
    def test_a_failed_upstream_keeps_a_run_from_starting(self, way: Way) -> None:
        """wait_for wants completed runs, like an argument does."""
        made = way.task(lambda: 1)
        with pytest.raises(UpstreamNotCompleted):
            way.call(made, wait_for=[fail(return_state=True)])

    @in_every_way
    def test_failures_can_be_allowed(self, way: Way) -> None:
        """allow_failure around a run in wait_for only waits for its end."""
        made = way.task(lambda: 1)
        failed = fail(return_state=True)
        assert way.call(made, wait_for=[allow_failure(failed)]) == 1

    def test_values_in_it_mean_nothing(self) -> None:
        """Empty, None and values other than runs are fine."""
        for nothing in ((), [], None, [1, "text", None]):
            assert one(wait_for=nothing) == 1

    def test_subflows_wait_too(self) -> None:
        """A flow in a flow takes wait_for like a task."""

        @flow
        def body() -> list[int]:
            order = []
            task_ = task(lambda: order.append(1))
            flow(lambda: order.append(2))(wait_for=[task_.submit()])
            return order

        assert body() == [1, 2]


class TestAnnotations:
    def test_allow_failure_passes_the_exception(self) -> None:
        """A failed run stands for its exception, a completed one for its result."""
        with Engine():
            failed, done = fail.submit(), one.submit()
            error = echo(allow_failure(failed))
            assert error is failed.state.data
            assert echo(allow_failure(done)) == 1
            assert echo(allow_failure([failed, done])) == [error, 1]
            assert echo([allow_failure(failed), done]) == [error, 1]
            assert echo(allow_failure({"key": (failed,)})) == {"key": (error,)}
            assert echo(allow_failure(3)) == 3

    async def test_allow_failure_waits(self) -> None:
        """A submitted run waits for the end of the run it tolerates."""

        @task
        async def slow() -> None:
            await anyio.wait_all_tasks_blocked()
            raise LookupError("late")

        async with Engine():
            error = await echo.submit(allow_failure(slow.submit()))
        assert isinstance(error, LookupError)

    async def test_allow_failure_lets_any_end_pass(self) -> None:
        """A cancelled run stands for its CancelledRun, one not ready for its error."""

        @task
        async def forever() -> None:
            await anyio.sleep_forever()

        async with Engine():
            handle = forever.submit()
            waiting = echo.submit(allow_failure(handle))
            handle.cancel("because")
            error = await waiting
            assert "because" in str(error)
            not_ready = echo.submit(fail.submit())
            error = await echo.submit(allow_failure(not_ready))
            assert isinstance(error, ValueError | UpstreamNotCompleted)

    def test_allow_failure_gives_an_error_for_a_mere_message(self) -> None:
        """A failed state without an exception stands for a FailedRun."""
        error = echo(allow_failure(Failed(message="by hand")))
        assert isinstance(error, FailedRun)

    def test_quote_passes_the_value_as_it_is(self) -> None:
        """Quoted runs are neither waited for nor resolved."""
        opened = threading.Event()
        blocked = task(lambda: opened.wait(10))
        with Engine():
            handle = blocked.submit()
            given = [handle, fail.submit()]
            received = echo(quote(given))
            assert received is given
            assert not handle.state.is_final()
            opened.set()

    def test_opaque_resolves_the_run_alone(self) -> None:
        """The result of an opaque run is not looked into."""
        with Engine():
            inner = one.submit()
            outer = task(lambda: [inner])
            assert echo(opaque(outer.submit())) == [inner]
            assert echo(opaque(3)) == 3

    def test_results_are_not_resolved_again(self) -> None:
        """A run that returned a run is replaced by that, not by its result."""
        with Engine():
            inner = one.submit()
            outer = task(lambda: inner)
            assert echo(outer.submit()) == inner

    def test_unmapped_is_taken_off(self) -> None:
        """Outside of map, unmapped is a wrapper that means nothing."""
        with Engine():
            assert echo(unmapped([one.submit()])) == [1]

    def test_annotations_show_what_they_hold(self) -> None:
        """Their repr reads like the call that made them."""
        assert repr(quote([1])) == "quote([1])"
        assert repr(unmapped("x")) == "unmapped('x')"
        assert repr(allow_failure(opaque(1))) == "allow_failure(opaque(1))"


class TestDeadlock:
    async def test_waiting_for_oneself_is_refused(self) -> None:
        """A run that is to wait for the flow it is in would wait for ever."""

        @flow
        async def body(mine: list[RunHandle[Any]]) -> list[str]:
            texts = []
            for call in (
                lambda: one.submit(wait_for=mine),
                lambda: echo.submit(mine[0]),
                lambda: echo.submit({"deep": [mine]}),
                lambda: echo.map([1, 2], wait_for=mine),
            ):
                with pytest.raises(DeadlockError) as caught:
                    call()
                texts.append(str(caught.value))
            return texts

        mine: list[RunHandle[Any]] = []
        async with Engine() as engine:
            handle = engine.start(body, quote(mine))
            mine.append(handle)
            texts = await handle
            assert engine.statistics().ended_runs == 1
        assert all(handle.name in text for text in texts)
        assert "'echo'" in texts[1]
        assert issubclass(DeadlockError, ValueError)

    async def test_waiting_for_a_grandparent_is_refused(self) -> None:
        """Any run above counts, in async and in sync code."""

        @task
        def lower(mine: list[RunHandle[Any]]) -> str:
            with pytest.raises(DeadlockError):
                one.submit(wait_for=mine)
            with pytest.raises(DeadlockError):
                one(wait_for=mine)
            return "refused"

        @flow
        async def upper(mine: list[RunHandle[Any]]) -> str:
            return await lower.submit(quote(mine))

        mine: list[RunHandle[Any]] = []
        async with Engine() as engine:
            handle = engine.start(upper, quote(mine))
            mine.append(handle)
            assert await handle == "refused"

    async def test_siblings_may_wait_for_each_other(self) -> None:
        """A run beside is no parent."""

        @flow
        async def body() -> Any:
            first = one.submit()
            return [await echo.submit(first), await echo.submit([first])]

        assert await body() == [1, [1]]
