"""Flows: what a call does, what it gives back, and which state it ends in."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import attrs
import pytest
from support import Notes, Way, in_every_way, of_each_kind

from engine import Engine, FlowRun, State, StateType, flow, quote, runtime, task
from engine.exceptions import CancelledRun, CrashedRun, FailedRun, ParameterTypeError
from engine.states import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Pending,
    Running,
    TimedOut,
)


@task
def double(x: int) -> int:
    return 2 * x


@task
def fail(text: str = "meh") -> None:
    raise ValueError(text)


@task
def crash() -> None:
    raise SystemExit("crashed on purpose")


@task
def cancelled() -> State[Any]:
    return Cancelled(message="stopped by hand")


class TestCalling:
    @in_every_way
    @of_each_kind
    def test_a_call_gives_the_value(self, way: Way, kind: str) -> None:
        """Calling a flow or task is calling its function."""
        add = getattr(way, kind)(lambda a, b=2, *, c=3: (a, b, c))
        assert way.call(add, 1) == (1, 2, 3)
        assert way.call(add, 1, b=4, c=5) == (1, 4, 5)

    @in_every_way
    @of_each_kind
    def test_a_call_raises_what_the_body_raised(self, way: Way, kind: str) -> None:
        """The caller gets the very exception object, with its own traceback on top."""
        error = LookupError("mine")

        def body() -> None:
            raise error

        with pytest.raises(LookupError) as caught:
            way.call(getattr(way, kind)(body))
        assert caught.value is error
        assert caught.traceback[-1].name == "body"

    @in_every_way
    @of_each_kind
    def test_return_state_gives_the_state_instead(self, way: Way, kind: str) -> None:
        """With return_state=True the call neither gives the value nor raises."""
        made = way.state(getattr(way, kind)(lambda: 42))
        assert isinstance(made, State)
        assert (made.type, made.name, made.data) == (
            StateType.COMPLETED,
            "Completed",
            42,
        )
        failed = way.state(getattr(way, kind)(lambda: 1 / 0))
        assert failed.is_failed()
        assert isinstance(failed.data, ZeroDivisionError)
        assert failed.message == (
            f"{kind.capitalize()} run encountered an exception:"
            " ZeroDivisionError: division by zero"
        )

    @in_every_way
    @of_each_kind
    def test_return_state_false_is_a_plain_call(self, way: Way, kind: str) -> None:
        """With return_state=False, which Prefect takes too, the value comes."""
        assert way.call(getattr(way, kind)(lambda: 42), return_state=False) == 42

    @in_every_way
    def test_arguments_are_passed_as_they_are(self, way: Way) -> None:
        """A flow gets the objects of the call, not copies of them."""
        given = {"a": [1, (2, {3})]}
        assert way.call(way.flow(lambda x: x), given) is given

    @in_every_way
    @of_each_kind
    def test_wrong_arguments_fail_the_run(self, way: Way, kind: str) -> None:
        """Arguments that do not fit end the run from Pending; the body never runs."""
        notes = Notes()

        def body(a: int) -> None:
            notes.append("body")

        made = getattr(way, kind)(body, retries=2, **notes.hooks())
        with pytest.raises(TypeError, match=r"^body\(\) missing .*'a'"):
            way.call(made)
        assert notes == [("on_failure", "Failed")]
        state = way.state(made, 1, 2)
        assert isinstance(state.data, TypeError)
        assert (state.cause, state.attempt) == ("arguments", 0)

    def test_an_async_flow_is_a_coroutine_function_to_its_caller(self) -> None:
        """Calling an async flow runs nothing until the coroutine is awaited."""
        ran = []

        @flow
        async def body() -> int:
            ran.append(1)
            return 1

        called = body()
        assert not ran
        assert asyncio.run(called) == 1  # type: ignore[arg-type]
        assert ran == [1]

    def test_a_sync_flow_runs_in_the_thread_that_calls_it(self) -> None:
        """Body, nested flows, tasks and hooks of sync code stay in one thread."""
        threads = set()

        def note(*_: Any) -> None:
            threads.add(threading.current_thread())

        @task(on_running=[note], on_completion=[note])
        def inner() -> None:
            note()

        @flow(on_running=[note], on_completion=[note])
        def middle() -> None:
            note()
            inner()

        @flow(on_running=[note], on_completion=[note])
        def outer() -> None:
            note()
            middle()

        before = set(threading.enumerate())
        outer()
        assert threads == {threading.main_thread()}
        # Fewer is well: one that an earlier test has ended may still have been listed.
        assert before.issuperset(threading.enumerate())

    def test_a_sync_flow_keeps_what_it_sets_in_the_context(self) -> None:
        """Context variables set by a sync body stay set, as after a plain call."""
        variable = contextvars.ContextVar("variable", default=0)
        flow(lambda: variable.set(1))()
        assert variable.get() == 1

    async def test_an_async_flow_runs_in_the_task_that_calls_it(self) -> None:
        """Context variables set by an async body stay set, as after a plain await."""
        variable = contextvars.ContextVar("variable", default=0)

        @flow
        async def body() -> anyio.TaskInfo:
            variable.set(1)
            return anyio.get_current_task()

        assert await body() == anyio.get_current_task()
        assert variable.get() == 1

    async def test_a_sync_flow_runs_in_place_on_a_loop(self) -> None:
        """Called on a loop's thread a sync flow just runs there."""

        @flow
        def where() -> int:
            return double(threading.get_ident())

        assert where() == 2 * threading.get_ident()
        async with Engine():
            assert where() == 2 * threading.get_ident()

    @pytest.mark.parametrize("value", [None, 0, "", [], {}, ValueError("as a value")])
    @in_every_way
    def test_falsy_and_odd_values_are_values(self, way: Way, value: Any) -> None:
        """Nothing that a flow returns but states and runs decides how it ends."""
        made = way.flow(lambda: value)
        assert way.call(made) is value
        assert way.state(made).is_completed()


class TestStates:
    @in_every_way
    @of_each_kind
    def test_a_run_goes_through_pending_running_completed(
        self, way: Way, kind: str
    ) -> None:
        """Three transitions, numbered, with times that strictly increase."""
        seen = way.transitions(getattr(way, kind)(lambda: 1))
        names = [(t.previous and t.previous.name, t.state.name) for t in seen]
        assert names == [
            (None, "Pending"),
            ("Pending", "Running"),
            ("Running", "Completed"),
        ]
        assert [t.sequence for t in seen] == [1, 2, 3]
        times = [t.timestamp for t in seen]
        assert times[0] < times[1] < times[2]
        assert len({t.run.id for t in seen}) == 1

    @in_every_way
    def test_hook_and_caller_get_the_same_state(self, way: Way) -> None:
        """What a hook is given is the object that return_state gives."""
        given = []
        made = way.flow(
            lambda: 1, on_completion=[lambda f, run, s: given.append((f, run, s))]
        )
        state = way.state(made)
        [(definition, run, hooked)] = given
        assert definition is made
        assert isinstance(run, FlowRun)
        assert run.state is hooked is state
        assert (run.state_name, run.state_type) == ("Completed", StateType.COMPLETED)


def states_of(*kinds: str) -> list[State[Any]]:
    """Make the states of child runs that ended in such ways."""
    ends = {
        "completed": lambda: double(1, return_state=True),
        "failed": lambda: fail(return_state=True),
        "cancelled": lambda: cancelled(return_state=True),
        "crashed": lambda: Crashed(message="by hand"),
        "unfinished": lambda: Running(),
    }
    return [ends[kind]() for kind in kinds]


# What a flow returns, the type it ends in, and the message of that state.
JUDGED = [
    (["completed", "completed"], StateType.COMPLETED, "All states completed."),
    (["completed", "failed"], StateType.FAILED, "1/2 states failed."),
    (["failed", "completed", "crashed"], StateType.FAILED, "2/3 states failed."),
    (["failed", "cancelled"], StateType.CANCELLED, "1/2 states cancelled."),
    (["crashed", "cancelled"], StateType.CANCELLED, "1/2 states cancelled."),
    (["completed", "unfinished"], StateType.FAILED, "1/2 states are not final."),
]


class TestFinalState:
    @pytest.mark.parametrize("collection", [list, tuple, set])
    @pytest.mark.parametrize(("kinds", "type_", "message"), JUDGED)
    @in_every_way
    def test_a_collection_of_states_decides(
        self,
        way: Way,
        kinds: list[str],
        type_: StateType,
        message: str,
        collection: Any,
    ) -> None:
        """The worst of the returned states is the flow's; a plain call gives them."""
        made = way.flow(lambda: collection(states_of(*kinds)))
        state = way.state(made)
        assert (state.type, state.message) == (type_, message)
        given = way.call(made)
        assert type(given) is collection
        assert sorted(s.type.value for s in given) == sorted(
            s.type.value for s in states_of(*kinds)
        )

    @in_every_way
    def test_a_single_failed_state_raises_its_error(self, way: Way) -> None:
        """A flow that returns the failed state of a task ends like it."""
        made = way.flow(lambda: fail("inner", return_state=True))
        state = way.state(made)
        assert (state.type, state.message) == (
            StateType.FAILED,
            "1/1 states failed.",
        )
        with pytest.raises(ValueError, match=r"^inner$"):
            way.call(made)
        with pytest.raises(ValueError, match=r"^inner$"):
            state.result()

    @in_every_way
    def test_a_single_completed_state_gives_its_value(self, way: Way) -> None:
        """A flow that returns the completed state of a task has its value."""
        made = way.flow(lambda: double(4, return_state=True))
        assert way.call(made) == 8
        assert way.state(made).result() == 8

    @pytest.mark.parametrize(
        ("returned", "type_", "name", "hook"),
        [
            (Completed(data=5), StateType.COMPLETED, "Completed", "on_completion"),
            (Completed(data=5, name="Skipped"), StateType.COMPLETED, "Skipped",
             "on_completion"),
            (Failed(message="by hand"), StateType.FAILED, "Failed", "on_failure"),
            (TimedOut(message="late"), StateType.FAILED, "TimedOut", "on_failure"),
            (Crashed(message="by hand"), StateType.CRASHED, "Crashed", "on_crashed"),
            (Cancelled(message="by hand"), StateType.CANCELLED, "Cancelled",
             "on_cancellation"),
        ],
        ids=str,
    )  # fmt: skip
    @in_every_way
    @of_each_kind
    def test_a_state_made_by_hand_is_taken_as_it_is(
        self,
        way: Way,
        kind: str,
        returned: State[Any],
        type_: StateType,
        name: str,
        hook: str,
    ) -> None:
        """A body chooses how its run ends, and the hooks of that state run."""
        notes = Notes()
        made = getattr(way, kind)(lambda: returned, **notes.hooks())
        state = way.state(made)
        assert (state.type, state.name) == (type_, name)
        assert (state.data, state.message) == (returned.data, returned.message)
        assert state.run_id is not None
        assert notes == [("on_running", "Running"), (hook, name)]

    @pytest.mark.parametrize(
        ("returned", "error", "text"),
        [
            (Failed(message="why"), FailedRun, "why"),
            (Failed(data="why"), FailedRun, "why"),
            (Failed(data=KeyError("k")), KeyError, "'k'"),
            (Crashed(message="why"), CrashedRun, "why"),
            (Cancelled(message="why"), CancelledRun, "why"),
            (Running(), FailedRun, "1/1 states are not final."),
            (Pending(), FailedRun, "1/1 states are not final."),
        ],
        ids=str,
    )
    @in_every_way
    @of_each_kind
    def test_a_state_that_is_no_success_raises(
        self, way: Way, kind: str, returned: Any, error: type[Exception], text: str
    ) -> None:
        """The plain caller of a body that returned such a state gets an exception."""
        made = getattr(way, kind)(lambda: returned)
        with pytest.raises(error) as caught:
            way.call(made)
        assert str(caught.value) == text

    @pytest.mark.parametrize(
        "value",
        [
            {"a": Failed(message="no")},
            (Failed(message="no"), 5),
            [[Failed(message="no")]],
            [],
            {1: [2, (3,)]},
        ],
        ids=str,
    )
    @in_every_way
    def test_states_among_other_things_are_values(self, way: Way, value: Any) -> None:
        """Only a state, or a collection of nothing else, decides."""
        made = way.flow(lambda: value)
        assert way.state(made).is_completed()
        assert way.call(made) == value

    @in_every_way
    def test_retries_apply_to_a_returned_failure(self, way: Way) -> None:
        """A body that returns a failure is retried like one that raises it."""
        attempts = []

        def body() -> Any:
            attempts.append(1)
            return Failed(message="not yet") if len(attempts) < 3 else 7

        assert way.call(way.flow(body, retries=2)) == 7

    @in_every_way
    def test_a_generator_becomes_a_list(self, way: Way) -> None:
        """What a returned generator yields is collected before the run ends."""

        def count() -> Iterator[int]:
            yield from range(3)

        assert way.call(way.flow(lambda: count())) == [0, 1, 2]
        assert way.call(way.task(lambda: count())) == [0, 1, 2]

    def test_a_generator_function_can_be_a_flow(self) -> None:
        """The body of a generator function runs inside of its run."""

        @flow
        def count(n: int) -> Iterator[str | None]:
            for _ in range(n):
                yield runtime.flow_run.id

        ids = count(3)
        assert len(ids) == 3
        assert ids[0] is not None
        assert len(set(ids)) == 1

    def test_a_generator_that_raises_fails_its_run(self) -> None:
        """An error half-way through is the run's."""

        @flow
        def broken() -> Iterator[int]:
            yield 1
            raise LookupError("half-way")

        with pytest.raises(LookupError, match="half-way"):
            broken()

    async def test_an_async_generator_can_be_a_flow(self) -> None:
        """What an async generator function yields is collected too."""

        @flow
        async def count(n: int) -> AsyncIterator[int]:
            for i in range(n):
                await anyio.lowlevel.checkpoint()
                yield i

        assert await count(3) == [0, 1, 2]


@attrs.frozen
class Box:
    content: Any


class TestReturnedHandles:
    async def test_a_returned_handle_is_waited_for(self) -> None:
        """A flow that returns a handle ends when that run does, with its value."""
        release = anyio.Event()

        @task
        async def slow() -> int:
            await release.wait()
            return 3

        @flow
        async def body() -> Any:
            return slow.submit()

        async with Engine() as engine:
            handle = engine.start(body)
            await anyio.wait_all_tasks_blocked()
            assert handle.state.is_running()
            release.set()
            assert await handle == 3
            assert handle.state.message == "All states completed."

    async def test_a_returned_failed_handle_raises(self) -> None:
        """A flow that returns the handle of a failed task fails with its error."""

        @flow
        async def body() -> Any:
            return fail.submit("inner")

        with pytest.raises(ValueError, match="inner"):
            await body()
        state = await body(return_state=True)
        assert (state.type, state.message) == (
            StateType.FAILED,
            "1/1 states failed.",
        )

    def test_sync_flows_wait_for_returned_handles(self) -> None:
        """What a sync flow submits and returns is waited for by blocking."""

        @flow
        def body() -> Any:
            return [double.submit(i) for i in range(3)]

        assert [state.result() for state in body()] == [0, 2, 4]
        assert body(return_state=True).message == "All states completed."

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda h: [h],
            lambda h: (h,),
            lambda h: {h},
            lambda h: {"key": h},
            lambda h: [[{"key": (h,)}]],
            Box,
        ],
    )
    def test_handles_at_any_depth_become_states(self, wrap: Any) -> None:
        """Handles in whatever a flow returns are replaced by their terminal states."""

        @flow
        def body() -> Any:
            return wrap(double.submit(1))

        found = repr(body())
        assert "Completed(message=None, type=COMPLETED, result=2)" in found
        assert "RunHandle" not in found

    def test_a_quoted_value_is_given_as_it_is(self) -> None:
        """quote() keeps a flow's handles out of its result's judgement."""

        @flow
        def body() -> Any:
            return quote([fail.submit()])

        [handle] = body()
        assert handle.state.is_failed()
        assert body(return_state=True).is_completed()

    async def test_a_task_returns_handles_as_they_are(self) -> None:
        """Only flows are judged by the handles in what they return."""

        @task
        async def body() -> Any:
            return [fail.submit()]

        state = await body(return_state=True)
        assert state.is_completed()
        assert state.data[0].state.is_failed()


class TestChildren:
    @in_every_way
    def test_a_flow_ends_well_whatever_its_children_did(self, way: Way) -> None:
        """Failed children that were looked at or let be do not fail their flow."""

        def body() -> str:
            fail(return_state=True)
            return "well"

        assert way.call(way.flow(body)) == "well"

    @in_every_way
    def test_a_childs_error_goes_through_its_parents(self, way: Way) -> None:
        """An uncaught error of a task fails every flow on its way out."""
        inner = flow(name="inner")(lambda: fail("deep"))
        outer = way.flow(lambda: inner(), name="outer")
        states = [
            (t.run.flow_name, t.state.name)
            for t in way.transitions(outer)
            if isinstance(t.run, FlowRun) and t.state.is_final()
        ]
        assert states == [("inner", "Failed"), ("outer", "Failed")]

    @in_every_way
    def test_a_crash_goes_through_its_parents(self, way: Way) -> None:
        """A SystemExit in a task crashes every run on its way out, and is re-raised."""
        notes = Notes()
        inner = flow(on_crashed=[notes.hook("inner")])(lambda: crash())
        outer = way.flow(lambda: inner(), on_crashed=[notes.hook("outer")])
        with pytest.raises(SystemExit, match="crashed on purpose"):
            way.call(outer)
        assert notes == [("inner", "Crashed"), ("outer", "Crashed")]

    @in_every_way
    def test_hooks_of_nested_runs_are_nested(self, way: Way) -> None:
        """Parent running, child running, child's end, parent's end."""
        notes = Notes()
        inner = task(
            on_running=[notes.hook("inner starts")],
            on_completion=[notes.hook("inner ends")],
        )(lambda: None)
        outer = way.flow(
            lambda: inner(),
            on_running=[notes.hook("outer starts")],
            on_completion=[notes.hook("outer ends")],
        )
        way.call(outer)
        assert [kind for kind, _ in notes] == [
            "outer starts",
            "inner starts",
            "inner ends",
            "outer ends",
        ]

    async def test_a_flow_waits_for_what_it_submitted(self) -> None:
        """Runs that nobody waits for end before their flow does."""
        release = anyio.Event()
        ended = []

        @task(on_completion=[lambda *_: ended.append("task")])
        async def slow() -> None:
            await release.wait()

        @flow(on_completion=[lambda *_: ended.append("flow")])
        async def body() -> None:
            slow.submit()

        async with Engine() as engine:
            handle = engine.start(body)
            await anyio.wait_all_tasks_blocked()
            assert handle.state.is_running()
            release.set()
            await handle
        assert ended == ["task", "flow"]

    async def test_failures_that_nobody_looked_at_are_kept(self) -> None:
        """handle.unobserved has the failed children whose end nobody saw, no others."""

        @flow
        async def body() -> list[str]:
            kept = fail.submit("kept")
            seen = [fail.submit("joined"), fail.submit("awaited")]
            await seen[0].join()
            with pytest.raises(ValueError, match="awaited"):
                await seen[1]
            double.submit(1)
            return [kept.id]

        async with Engine() as engine:
            handle = engine.start(body)
            [kept] = await handle
            assert [child.id for child in handle.unobserved] == [kept]
            assert handle.state.is_completed()

    def test_failures_that_a_sync_flow_let_be_are_kept(self) -> None:
        """The unobserved failures of a sync flow can be asked for as well."""

        @flow
        def body() -> None:
            fail.submit("kept")
            fail.submit("waited for").wait()

        with Engine() as engine:
            handle = engine.start(body)
            handle.wait()
            [child] = handle.unobserved
            assert str(child.state.data) == "kept"

    async def test_runs_know_their_parents(self) -> None:
        """Each run names its parent, its nearest flow run and the top of its tree."""
        seen: dict[str, Any] = {}

        def note(_: Any, run: Any, __: Any) -> None:
            seen[run.task_name if hasattr(run, "task_name") else run.flow_name] = run

        leaf = task(on_running=[note], name="leaf")(lambda: None)
        middle = task(on_running=[note], name="middle")(lambda: leaf())
        lower = flow(on_running=[note], name="lower")(lambda: middle())
        upper = flow(on_running=[note], name="upper")(lambda: lower())
        upper()
        ids = {name: run.id for name, run in seen.items()}
        assert {name: run.parent_run_id for name, run in seen.items()} == {
            "upper": None,
            "lower": ids["upper"],
            "middle": ids["lower"],
            "leaf": ids["middle"],
        }
        assert {name: run.flow_run_id for name, run in seen.items()} == {
            "upper": None,
            "lower": ids["upper"],
            "middle": ids["lower"],
            "leaf": ids["lower"],
        }
        assert seen["lower"].parent_flow_run_id == ids["upper"]
        assert seen["lower"].root_flow_run_id == ids["upper"]
        assert seen["upper"].root_flow_run_id == ids["upper"]


class Shop:
    """Flows and tasks as methods."""

    def __init__(self, city: str) -> None:
        self.city = city

    @flow(flow_run_name="{self.city}:{x}")
    def visit(self, x: int) -> tuple[str, int, str | None]:
        return self.city, x, runtime.flow_run.name

    @flow
    async def visit_async(self, x: int = 1) -> tuple[str, int]:
        return self.city, x

    @flow
    def visit_twice(self) -> list[Any]:
        return [self.visit(1), self.add(2, 3)]

    @classmethod
    @flow
    def found(cls) -> str:
        return cls.__name__

    @flow
    @classmethod
    def refound(cls) -> str:
        return cls.__name__

    @staticmethod
    @flow
    def price(x: int) -> int:
        return x

    @flow
    @staticmethod
    def reprice(x: int) -> int:
        return x

    @task(task_run_name="{self.city}")
    def add(self, a: int, b: int) -> tuple[int, str | None]:
        return a + b, runtime.task_run.name


class Outlet(Shop):
    pass


class TestMethods:
    def test_a_method_gets_its_instance(self) -> None:
        """Flows and tasks as methods are bound to what they are looked up on."""
        one, two = Shop("Rome"), Shop("Oslo")
        assert one.visit(1) == ("Rome", 1, "Rome:1")
        assert two.visit(x=2) == ("Oslo", 2, "Oslo:2")
        assert Shop.visit(one, 3)[:2] == ("Rome", 3)
        assert one.visit_twice() == [("Rome", 1, "Rome:1"), (5, "Rome")]

    async def test_an_async_method_gets_its_instance(self) -> None:
        """Async methods are bound alike, and can be started and submitted."""
        shop = Shop("Rome")
        assert await shop.visit_async() == ("Rome", 1)
        async with Engine() as engine:
            assert await engine.run(shop.visit_async, 2) == ("Rome", 2)
            assert await engine.start(shop.visit, 3) == ("Rome", 3, "Rome:3")
            assert await shop.add.submit(1, 2) == (3, "Rome")

    def test_class_and_static_methods_work_in_either_order(self) -> None:
        """@flow can stand above or below @classmethod and @staticmethod."""
        assert Shop.refound() == Shop("Rome").refound() == "Shop"
        assert Outlet.refound() == Outlet("Rome").refound() == "Outlet"
        assert Shop.found() == "Shop"
        assert Outlet.found() == "Outlet"
        assert Shop.reprice(1) == Shop("Rome").reprice(1) == 1
        assert Shop.price(1) == Shop("Rome").price(1) == 1

    def test_parameters_of_a_method_leave_self_out(self) -> None:
        """What a hook sees as the parameters of a method are those of the call."""
        seen = []

        class Shop:
            @flow(on_running=[lambda f, run, s: seen.append(run.parameters)])
            def visit(self, x: int, y: int = 2) -> None: ...

        Shop().visit(1)
        assert seen == [{"x": 1, "y": 2}]

    def test_a_hook_added_to_the_class_works_for_instances(self) -> None:
        """Bound flows share the hooks of the flow that they were bound from."""
        notes = Notes()

        class Shop:
            @flow
            def visit(self) -> None: ...

            visit.on_completion(notes.hook("completed"))

        Shop().visit()
        assert notes == [("completed", "Completed")]

    def test_a_callable_object_can_be_a_flow(self) -> None:
        """A flow of an object with __call__ is named after its class."""

        class Adder:
            def __call__(self, a: int, b: int) -> int:
                return a + b

        add = flow(Adder())
        assert add(1, 2) == 3
        assert add.name == "Adder"
        assert task(Adder())(1, b=2) == 3


class TestDescription:
    def test_a_flow_is_described_by_its_function(self) -> None:
        """Name, description and the function's own attributes come from it."""

        def my_flow(x: int) -> int:
            """Do it."""
            return x

        made = flow(my_flow)
        assert (made.name, made.options.description) == ("my-flow", "Do it.")
        assert (made.__name__, made.__doc__) == ("my_flow", "Do it.")
        assert made.__wrapped__ is my_flow
        assert repr(made) == "<flow 'my-flow'>"
        assert task(my_flow).name == "my_flow"
        assert flow(lambda: None).name == "unknown-lambda"

    def test_options_describe_it_better(self) -> None:
        """name, description and version can be given."""
        made = flow(name="Über uns / 50 %", description="why", version="2")(lambda: 1)
        options = made.options
        assert (made.name, options.description, options.version) == (
            "Über uns / 50 %",
            "why",
            "2",
        )

    def test_options_can_be_given_beside_the_function(self) -> None:
        """flow(fn, name=…) does what flow(name=…)(fn) does."""
        assert flow(lambda: 1, name="given").name == "given"
        assert task(lambda: 1, name="given").name == "given"


class TestValidation:
    def test_arguments_are_coerced_to_the_annotations(self) -> None:
        """validate_parameters=True passes what pydantic makes of the arguments."""

        @flow(validate_parameters=True)
        def body(x: int, *rest: float, y: list[int] | None = None, **more: str) -> Any:
            return x, rest, y, more, runtime.flow_run.parameters["x"]

        assert body("1", "2", y=("3",), z="4") == (1, (2.0,), [3], {"z": "4"}, 1)

    def test_annotations_are_not_looked_at_by_default(self) -> None:
        """Without the option a flow takes what it is given."""

        @flow
        def body(x: int) -> Any:
            return x

        assert body("1") == "1"  # type: ignore[arg-type]

    @in_every_way
    def test_arguments_that_do_not_fit_fail_the_run(self, way: Way) -> None:
        """The caller gets an error that names the function and each bad parameter."""
        notes = Notes()

        def body(x: int, y: int) -> None:
            notes.append("body")

        made = way.flow(body, validate_parameters=True, retries=2, **notes.hooks())
        with pytest.raises(ParameterTypeError, match=r"body\(\).*x: .*; y: ") as caught:
            way.call(made, "one", y="two")
        assert isinstance(caught.value, TypeError)
        assert notes == [("on_failure", "Failed")]
        assert way.states(made, "one", 2) == ["Pending", "Failed"]

    def test_methods_are_validated_without_self(self) -> None:
        """A validated method gets its instance untouched."""

        class Shop:
            @flow(validate_parameters=True)
            def visit(self, x: int) -> Any:
                return self, x

        shop = Shop()
        assert shop.visit("1") == (shop, 1)

    def test_runs_are_resolved_before_they_are_validated(self) -> None:
        """A handle or state given for a parameter is validated as its result."""

        @flow(validate_parameters=True)
        def inner(x: float) -> float:
            return x

        @flow
        def outer() -> Any:
            return inner(double.submit(1)), inner(double(2, return_state=True))

        assert outer() == (2.0, 4.0)

    def test_any_class_may_stand_in_an_annotation(self) -> None:
        """Classes that pydantic does not know are checked by isinstance."""

        class Own:
            pass

        @flow(validate_parameters=True)
        def body(x: Own) -> Own:
            return x

        own = Own()
        assert body(own) is own
        with pytest.raises(ParameterTypeError, match="instance of"):
            body(3)  # type: ignore[arg-type]


async def test_cancelling_is_an_error_for_the_waiting_caller() -> None:
    """Who awaits a handle of a cancelled flow gets CancelledRun with the cause."""

    @flow
    async def body() -> None:
        await anyio.sleep_forever()

    async with Engine() as engine:
        handle = engine.start(body)
        await anyio.wait_all_tasks_blocked()
        handle.cancel("enough")
        with pytest.raises(CancelledRun, match="enough") as caught:
            await handle
    assert caught.value.cause == "user"
