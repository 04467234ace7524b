"""Options: retries, deadlines, names, tags, and copies with other options."""

import itertools
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import structlog.testing
from support import Notes, Way, in_every_way, in_virtual_time, of_each_kind

from engine import Engine, FlowRun, State, StateType, flow, runtime, tags, task
from engine.states import Failed
from engine.tasks import exponential_backoff


class Flaky:
    """A body that fails so many times, then gives the number of its attempts."""

    def __init__(self, failures: float = float("inf")) -> None:
        self.failures = failures
        self.attempts = 0

    def __call__(self) -> int:
        self.attempts += 1
        if self.attempts <= self.failures:
            raise ConnectionError(f"attempt {self.attempts}")
        return self.attempts


def start_times(way: Way, **options: Any) -> list[float]:
    """Run a task that always fails; return when its attempts began, by the loop."""
    times = []

    @task(**options)
    async def failing() -> None:
        times.append(anyio.current_time())
        raise ConnectionError

    assert way.state(failing).is_failed()
    return times


class TestRetries:
    @in_every_way
    @of_each_kind
    def test_a_failure_is_retried_so_many_times(self, way: Way, kind: str) -> None:
        """With retries=2 a body that always fails is tried three times."""
        notes, flaky = Notes(), Flaky()
        made = getattr(way, kind)(flaky, retries=2, **notes.hooks())
        with pytest.raises(ConnectionError, match="attempt 3"):
            way.call(made)
        assert flaky.attempts == 3
        assert notes == [
            ("on_running", "Running"),
            ("on_retry", "Retrying"),
            ("on_running", "Retrying"),
            ("on_retry", "Retrying"),
            ("on_running", "Retrying"),
            ("on_failure", "Failed"),
        ]

    @in_every_way
    @of_each_kind
    def test_a_retry_may_succeed(self, way: Way, kind: str) -> None:
        """The run completes with the value of its first attempt that has one."""
        flaky = Flaky(failures=2)
        made = getattr(way, kind)(flaky, retries=5)
        state = way.state(made)
        assert (state.data, state.attempt) == (3, 3)
        assert flaky.attempts == 3

    @in_every_way
    @of_each_kind
    def test_without_retries_one_failure_is_the_end(self, way: Way, kind: str) -> None:
        """The default is to try once."""
        flaky = Flaky(failures=1)
        assert way.states(getattr(way, kind)(flaky)) == ["Pending", "Running", "Failed"]

    @in_every_way
    @of_each_kind
    def test_a_delay_is_a_state_of_its_own(self, way: Way, kind: str) -> None:
        """While it waits the run is AwaitingRetry, which tells why and until when."""
        made = getattr(way, kind)(
            Flaky(failures=1), retries=1, retry_delay_seconds=0.002
        )
        seen = way.transitions(made)
        assert [t.state.name for t in seen] == [
            "Pending",
            "Running",
            "AwaitingRetry",
            "Retrying",
            "Completed",
        ]
        waiting = seen[2].state
        assert waiting.type is StateType.SCHEDULED
        assert waiting.message == (
            f"{kind.capitalize()} run encountered an exception:"
            " ConnectionError: attempt 1"
        )
        assert isinstance(waiting.data, ConnectionError)
        delay = waiting.scheduled_time - waiting.timestamp
        assert delay.total_seconds() == pytest.approx(0.002, abs=1e-5)

    @pytest.mark.parametrize(
        ("delays", "expected"),
        [
            (10, [0, 10, 20, 30, 40]),
            (0.5, [0, 0.5, 1, 1.5, 2]),
            ([1, 10], [0, 1, 11, 21, 31]),
            ((5, 0, 5), [0, 5, 5, 10, 15]),
            ([1, 2, 3, 4, 5, 6], [0, 1, 3, 6, 10]),
            ([], [0, 0, 0, 0, 0]),
            (0, [0, 0, 0, 0, 0]),
            (exponential_backoff(10), [0, 10, 30, 70, 150]),
            (lambda retries: [retries * 2.0], [0, 8, 16, 24, 32]),
        ],
        ids=repr,
    )
    @in_virtual_time
    def test_delays_are_kept(self, way: Way, delays: Any, expected: list[int]) -> None:
        """A delay for all, one for each, the last of them again, or a function's."""
        assert start_times(way, retries=4, retry_delay_seconds=delays) == expected

    @in_virtual_time
    def test_jitter_makes_delays_longer_at_random(self, way: Way) -> None:
        """Each delay grows by up to the factor, and no two alike."""
        times = start_times(
            way, retries=20, retry_delay_seconds=10, retry_jitter_factor=0.5
        )
        delays = [after - before for before, after in itertools.pairwise(times)]
        assert all(10 <= delay <= 15.000001 for delay in delays)
        assert len({round(delay, 6) for delay in delays}) > 10
        assert max(delays) > 11

    @pytest.mark.parametrize("asynchronous", [False, True])
    @in_every_way
    @of_each_kind
    def test_a_condition_decides(self, way: Way, kind: str, asynchronous: bool) -> None:
        """A condition, sync or async, gets the failure; a false answer ends it."""
        asked = []

        def condition(definition: Any, run: Any, state: State[Any]) -> bool:
            asked.append((definition, run, state))
            return str(state.data) == "attempt 1"

        async def condition_async(*args: Any) -> bool:
            await anyio.lowlevel.checkpoint()
            return condition(*args)

        flaky = Flaky()
        made = getattr(way, kind)(
            flaky,
            retries=5,
            retry_condition_fn=condition_async if asynchronous else condition,
        )
        with pytest.raises(ConnectionError, match="attempt 2"):
            way.call(made)
        assert flaky.attempts == 2
        assert [definition for definition, _, _ in asked] == [made, made]
        assert [run.attempt for _, run, _ in asked] == [1, 2]
        assert [state.name for _, _, state in asked] == ["Failed", "Failed"]

    @in_every_way
    def test_a_condition_is_asked_only_when_it_matters(self, way: Way) -> None:
        """Not after a success, and not when no attempt is left."""
        asked = []

        def condition(*_: Any) -> bool:
            asked.append(1)
            return True

        way.call(way.task(lambda: 1, retries=3, retry_condition_fn=condition))
        way.state(way.task(Flaky(), retries=2, retry_condition_fn=condition))
        assert len(asked) == 2

    @in_every_way
    def test_a_condition_that_raises_is_a_no(self, way: Way) -> None:
        """The error is logged, and the run fails with the body's own."""

        def condition(*_: Any) -> bool:
            raise LookupError("my mistake")

        flaky = Flaky()
        made = way.task(flaky, retries=3, retry_condition_fn=condition)
        with (
            structlog.testing.capture_logs() as logs,
            pytest.raises(ConnectionError),
        ):
            way.call(made)
        assert flaky.attempts == 1
        [line] = [log for log in logs if log["event"] == "retry_condition_failed"]
        assert line["error"] == "LookupError: my mistake"

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
    def test_a_crash_is_not_retried(self, error: type[BaseException]) -> None:
        """What is no Exception ends the run whatever its options."""
        attempts = []

        @flow(retries=3)
        def body() -> None:
            attempts.append(1)
            raise error

        with pytest.raises(error):
            body()
        assert len(attempts) == 1

    @in_every_way
    def test_retries_of_parents_and_children_multiply(self, way: Way) -> None:
        """A flow that is retried calls its tasks anew."""
        flaky = Flaky()
        inner = task(retries=1)(lambda: flaky())
        assert way.state(way.flow(lambda: inner(), retries=2)).is_failed()
        assert flaky.attempts == 6

    async def test_a_retry_waits_for_the_children_of_the_last_attempt(self) -> None:
        """What a failed attempt left running is cancelled before the next begins."""
        order = []

        @task
        async def child() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                order.append("child stopped")

        @flow(retries=1)
        async def body() -> None:
            order.append("attempt")
            if len(order) == 1:
                child.submit()
                await anyio.wait_all_tasks_blocked()
                raise ConnectionError

        await body()
        assert order == ["attempt", "child stopped", "attempt"]

    @in_virtual_time
    def test_a_run_can_be_cancelled_while_it_waits(self, way: Way) -> None:
        """Cancelling a run that awaits its retry does not wait for the delay."""
        flaky = Flaky()
        failing = way.task(flaky, retries=3, retry_delay_seconds=3600)

        async def main() -> None:
            async with Engine() as engine:
                handle = engine.start(failing)
                await anyio.sleep(60)
                assert handle.state.name == "AwaitingRetry"
                handle.cancel()
                assert (await handle.join()).is_cancelled()
                assert anyio.current_time() == 60

        way.call(main)
        assert flaky.attempts == 1

    def test_a_thread_can_be_cancelled_while_it_waits(self) -> None:
        """A sync run in a worker thread does not sit out its delay either."""
        waits = threading.Event()
        failing = task(
            retries=3,
            retry_delay_seconds=3600,
            on_retry=[lambda *_: waits.set()],
        )(Flaky())
        with Engine() as engine:
            handle = engine.start(failing)
            assert waits.wait(10)
            handle.cancel()
            assert handle.wait(10).is_cancelled()

    @in_every_way
    def test_hooks_see_the_attempt(self, way: Way) -> None:
        """Run and state count attempts from 1; runtime does in the body."""
        seen: list[tuple[int, int, int]] = []
        inside = []

        def note(_: Any, run: Any, state: State[Any]) -> None:
            seen.append((run.attempt, run.run_count, state.attempt))

        def body() -> None:
            inside.append((runtime.task_run.attempt, runtime.task_run.run_count))
            raise ConnectionError

        way.state(way.task(body, retries=2, on_running=[note], on_failure=[note]))
        assert inside == [(1, 1), (2, 2), (3, 3)]
        assert seen == [(1, 1, 1), (2, 2, 2), (3, 3, 3), (3, 3, 3)]


class TestTimeouts:
    @of_each_kind
    @in_virtual_time
    def test_a_body_past_its_deadline_is_stopped(self, way: Way, kind: str) -> None:
        """An async body is interrupted at the deadline, and its run is TimedOut."""
        stopped = []

        async def body() -> None:
            try:
                await anyio.sleep(3600)
            finally:
                stopped.append(anyio.current_time())

        made = {"flow": flow, "task": task}[kind](timeout_seconds=60.0)(body)
        with pytest.raises(TimeoutError) as caught:
            way.call(made)
        text = f"{kind.capitalize()} run exceeded timeout of 60 second(s)"
        assert str(caught.value) == text
        assert stopped == [60]
        state = way.state(made)
        assert (state.type, state.name, state.message) == (
            StateType.FAILED,
            "TimedOut",
            text,
        )

    @in_virtual_time
    def test_a_body_in_time_is_let_be(self, way: Way) -> None:
        """A deadline that does not pass leaves no trace."""

        @task(timeout_seconds=60)
        async def body() -> float:
            await anyio.sleep(59)
            return anyio.current_time()

        async def main() -> Any:
            value = await body()
            await anyio.sleep(3600)
            return value

        assert way.call(main) == 59

    @in_virtual_time
    def test_each_attempt_has_its_own_deadline(self, way: Way) -> None:
        """A timeout is retried like any failure, with the whole time again."""
        times = []

        @task(timeout_seconds=10, retries=2, retry_delay_seconds=5)
        async def body() -> None:
            times.append(anyio.current_time())
            await anyio.sleep(3600)

        assert way.states(body) == [
            "Pending", "Running", "AwaitingRetry", "Retrying", "AwaitingRetry",
            "Retrying", "TimedOut",
        ]  # fmt: skip
        assert times == [0, 15, 30]

    @in_virtual_time
    def test_a_deadline_of_a_flow_reaches_its_tasks(self, way: Way) -> None:
        """A flow's children are cancelled with cause parent when its time is up."""
        ended = []

        async def note(_: Any, run: Any, state: State[Any]) -> None:
            ended.append((type(run).__name__, state.name, state.cause))

        @task(on_cancellation=[note])
        async def slow() -> None:
            await anyio.sleep(3600)

        @flow(timeout_seconds=10, on_failure=[note])
        async def body() -> None:
            slow.submit()
            await slow()

        with pytest.raises(TimeoutError):
            way.call(body)
        assert ended == [
            ("TaskRun", "Cancelling", "parent"),
            ("TaskRun", "Cancelling", "parent"),
            ("FlowRun", "TimedOut", None),
        ]

    @in_virtual_time
    def test_a_deadline_covers_the_children_a_flow_waits_for(self, way: Way) -> None:
        """Waiting for submitted tasks after the body's end counts as well."""

        @task
        async def slow() -> None:
            await anyio.sleep(3600)

        @flow(timeout_seconds=10)
        async def body() -> None:
            slow.submit()

        with pytest.raises(TimeoutError):
            way.call(body)

    @in_virtual_time
    def test_a_body_may_clean_up_after_its_deadline(self, way: Way) -> None:
        """TimedOut is entered when the body has returned, whatever it raises then."""

        @task(timeout_seconds=10)
        async def body() -> None:
            try:
                await anyio.sleep(3600)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(5)
                raise LookupError("in the clean-up")

        async def main() -> tuple[str, float]:
            state = await body(return_state=True)
            return state.name, anyio.current_time()

        assert way.call(main) == ("TimedOut", 15)

    @in_every_way
    def test_a_timeout_error_of_its_own_is_a_failure(self, way: Way) -> None:
        """A TimeoutError that the body raises is an error like any other."""
        error = TimeoutError("mine")

        def body() -> None:
            raise error

        state = way.state(way.flow(body, timeout_seconds=60))
        assert (state.name, state.data) == ("Failed", error)

    async def test_a_blocked_thread_is_given_up(self) -> None:
        """A sync body past its deadline is TimedOut on time, and left behind."""
        opened, entered = threading.Event(), []

        @task(timeout_seconds=0.2, retries=3)
        def body() -> str:
            entered.append(1)
            assert opened.wait(10)
            return "late"

        async with Engine() as engine:
            handle = body.submit()
            state = await handle.join()
            assert state.name == "TimedOut"
            assert engine.statistics().abandoned_threads == 1
            opened.set()
            while engine.statistics().abandoned_threads:
                await anyio.lowlevel.checkpoint()
            assert handle.state is state
        assert entered == [1]

    def test_hooks_of_a_blocked_call_are_not_late(self) -> None:
        """In a plain thread on_failure runs at the deadline, while the body blocks."""
        hooked = threading.Event()

        @flow(timeout_seconds=0.002, on_failure=[lambda *_: hooked.set()])
        def body() -> str:
            assert hooked.wait(10)
            return "late"

        with pytest.raises(TimeoutError, match=r"exceeded timeout of 0\.002 second"):
            body()

    def test_no_timeout_needs_no_loop(self) -> None:
        """Without a timeout a sync flow starts no thread, with one it does."""

        @flow
        def new_threads() -> set[str]:
            return {thread.name for thread in set(threading.enumerate()) - before}

        before = set(threading.enumerate())
        assert new_threads() == set()
        assert new_threads.with_options(timeout_seconds=60)() == {"engine-loop"}


class Account:
    def __init__(self, owner: str) -> None:
        self.owner = owner

    @task(task_run_name="{self.owner}/{amount:.2f}")
    def pay(self, amount: float) -> str | None:
        return runtime.task_run.name

    # This way round: a classmethod of a task is no task any more on Python 3.13.
    @task(task_run_name="{cls.__name__}")
    @classmethod
    def make(cls) -> str | None:
        return runtime.task_run.name


class TestNames:
    @pytest.mark.parametrize(
        ("template", "name"),
        [
            ("plain", "plain"),
            ("{a}-{b}", "1-two"),
            ("{b!r:>7}", "  'two'"),
            ("{a:03d}", "001"),
            ("{c[key]}|{c[0]}", "value|zero"),
            ("{c.__class__.__name__}", "dict"),
            ("{{a}}", "{a}"),
            ("{a:{width}}", "    1"),
        ],
    )
    @in_every_way
    @of_each_kind
    def test_a_template_names_runs(
        self, way: Way, kind: str, template: str, name: str
    ) -> None:
        """It is filled in with the parameters, defaults included."""
        given = {"key": "value", 0: "zero"}

        def body(a: int, b: str = "two", c: Any = given, width: int = 5) -> None: ...

        made = getattr(way, kind)(body, **{f"{kind}_run_name": template})
        names = {t.run.name for t in way.transitions(made, 1)[1:]}
        assert names == {name}

    def test_a_template_of_a_method_sees_its_instance(self) -> None:
        """{self.…} and {cls.…} are what the method is bound to."""
        assert Account("Ada").pay(2) == "Ada/2.00"
        assert Account("Bob").pay(amount=3) == "Bob/3.00"
        assert Account.make() == "Account"

    def test_a_template_sees_what_kwargs_hold(self) -> None:
        """A function with **kwargs may be named after any of them."""

        @flow(flow_run_name="{x}")
        def body(**kwargs: Any) -> str | None:
            return runtime.flow_run.name

        assert body(x=1) == "1"

    @in_every_way
    @of_each_kind
    def test_a_callable_names_runs(self, way: Way, kind: str) -> None:
        """It is called without arguments, in the run's context."""

        def name() -> str:
            run = getattr(runtime, f"{kind}_run")
            return f"x is {run.parameters['x']}"

        made = getattr(way, kind)(lambda x: None, **{f"{kind}_run_name": name})
        assert {t.run.name for t in way.transitions(made, 5)[1:]} == {"x is 5"}

    def test_a_callable_may_take_the_parameters(self) -> None:
        """One with a parameter called parameters gets them."""

        @task(task_run_name=lambda parameters: f"x is {parameters['x']}")
        def body(x: int) -> str | None:
            return runtime.task_run.name

        assert body(5) == "x is 5"

    @in_every_way
    def test_a_run_is_named_once(self, way: Way) -> None:
        """Retries keep the name, and on_running hooks know it."""
        counter = itertools.count()
        seen = []
        made = way.task(
            Flaky(),
            retries=2,
            task_run_name=lambda: f"number {next(counter)}",
            on_running=[lambda t, run, s: seen.append(run.name)],
        )
        way.state(made)
        assert seen == ["number 0"] * 3

    @pytest.mark.parametrize(
        ("name", "error", "text"),
        [
            ("{x.nothing}", AttributeError, "nothing"),
            ("{x[0]}", TypeError, "not subscriptable"),
            (lambda: None, TypeError, "returned NoneType, but a string is required"),
            (lambda: 1 / 0, ZeroDivisionError, "division by zero"),
        ],
    )
    @in_every_way
    def test_a_name_that_cannot_be_made_fails_the_run(
        self, way: Way, name: Any, error: type[Exception], text: str
    ) -> None:
        """Before its body starts, and with on_failure."""
        notes = Notes()
        made = way.flow(lambda x: None, flow_run_name=name, **notes.hooks())
        with pytest.raises(error, match=text):
            way.call(made, 1)
        assert notes == [("on_failure", "Failed")]

    def test_runs_have_names_of_their_own(self) -> None:
        """A flow run is called by two words, a task run after its task."""

        @task
        def my_task() -> str | None:
            return runtime.task_run.name

        @flow
        def body() -> tuple[str | None, str | None]:
            return runtime.flow_run.name, my_task()

        flow_name, task_name = body()
        assert flow_name is not None
        assert len(flow_name.split("-")) == 2
        assert task_name is not None
        assert task_name.startswith("my_task-")


@task
def tags_of_task() -> list[str]:
    found: list[str] = runtime.task_run.tags
    return found


@flow
def tags_of_flow() -> list[str]:
    found: list[str] = runtime.flow_run.tags
    return found


class TestTags:
    def test_tags_are_added_inside_of_a_block(self) -> None:
        """Blocks add up, with the tags of the task itself, and end with their block."""
        tagged = tags_of_task.with_options(tags=["own", "a"])
        with tags("a") as outer:
            assert tagged() == ["a", "own"]
            with tags("b", "c") as inner:
                assert tagged() == ["a", "b", "c", "own"]
            assert tags_of_task() == ["a"]
        assert tagged() == ["a", "own"]
        assert tags_of_task() == []
        assert (outer, inner) == ({"a"}, {"a", "b", "c"})

    async def test_tags_reach_everything_below(self) -> None:
        """Subflows and submitted tasks take the tags of the block they start in."""

        @flow
        async def upper() -> list[Any]:
            with tags("outer"):
                handles = [tags_of_task.submit()]
                found = [tags_of_flow()]
            return [*found, await handles[0], tags_of_flow()]

        assert await upper() == [["outer"], ["outer"], []]

    def test_hooks_see_the_tags(self) -> None:
        """A run's tags are a sorted list."""
        seen = []
        made = flow(tags={"b", "a"}, on_running=[lambda f, r, s: seen.append(r.tags)])
        made(lambda: None)()
        assert seen == [["a", "b"]]

    def test_a_block_ends_by_an_error_too(self) -> None:
        """Tags do not outlive a block that was left by an exception."""
        with pytest.raises(LookupError), tags("a"):
            raise LookupError
        assert tags_of_flow() == []


def hook(definition: Any, run: Any, state: Any) -> None: ...


def other_hook(definition: Any, run: Any, state: Any) -> None: ...


class TestWithOptions:
    def test_what_is_given_is_replaced(self) -> None:
        """A copy has the new options and keeps the others; the original has all."""
        made = flow(name="one", retries=2, tags=["a"], timeout_seconds=5)(lambda: 1)
        copy = made.with_options(name="two", retries=0, timeout_seconds=None)
        assert copy is not made
        assert (copy.name, copy.options.retries, copy.options.timeout) == (
            "two",
            0,
            None,
        )
        assert copy.options.tags == {"a"}
        assert (made.name, made.options.retries, made.options.timeout) == ("one", 2, 5)
        assert copy() == 1

    @of_each_kind
    def test_every_option_can_be_replaced(self, kind: str) -> None:
        """with_options takes what the decorator takes."""
        decorator: Any = {"flow": flow, "task": task}[kind]
        made = decorator(lambda x: x)
        options = {
            "name": "named",
            "description": "described",
            "tags": ["a"],
            "retries": 1,
            "retry_delay_seconds": [1, 2],
            "retry_jitter_factor": 0.5,
            "retry_condition_fn": hook,
            "timeout_seconds": 3,
            f"{kind}_run_name": "{x}",
            "log_prints": True,
        }
        if kind == "flow":
            options |= {"version": "1", "validate_parameters": True}
        copy = made.with_options(**options)
        assert copy.options == decorator(**options)(lambda x: x).options
        assert copy.options != made.options
        assert made.options == decorator(lambda x: x).options

    @of_each_kind
    def test_hooks_are_replaced_or_kept(self, kind: str) -> None:
        """A list that is given replaces the old one, the others stay."""
        decorator: Any = {"flow": flow, "task": task}[kind]
        made = decorator(on_failure=[hook], on_completion=[hook])(lambda: None)
        copy = made.with_options(on_failure=[other_hook])
        assert names(copy, "on_failure") == ["other_hook"]
        assert names(copy, "on_completion") == ["hook"]
        assert names(made, "on_failure") == ["hook"]

    @pytest.mark.parametrize("nothing", [[], (), None])
    def test_hooks_can_be_cleared(self, nothing: Any) -> None:
        """An empty list, or None, leaves a copy without such hooks."""
        made = flow(on_failure=[hook])(lambda: None)
        made.on_failure(other_hook)
        assert names(made.with_options(on_failure=nothing), "on_failure") == []
        assert names(made, "on_failure") == ["hook", "other_hook"]

    def test_hooks_of_copies_are_independent(self) -> None:
        """Decorating the one does not change the other, either way."""
        made = flow(on_failure=[hook])(lambda: None)
        copy = made.with_options(retries=1)
        copy.on_failure(other_hook)
        made.on_completion(other_hook)
        assert names(made, "on_failure") == ["hook"]
        assert names(copy, "on_failure") == ["hook", "other_hook"]
        assert names(copy, "on_completion") == []

    def test_hooks_added_by_decorators_are_kept(self) -> None:
        """A copy starts with all hooks that the original has by then."""
        made = task(lambda: None)
        made.on_retry(hook)
        assert names(made.with_options(name="copy"), "on_retry") == ["hook"]
        assert names(made.with_options(name="c").with_options(), "on_retry") == ["hook"]

    def test_a_bound_method_stays_bound(self) -> None:
        """A copy of a method with other options keeps its instance."""
        pay = Account("Ada").pay.with_options(task_run_name="{self.owner}!")
        assert pay(1.0) == "Ada!"
        make = Account.make.with_options(task_run_name="made")
        assert make() == "made"

    def test_prints_are_logged_once(self) -> None:
        """Replacing log_prints switches it on and off."""
        made = flow(log_prints=True)(lambda: print("printed"))
        with structlog.testing.capture_logs() as logs:
            made.with_options(retries=1)()
        assert [line["event"] for line in logs] == ["printed"]
        with structlog.testing.capture_logs() as logs:
            made.with_options(log_prints=False)()
        assert logs == []

    def test_a_copy_is_a_flow_of_its_own_runs(self) -> None:
        """Hooks get the copy that was called."""
        seen: list[Any] = []
        made = flow(lambda: None)
        copy = made.with_options(on_completion=[lambda f, r, s: seen.append((f, r))])
        copy()
        made()
        [(definition, run)] = seen
        assert definition is copy
        assert isinstance(run, FlowRun)


def names(definition: Any, kind: str) -> list[str]:
    """Return the names of the hooks that are registered for a kind."""
    return [hook.name for hook in definition.hooks.by_kind.get(kind, ())]


def made_condition(answers: list[bool]) -> Callable[..., bool]:
    return lambda *_: answers.pop(0)


def test_a_condition_applies_to_a_returned_failure() -> None:
    """A Failed state that a body returns is put to the condition like an error."""
    attempts = []

    @task(retries=5, retry_condition_fn=made_condition([True, False]))
    def body() -> Any:
        attempts.append(1)
        return Failed(message="by hand")

    assert body(return_state=True).is_failed()
    assert len(attempts) == 2
