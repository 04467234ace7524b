"""Mistakes: each is refused at the earliest moment, by an error that helps."""

import pickle
import re
import threading
from functools import partial
from typing import Any

import anyio
import pytest
import structlog.testing
from support import HOOKS, Notes, Way, in_every_way, of_each_kind

from engine import (
    Engine,
    Hook,
    as_completed,
    flow,
    runtime,
    tags,
    task,
    wait,
)
from engine.exceptions import (
    BlockingCallError,
    EngineError,
    HookDefinitionError,
    MappingMissingIterable,
    NoEngineError,
    ReservedArgumentError,
)
from engine.states import Failed
from engine.tasks import exponential_backoff

NAN, INFINITY = float("nan"), float("inf")

DECORATORS: dict[str, Any] = {"flow": flow, "task": task}


def my_function(x: int = 1) -> int:
    return x


def hook(definition: Any, run: Any, state: Any) -> None: ...


def check(error: BaseException, kind: type[Exception], *parts: str) -> None:
    """Check that an error is this library's, of a kind, and says each of the parts."""
    assert isinstance(error, EngineError)
    assert isinstance(error, kind)
    for part in parts:
        assert part in str(error), f"{part!r} is missing in: {error}"


# An option, a bad value of it, the kind of error, and what it says.
BAD_OPTIONS: list[tuple[str, Any, type[Exception], str]] = [
    ("retries", -1, ValueError, "retries must be >= 0, got -1"),
    ("retries", 1.5, TypeError, "retries must be a whole number, got 1.5"),
    ("retries", "2", TypeError, "retries must be a whole number, got '2'"),
    ("retries", True, TypeError, "retries must be a whole number, got True"),
    ("retry_delay_seconds", -1, ValueError, "must be >= 0 seconds, got -1"),
    (
        "retry_delay_seconds",
        NAN,
        ValueError,
        "must be >= 0 seconds and finite, got nan",
    ),
    (
        "retry_delay_seconds",
        INFINITY,
        ValueError,
        "must be >= 0 seconds and finite, got inf",
    ),
    ("retry_delay_seconds", [1, -1], ValueError, "must be >= 0 seconds, got -1"),
    (
        "retry_delay_seconds",
        [1, "2"],
        TypeError,
        "must be a number of seconds, got '2'",
    ),
    ("retry_delay_seconds", "10", TypeError, "a list of them or a callable, got '10'"),
    ("retry_delay_seconds", True, TypeError, "got True"),
    ("retry_delay_seconds", [0.1] * 51, ValueError, "50 delays at most, got 51"),
    ("retry_delay_seconds", lambda n: -5, ValueError, "must be >= 0 seconds, got -5"),
    ("retry_delay_seconds", lambda n: "x", TypeError, "got 'x'"),
    ("retry_jitter_factor", -0.1, ValueError, "_factor must be >= 0, got -0.1"),
    ("retry_jitter_factor", NAN, ValueError, "must be >= 0 and finite, got nan"),
    ("retry_jitter_factor", "1", TypeError, "_factor must be a number, got '1'"),
    ("retry_condition_fn", 3, TypeError, "retry_condition_fn must be callable, got 3"),
    ("retry_condition_fn", lambda: True, TypeError, "_run, state); it is called with"),
    ("timeout_seconds", 0, ValueError, "timeout_seconds must be > 0 seconds, got 0"),
    ("timeout_seconds", -2, ValueError, "timeout_seconds must be > 0 seconds, got -2"),
    (
        "timeout_seconds",
        NAN,
        ValueError,
        "timeout_seconds must be > 0 seconds and finite, got nan",
    ),
    ("timeout_seconds", "5", TypeError, "must be a number of seconds, got '5'"),
    ("timeout_seconds", True, TypeError, "must be a number of seconds, got True"),
    ("tags", "urgent", TypeError, "tags must be a list of strings, got 'urgent'"),
    ("tags", [1], TypeError, "tags must be strings, got 1"),
    ("tags", 1, TypeError, "tags must be a list of strings, got 1"),
    ("tags", [["a"]], TypeError, "tags must be strings, got ['a']"),
    ("name", "", ValueError, "name must be printable and not empty, got ''"),
    ("name", "a\nb", ValueError, r"name must be printable and not empty, got 'a\nb'"),
    ("name", 3, TypeError, "name must be a string, got 3"),
    ("description", 3, TypeError, "description must be a string, got 3"),
    ("run_name", "{y}", ValueError, "the unknown name 'y'; the function has x ("),
    ("run_name", "{y.a[0]}", ValueError, "uses the unknown name 'y'"),
    ("run_name", "{}", ValueError, "uses the unknown name ''"),
    ("run_name", "{0}", ValueError, "uses the unknown name '0'"),
    ("run_name", "{x:{y}}", ValueError, "uses the unknown name 'y'"),
    ("run_name", "{x", ValueError, "is malformed"),
    ("run_name", 3, TypeError, "must be a template string or a callable, got 3"),
    ("run_name", lambda a, b: "", TypeError, "run_name"),
    ("log_prints", "no", TypeError, "log_prints must be True or False, got 'no'"),
]


class TestOptions:
    @pytest.mark.parametrize(("option", "value", "error", "text"), BAD_OPTIONS)
    @of_each_kind
    def test_bad_values_are_refused_at_decoration(
        self, kind: str, option: str, value: Any, error: type[Exception], text: str
    ) -> None:
        """The error names the option, the value and the function."""
        if option == "run_name":
            option = f"{kind}_run_name"
        with pytest.raises(error) as caught:
            DECORATORS[kind](**{option: value})(my_function)
        check(caught.value, error, text, option, f"{kind} 'my_function'")

    @pytest.mark.parametrize(("option", "value", "error", "text"), BAD_OPTIONS)
    def test_bad_values_are_refused_by_with_options(
        self, option: str, value: Any, error: type[Exception], text: str
    ) -> None:
        """When the copy is made."""
        option = "flow_run_name" if option == "run_name" else option
        with pytest.raises(error, match=re.escape(text)):
            flow(my_function).with_options(**{option: value})

    @pytest.mark.parametrize("option", ["retrys", "on_complete", "timeout"])
    @of_each_kind
    def test_unknown_options_are_refused(self, kind: str, option: str) -> None:
        """The error lists the options there are, before a function is decorated."""
        with pytest.raises(
            TypeError, match=f"@{kind} has no option '{option}'; it has"
        ):
            DECORATORS[kind](**{option: 1})
        with pytest.raises(
            TypeError, match=f"@{kind} has no option '{option}'; it has"
        ):
            DECORATORS[kind](my_function).with_options(**{option: 1})

    def test_options_of_the_other_kind_are_refused(self) -> None:
        """A flow has no task_run_name, a task no version."""
        with pytest.raises(TypeError, match="@flow has no option 'task_run_name'"):
            flow(task_run_name="x")  # type: ignore[call-overload]
        for option in ("flow_run_name", "version", "validate_parameters"):
            with pytest.raises(TypeError, match=f"@task has no option '{option}'"):
                task(**{option: "x"})

    @pytest.mark.parametrize("factor", [0, -1, NAN, INFINITY, "2"])
    def test_backoff_factors_have_to_be_positive(self, factor: Any) -> None:
        """exponential_backoff checks its own argument."""
        with pytest.raises((ValueError, TypeError), match=r"backoff_factor .* got"):
            exponential_backoff(factor)


class TestDecoration:
    @pytest.mark.parametrize("thing", [3, "my flow", None, ["x"]])
    @of_each_kind
    def test_what_is_no_function_is_refused(self, kind: str, thing: Any) -> None:
        """Decorating something that cannot be called tells what it is."""
        with pytest.raises(TypeError, match=f"@{kind} decorates a function, got "):
            DECORATORS[kind]()(thing)

    @pytest.mark.parametrize("name", ["return_state", "wait_for"])
    @of_each_kind
    def test_reserved_parameters_are_refused(self, kind: str, name: str) -> None:
        """A parameter that the call needs itself has to be renamed."""
        with pytest.raises(ReservedArgumentError) as caught:
            DECORATORS[kind](eval(f"lambda a, {name}=None: a"))
        check(caught.value, TypeError, "<lambda>()", f"'{name}'", "rename it")

    @of_each_kind
    def test_decorating_twice_is_refused(self, kind: str) -> None:
        """A flow of a flow, or a task of a flow, is more likely a mistake."""
        for inner in (flow, task):
            with pytest.raises(TypeError, match=r"already a (flow|task)"):
                DECORATORS[kind](inner(my_function))

    def test_validation_without_its_extra_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """validate_parameters=True without pydantic names the extra."""
        monkeypatch.setitem(__import__("sys").modules, "pydantic", None)
        with pytest.raises(ImportError) as caught:
            flow(validate_parameters=True)(my_function)
        check(caught.value, ImportError, "pip install 'actor-engine[validate]'")


class HookObject:
    def __call__(self, run: Any) -> None: ...


async def async_generator(definition: Any, run: Any, state: Any) -> Any:
    yield 1


def generator(definition: Any, run: Any, state: Any) -> Any:
    yield 1


BAD_HOOKS: list[tuple[Any, str]] = [
    ("print", "it is a str, not a callable"),
    (3, "it is an int, not a callable"),
    (lambda: None, "it is called with 3 positional arguments, but too many"),
    (lambda a, b: None, "it is called with 3 positional arguments, but too many"),
    (lambda a, b, c, d: None, "but missing a required argument: 'd'"),
    (lambda a, b, c, *, d: None, "but missing a required "),
    (partial(hook, 1), "it is called with 3 positional arguments, but too many"),
    (partial(hook, state=1), "it is called with 3 positional arguments, but too many"),
    (HookObject(), "it is called with 3 positional arguments, but too many"),
    (async_generator, "it is a generator function"),
    (generator, "it is a generator function"),
    (partial(async_generator), "it is a generator function"),
]


class TestHooks:
    @pytest.mark.parametrize(("thing", "problem"), BAD_HOOKS)
    @pytest.mark.parametrize("kind_of_hook", HOOKS)
    @of_each_kind
    def test_what_cannot_be_called_as_a_hook_is_refused(
        self, kind: str, kind_of_hook: str, thing: Any, problem: str
    ) -> None:
        """At decoration, in a list or as a decorator, with the right form to copy."""
        made = DECORATORS[kind](my_function)
        form = f"def hook({kind}, {kind}_run, state): ..."
        usage = f"@{kind}({kind_of_hook}=[hook])\ndef my_{kind}(): ..."
        for register in (
            lambda: DECORATORS[kind](**{kind_of_hook: [hook, thing]})(my_function),
            lambda: made.with_options(**{kind_of_hook: [thing]}),
            lambda: getattr(made, kind_of_hook)(thing),
        ):
            with pytest.raises(HookDefinitionError) as caught:
                register()
            check(caught.value, TypeError, kind_of_hook, problem, form, usage)
        assert not made.hooks

    @pytest.mark.parametrize("thing", [hook, "hook", 3, Hook(hook)])
    @of_each_kind
    def test_hooks_have_to_be_in_a_list(self, kind: str, thing: Any) -> None:
        """A bare hook, or a string, says that a list is needed."""
        with pytest.raises(HookDefinitionError) as caught:
            DECORATORS[kind](on_failure=thing)(my_function)
        text = f"it takes a list of hooks, got {type(thing).__name__}"
        check(caught.value, TypeError, text, "on_failure=[hook]")

    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            ({"timeout": 0}, ValueError, "timeout must be > 0 seconds"),
            ({"timeout": -1}, ValueError, "got -1 (hook 'hook')"),
            ({"timeout": NAN}, ValueError, "got nan (hook 'hook')"),
            ({"timeout": "1"}, TypeError, "got '1' (hook 'hook')"),
            ({"retries": -1}, ValueError, "retries must be >= 0, got -1 (hook 'hook')"),
            ({"retries": 0.5}, TypeError, "got 0.5 (hook 'hook')"),
            ({"on_error": "raise"}, ValueError, "'log' or 'fail_run', got 'raise'"),
        ],
    )
    def test_bad_hook_options_are_refused(
        self, options: dict[str, Any], error: type[Exception], text: str
    ) -> None:
        """When the Hook is made."""
        with pytest.raises(error, match=re.escape(text)):
            Hook(hook, **options)

    @pytest.mark.parametrize("thing", [3, "print", None])
    def test_a_hook_of_nothing_is_refused(self, thing: Any) -> None:
        """Hook(…) wants a callable at once."""
        with pytest.raises(TypeError, match="not a callable"):
            Hook(thing)

    @pytest.mark.parametrize("kind_of_hook", HOOKS)
    def test_only_some_hooks_can_fail_their_run(self, kind_of_hook: str) -> None:
        """on_error='fail_run' is refused where the run is over, or being stopped."""
        failing = Hook(hook, on_error="fail_run")
        if kind_of_hook in ("on_running", "on_retry"):
            flow(**{kind_of_hook: [failing]})(my_function)
            return
        with pytest.raises(HookDefinitionError, match="for on_running and on_retry"):
            flow(**{kind_of_hook: [failing]})(my_function)


class TestCalls:
    @of_each_kind
    def test_wrong_arguments_name_the_function(self, kind: str) -> None:
        """As Python does it."""
        made = DECORATORS[kind](my_function)
        with pytest.raises(TypeError, match=r"^my_function\(\) .*'y'"):
            made(y=1)
        with pytest.raises(TypeError, match=r"^my_function\(\) too many positional"):
            made(1, 2)

    def test_submitting_outside_of_any_engine(self) -> None:
        """The error says what it needs, before a run is made."""
        with pytest.raises(NoEngineError) as caught:
            task(my_function).submit(1)
        check(
            caught.value,
            RuntimeError,
            "my_function.submit()",
            "'async with Engine()'",
            "inside of a flow",
        )

    def test_mapping_outside_of_any_engine(self) -> None:
        """The error names the call that was made."""
        with pytest.raises(NoEngineError, match=r"my_function\.map\(\)"):
            task(my_function).map([1])
        with pytest.raises(NoEngineError, match=r"my_function\.stream\(\)"):
            next(iter(task(my_function).stream([1])))

    def test_a_flow_has_no_map(self) -> None:
        """Flows are not submitted or mapped; the error says what to do instead."""
        made: Any = flow(my_function)
        for name in ("submit", "map", "stream"):
            with pytest.raises(AttributeError) as caught:
                getattr(made, name)
            assert f"flow 'my-function' has no {name}()" in str(caught.value)
            assert "engine.start(" in str(caught.value)

    def test_a_flow_is_nothing_to_map_over(self) -> None:
        """A flow given to a task's map is no iterable, and the error says so."""
        with Engine(), pytest.raises(MappingMissingIterable, match="<flow 'my-fun"):
            task(my_function).map(flow(my_function))

    async def test_blocking_on_the_loop(self) -> None:
        """Asking for the result on the loop says to await."""
        release = anyio.Event()

        @task
        async def slow(item: int) -> None:
            await release.wait()

        async with Engine():
            handles = slow.map([1])
            [handle] = handles
            for name, call in (
                ("handle.result()", handle.result),
                ("handle.wait()", handle.wait),
                ("handles.result()", handles.result),
                ("handles.wait()", handles.wait),
                ("wait()", lambda: wait(handles)),
                ("map()", lambda: slow.map(handle)),
            ):
                with pytest.raises(BlockingCallError) as caught:
                    call()
                check(caught.value, RuntimeError, "'await' the handle")
                assert str(caught.value).startswith(f"{name} would block")
            release.set()

    @pytest.mark.parametrize("timeout", [-1, NAN])
    def test_bad_timeouts_for_waiting(self, timeout: float) -> None:
        """A negative time is refused, whether or not the run has ended."""
        with Engine():
            handle = task(my_function).submit()
            for call in (handle.wait, handle.result):
                with pytest.raises(ValueError, match="timeout must be >= 0 seconds"):
                    call(timeout)

    @pytest.mark.parametrize("thing", [3, my_function, task(my_function), None])
    def test_waiting_for_what_is_no_run(self, thing: Any) -> None:
        """Something else among the handles is named."""
        for call in (wait, as_completed):
            with pytest.raises(TypeError, match=r"takes handles of runs, got "):
                call([thing])

    @pytest.mark.parametrize("thing", [3, ["a", "b"], None, b"tag"])
    def test_tags_that_are_no_strings(self, thing: Any) -> None:
        """Tags(…) refuses them before the block begins."""
        with pytest.raises(TypeError, match=r"tags must be strings, got "), tags(thing):
            pass

    @pytest.mark.parametrize("when", ["now", 5])
    def test_bad_times_for_states(self, when: Any) -> None:
        """A state made by hand checks its time."""
        from engine.states import AwaitingRetry, Scheduled

        for make in (Scheduled, AwaitingRetry):
            with pytest.raises(TypeError, match="scheduled_time must be a datetime"):
                make(scheduled_time=when)


class BrokenStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class BrokenRepr(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class NotPicklable(Exception):
    def __init__(self) -> None:
        super().__init__("cannot be pickled")
        self.lock = threading.Lock()


class Unhashable(Exception):
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")


class FalsyError(Exception):
    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


ODD_ERRORS = [
    BrokenStr("text"),
    BrokenRepr("text"),
    NotPicklable(),
    Unhashable("text"),
    FalsyError("text"),
    ExceptionGroup("many", [ValueError("one"), BrokenStr("two")]),
    StopIteration(3),
    StopAsyncIteration(3),
    Exception(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "\udcff"),
]


class TestOddExceptions:
    @pytest.mark.parametrize("error", ODD_ERRORS, ids=lambda e: type(e).__name__)
    @in_every_way
    @of_each_kind
    def test_they_survive_as_data(self, way: Way, kind: str, error: Exception) -> None:
        """Whatever an exception refuses to do, it ends its run as any other."""

        def body() -> None:
            raise error

        notes = Notes()
        made = getattr(way, kind)(body, retries=1, **notes.hooks())
        state = way.state(made)
        expected = error
        if way.is_async and isinstance(error, StopIteration):
            # Python itself does not let it leave a coroutine.
            expected = state.data
            assert isinstance(expected, RuntimeError)
            assert expected.__cause__ is error
        assert state.data is expected
        assert state.is_failed()
        assert type(expected).__name__ in state.message
        assert isinstance(repr(state) + str(state), str)
        assert notes == [
            ("on_running", "Running"),
            ("on_retry", "Retrying"),
            ("on_running", "Retrying"),
            ("on_failure", "Failed"),
        ]

    @pytest.mark.parametrize("error", ODD_ERRORS, ids=lambda e: type(e).__name__)
    def test_they_survive_in_hooks(self, error: Exception) -> None:
        """A hook that raises one is logged, and the run goes on."""

        def broken(*_: Any) -> None:
            raise error

        with structlog.testing.capture_logs() as logs:
            state = flow(on_running=[broken])(lambda: 1)(return_state=True)
        assert state.is_completed()
        assert [log["event"] for log in logs] == ["hook_failed"]

    async def test_they_survive_in_threads(self) -> None:
        """A submitted body that raises one ends its run as well."""

        @task
        def body(index: int) -> None:
            raise ODD_ERRORS[index]

        async with Engine():
            for index, handle in enumerate(body.map(range(len(ODD_ERRORS)))):
                state = await handle.join()
                assert state.data is ODD_ERRORS[index]

    def test_results_with_a_broken_repr_are_shown(self) -> None:
        """The repr of a state never raises."""

        class Broken:
            def __repr__(self) -> str:
                raise RuntimeError

        state = flow(Broken)(return_state=True)
        assert "its __repr__ failed" in repr(state)

    def test_our_own_errors_can_be_pickled(self) -> None:
        """With their facts, so that they cross processes."""
        for made in (
            NoEngineError("f.submit()"),
            BlockingCallError("handle.result()"),
            HookDefinitionError("h", "on_failure", "problem", "form"),
        ):
            copy = pickle.loads(pickle.dumps(made))
            assert str(copy) == str(made)
            assert type(copy) is type(made)


class TestRuntimeMistakes:
    def test_runtime_outside_of_runs_is_no_error(self) -> None:
        """Reading it in a script's main part gives nothing, and raises nothing."""
        assert runtime.flow_run.name is None

    def test_results_of_failed_states_by_hand(self) -> None:
        """A failed state with data that is no exception still raises an EngineError."""
        with pytest.raises(EngineError):
            Failed(data={"no": "exception"}).result()
