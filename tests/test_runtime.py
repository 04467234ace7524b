"""What a run's code knows about its run: runtime, loggers, log keys and prints."""

import asyncio
import builtins
import contextlib
import gc
import io
import logging
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
import structlog
import structlog.testing
from structlog.contextvars import get_contextvars, merge_contextvars
from support import Way, in_every_way, of_each_kind

from engine import (
    Engine,
    FlowRun,
    TaskRun,
    flow,
    get_run_logger,
    runtime,
    tags,
    task,
)
from engine.exceptions import MissingContextError
from engine.runtime import flow_run, task_run
from engine.settings import temporary_settings

FLOW_RUN = [
    "id", "name", "parameters", "tags", "attempt", "run_count", "parent_run_id",
    "state", "flow_name", "flow_version", "scheduled_start_time", "parent_flow_run_id",
    "root_flow_run_id", "parent_deployment_id", "job_variables", "api_url", "ui_url",
]  # fmt: skip
TASK_RUN = [
    "id", "name", "parameters", "tags", "attempt", "run_count", "parent_run_id",
    "state", "task_name", "flow_run_id", "api_url", "ui_url",
]  # fmt: skip


def snapshot() -> tuple[dict[str, Any], dict[str, Any]]:
    """Read every attribute of both current runs."""
    return (
        {name: getattr(flow_run, name) for name in FLOW_RUN},
        {name: getattr(task_run, name) for name in TASK_RUN},
    )


OUTSIDE_FLOW = dict.fromkeys(FLOW_RUN) | {
    "parameters": {},
    "job_variables": {},
    "tags": [],
    "attempt": 0,
    "run_count": 0,
}
OUTSIDE_TASK = dict.fromkeys(TASK_RUN) | {
    "parameters": {},
    "tags": [],
    "attempt": 0,
    "run_count": 0,
}


class TestAttributes:
    def test_outside_of_any_run_they_are_empty(self) -> None:
        """None, or an empty value of the attribute's type."""
        before = datetime.now(UTC)
        flow_found, task_found = snapshot()
        assert before <= flow_found.pop("scheduled_start_time") <= datetime.now(UTC)
        assert flow_found == {
            k: v for k, v in OUTSIDE_FLOW.items() if k != "scheduled_start_time"
        }
        assert task_found == OUTSIDE_TASK

    @in_every_way
    def test_a_flows_body_knows_its_run(self, way: Way) -> None:
        """Every attribute of the flow's run, and no task's."""

        def body(x: int, y: int = 2) -> Any:
            return snapshot()

        made = way.flow(body, name="named", version="7", flow_run_name="run-{x}")
        before = datetime.now(UTC)
        with tags("tagged"):
            found, task_found = way.call(made, 1)
        assert before <= found.pop("scheduled_start_time") <= datetime.now(UTC)
        assert found.pop("id") == found.pop("root_flow_run_id")
        assert found.pop("state").name == "Running"
        assert found == {
            "name": "run-1",
            "parameters": {"x": 1, "y": 2},
            "tags": ["tagged"],
            "attempt": 1,
            "run_count": 1,
            "parent_run_id": None,
            "flow_name": "named",
            "flow_version": "7",
            "parent_flow_run_id": None,
            "parent_deployment_id": None,
            "job_variables": {},
            "api_url": None,
            "ui_url": None,
        }
        assert task_found == OUTSIDE_TASK

    @in_every_way
    def test_a_tasks_body_knows_both_runs(self, way: Way) -> None:
        """The task's own, and the flow's that it is called in."""
        inner = task(name="inner")(snapshot)
        made = way.flow(lambda: (snapshot(), inner()), name="outer")
        (outside, _), (found_flow, found_task) = way.call(made)
        assert found_flow == outside
        assert found_task.pop("id") not in (None, found_flow["id"])
        assert found_task.pop("name").startswith("inner-")
        assert found_task.pop("state").name == "Running"
        assert found_task == {
            "parameters": {},
            "tags": [],
            "attempt": 1,
            "run_count": 1,
            "parent_run_id": found_flow["id"],
            "task_name": "inner",
            "flow_run_id": found_flow["id"],
            "api_url": None,
            "ui_url": None,
        }

    @in_every_way
    def test_a_subflow_knows_its_parents(self, way: Way) -> None:
        """The flow above it, and the one at the top."""

        def read() -> Any:
            return flow_run.id, flow_run.parent_flow_run_id, flow_run.root_flow_run_id

        lowest = flow(read)
        middle = flow(lambda: [read(), lowest()])
        top, (second, third) = way.call(way.flow(lambda: (read(), middle())))
        assert top == (top[0], None, top[0])
        assert second == (second[0], top[0], top[0])
        assert third == (third[0], second[0], top[0])

    @in_every_way
    def test_a_flow_in_a_task_is_not_in_that_task(self, way: Way) -> None:
        """A flow that a task calls sees no task run, but the task as its parent."""
        lower = flow(lambda: (task_run.id, flow_run.parent_run_id))
        middle = task(lambda: (task_run.id, lower(), task_run.id))
        mine, (seen, parent), after = way.call(way.flow(lambda: middle()))
        assert seen is None
        assert parent == mine == after

    @in_every_way
    def test_a_task_outside_of_flows_has_no_flow(self, way: Way) -> None:
        """Its flow run is nobody."""
        found_flow, found_task = way.call(way.task(snapshot))
        assert found_flow["id"] is None
        assert found_task["flow_run_id"] is None
        assert found_task["id"] is not None

    @in_every_way
    @of_each_kind
    def test_every_hook_knows_its_run(self, way: Way, kind: str) -> None:
        """Hooks of each kind are in the context of the run that they are about."""
        seen = []

        def hook(_: Any, run: Any, state: Any) -> None:
            current = getattr(runtime, f"{kind}_run")
            seen.append((state.name, current.id == run.id, current.name == run.name))

        def body(x: Any) -> None:
            if x == "crash":
                raise SystemExit
            if x == "fail":
                raise ValueError

        hooks = {
            name: [hook]
            for name in (
                "on_running", "on_completion", "on_failure", "on_crashed", "on_retry",
            )
        }  # fmt: skip
        made = getattr(way, kind)(body, retries=1, **hooks)
        way.state(made, "complete")
        way.state(made, "fail")
        way.state(made)  # bad arguments
        with contextlib.suppress(SystemExit):
            way.state(made, "crash")
        assert [name for name, *_ in seen] == [
            "Running", "Completed",
            "Running", "Retrying", "Retrying", "Failed",
            "Failed",
            "Running", "Crashed",
        ]  # fmt: skip
        assert all(all(right) for _, *right in seen)

    async def test_a_hook_of_a_child_does_not_see_its_parent(self) -> None:
        """on_running and on_failure of a subflow are in the subflow's context."""
        seen = []

        def hook(_: Any, run: Any, __: Any) -> None:
            seen.append((run.id, flow_run.id, task_run.id))

        @flow(on_running=[hook], on_failure=[hook], on_cancellation=[hook])
        async def inner(x: int) -> None:
            raise ValueError

        @flow
        async def outer() -> None:
            await inner(1, return_state=True)
            await inner(return_state=True)

        await outer()
        assert len(seen) == 3
        assert all((run, None) == (current, task) for run, current, task in seen)

    async def test_hooks_see_what_the_body_has_set(self) -> None:
        """Context variables that a body binds are bound in its hooks."""
        seen = []

        async def hook(*_: Any) -> None:
            seen.append(get_contextvars().get("request"))

        @flow(on_completion=[hook])
        async def body() -> None:
            structlog.contextvars.bind_contextvars(request="r1")

        await body()
        structlog.contextvars.clear_contextvars()
        assert seen == ["r1"]

    async def test_concurrent_runs_do_not_see_each_other(self) -> None:
        """A hundred runs at once on one loop each read their own id."""

        @task
        async def read() -> list[Any]:
            found = [task_run.id]
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
                found.append(task_run.id)
            return found

        async with Engine():
            handles = [read.submit() for _ in range(100)]
            for handle in handles:
                assert set(await handle) == {handle.id}

    async def test_worker_threads_know_the_run(self) -> None:
        """Code that a body sends to a thread of its own is still in the run."""

        @task
        async def body() -> Any:
            return task_run.id, await anyio.to_thread.run_sync(lambda: task_run.id)

        mine, in_thread = await body()
        assert mine == in_thread is not None

    def test_the_current_run_ends_with_its_run(self) -> None:
        """After a call, however it ended, nothing is current any more."""
        for body in (lambda: 1, lambda: 1 / 0):
            flow(body)(return_state=True)
            assert flow_run.id is None

    def test_parameters_are_a_copy(self) -> None:
        """Changing the dict of parameters changes nothing for the next reader."""

        @flow
        def body(x: int) -> Any:
            flow_run.parameters["x"] = 9
            return flow_run.parameters

        assert body(1) == {"x": 1}

    def test_unknown_attributes_are_errors(self) -> None:
        """The error lists what there is."""
        with pytest.raises(AttributeError, match=r"flow_run has no 'nope'.* flow_name"):
            flow_run.nope  # noqa: B018
        with pytest.raises(AttributeError, match=r"task_run has no 'flow_name'"):
            task_run.flow_name  # noqa: B018

    def test_dir_lists_the_attributes(self) -> None:
        """What completion in a shell shows is what can be read."""
        assert dir(flow_run) == sorted(FLOW_RUN)
        assert dir(task_run) == sorted(TASK_RUN)

    @pytest.mark.parametrize(
        ("variable", "text", "value"),
        [
            ("FLOW_RUN__NAME", "given", "given"),
            ("FLOW_RUN__ID", "an-id", "an-id"),
            ("FLOW_RUN__RUN_COUNT", "3", 3),
            ("FLOW_RUN__TAGS", "a,b", ["a", "b"]),
            ("FLOW_RUN__PARAMETERS", '{"x": [1]}', {"x": [1]}),
            (
                "FLOW_RUN__SCHEDULED_START_TIME",
                "2025-01-02T03:04:05+00:00",
                datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
            ),
            ("TASK_RUN__TASK_NAME", "given", "given"),
            ("FLOW_RUN__JOB_VARIABLES", "{}", {}),
            ("TASK_RUN__ATTEMPT", "2", 2),
        ],
    )
    def test_the_environment_can_give_them(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, value: Any
    ) -> None:
        """ENGINE__RUNTIME__… overrides an attribute, as a value of its type."""
        monkeypatch.setenv(f"ENGINE__RUNTIME__{variable}", text)
        kind, name = variable.lower().split("__")
        read = partial(lambda: getattr(getattr(runtime, kind), name))
        assert read() == value
        assert flow(lambda: task(read)())() == value

    def test_a_state_is_given_by_its_type(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The environment can say which type of state a run is in."""
        monkeypatch.setenv("ENGINE__RUNTIME__TASK_RUN__STATE", "completed")
        assert task_run.state.is_completed()

    @pytest.mark.parametrize("kind", ["flow_run", "task_run"])
    def test_every_attribute_can_be_given(
        self, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        """There is none that a test could not override."""
        of_kind = {"parameters": "{}", "job_variables": "{}", "state": "Failed"}
        of_kind |= {"attempt": "7", "run_count": "7"}
        of_kind |= {"scheduled_start_time": "2025-01-02T03:04:05+00:00"}
        attributes = getattr(runtime, kind)
        for name in dir(attributes):
            text = of_kind.get(name, "given")
            monkeypatch.setenv(f"ENGINE__RUNTIME__{kind}__{name}".upper(), text)
        found = {name: getattr(attributes, name) for name in dir(attributes)}
        for name in found.keys() - of_kind.keys():
            assert found[name] in ("given", ["given"])
        assert (found["attempt"], found["state"].name) == (7, "Failed")

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("RUN_COUNT", "three"),
            ("PARAMETERS", "nonsense"),
            ("PARAMETERS", "[1]"),
            ("PARAMETERS", "[" * 100_000),
            ("STATE", "Done"),
            ("SCHEDULED_START_TIME", "yesterday"),
        ],
    )
    def test_a_malformed_override_names_its_variable(
        self, monkeypatch: pytest.MonkeyPatch, name: str, text: str
    ) -> None:
        """What does not fit the attribute's type is an error that says where it is."""
        monkeypatch.setenv(f"ENGINE__RUNTIME__FLOW_RUN__{name}", text)
        with pytest.raises(ValueError, match=f"{name} cannot be "):
            getattr(flow_run, name.lower())

    def test_addresses_are_below_the_servers(self) -> None:
        """The pages of a run are found by the setting api.url, and None without it."""

        @task
        def step() -> tuple[Any, ...]:
            return flow_run.ui_url, flow_run.api_url, task_run.ui_url, task_run.api_url

        @flow
        def work() -> tuple[Any, ...]:
            state = step(return_state=True)
            return flow_run.id, state.run_id, state.result()

        assert work()[2] == (None, None, None, None)
        with temporary_settings(api_url="https://runs.example.com/"):
            flow_id, task_id, found = work()
        assert found == (
            f"https://runs.example.com/flow-runs/flow-run/{flow_id}",
            f"https://runs.example.com/flow-runs/{flow_id}",
            f"https://runs.example.com/task-runs/task-run/{task_id}",
            f"https://runs.example.com/task-runs/{task_id}",
        )

    def test_the_run_context_is_of_the_task_first(self) -> None:
        """In a task it has the task, and the flow around; outside of runs it fails."""

        @task
        def step(x: int) -> Any:
            return runtime.get_run_context()

        @flow
        def work() -> Any:
            return runtime.get_run_context(), step(1)

        outer, inner = work()
        assert (outer.flow, outer.task, outer.parameters) == (work, None, {})
        assert (inner.flow, inner.task, inner.parameters) == (work, step, {"x": 1})
        assert inner.task_run.flow_run_id == inner.flow_run.id == outer.flow_run.id
        with pytest.raises(MissingContextError):
            runtime.get_run_context()

    def test_only_what_is_given_is_overridden(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other attributes, and the other kind of run, stay."""
        monkeypatch.setenv("ENGINE__RUNTIME__FLOW_RUN__NAME", "given")
        found = flow(name="named")(lambda: (flow_run.name, flow_run.flow_name))()
        assert found == ("given", "named")
        assert task_run.name is None


class TestViews:
    """What hooks and subscribers see of a run."""

    def test_a_run_says_what_it_is_a_run_of(self) -> None:
        """Live runs and the records of ended ones have the same two attributes."""
        kinds: list[tuple[str, str]] = []

        @task(name="step")
        def body() -> None:
            """Do nothing."""

        @flow(name="work")
        def work() -> None:
            kinds.extend((run.kind, run.definition_name) for run in engine.runs())
            body()

        with Engine() as engine:
            work()
            records = [(run.kind, run.definition_name) for run in engine.runs()]
        assert kinds == [("flow", "work")]
        assert sorted(records) == [("flow", "work"), ("task", "step")]

    def test_a_flow_run_has_what_the_peers_has(self) -> None:
        """What only a server could know is None, or empty; the rest is told."""
        seen: list[FlowRun] = []

        def hook(_: object, run: FlowRun, __: object) -> None:
            seen.append(run)

        @flow(retries=2, retry_delay_seconds=[1, 2], on_completion=[hook])
        def inner() -> None:
            """Do nothing."""

        @task
        def step() -> str | None:
            inner()
            return task_run.id

        @flow
        def outer() -> tuple[str | None, str | None]:
            inner()
            return flow_run.id, step()

        flow_run_id, task_run_id = outer()
        called, below_task = seen
        assert called.empirical_policy == (2, (1, 2))
        assert called.empirical_policy.retries == 2
        assert called.parent_task_run_id is None
        assert below_task.parent_task_run_id == task_run_id
        assert below_task.parent_flow_run_id == called.parent_run_id == flow_run_id
        for run in seen:
            assert (run.flow_id, run.deployment_id, run.state_id) == (None, None, None)
            assert (run.labels, run.auto_scheduled) == ({}, False)

    def test_a_task_run_has_what_the_peers_has(self) -> None:
        """Its keys tell its task and itself apart; the flow's attempt is the flow's."""
        seen: list[TaskRun] = []

        def hook(_: object, run: TaskRun, __: object) -> None:
            seen.append(run)
            counts.append(run.flow_run_run_count)

        counts: list[int | None] = []

        class Callee:
            def __call__(self) -> None:
                """Do nothing."""

        @task(on_completion=[hook])
        def step() -> None:
            """Do nothing."""

        callee = task(Callee(), on_completion=[hook])
        partially = task(partial(Callee.__call__, None), on_completion=[hook])

        @flow(retries=1)
        def work() -> None:
            step()
            callee()
            partially()
            if flow_run.run_count == 1:
                raise ValueError

        work()
        step()
        assert counts == [1, 1, 1, 2, 2, 2, None]
        assert len({run.dynamic_key for run in seen}) == 7
        keys = [run.task_key.rpartition("<locals>.")[2] for run in seen[:3]]
        assert keys == ["step", "Callee", "Callee.__call__"]
        assert seen[0].task_key == seen[3].task_key == seen[6].task_key
        assert seen[0].task_key.startswith(f"{__name__}.")
        gc.collect()
        assert seen[0].flow_run_run_count is None, "the flow's run is over"
        assert (seen[0].labels, seen[0].state_id) == ({}, None)


class Lines(list[dict[str, Any]]):
    """The log lines of structlog's loggers, as merge_contextvars completes them."""

    @contextlib.contextmanager
    def captured(self) -> Iterator[None]:
        def keep(_: Any, __: str, line: Any) -> Any:
            self.append(dict(line))
            raise structlog.DropEvent

        before = structlog.get_config()
        structlog.configure(
            processors=[merge_contextvars, keep], cache_logger_on_first_use=False
        )
        try:
            yield
        finally:
            structlog.configure(**before)

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self]


@pytest.fixture
def lines() -> Iterator[Lines]:
    found = Lines()
    with found.captured():
        yield found


class TestLogging:
    def test_the_run_logger_needs_a_run(self) -> None:
        """Outside of any run there is nothing to bind, which is an error."""
        with pytest.raises(MissingContextError, match=r"get_run_logger\(\) works"):
            get_run_logger()
        assert issubclass(MissingContextError, RuntimeError)

    @in_every_way
    def test_the_run_logger_names_its_run(self, way: Way, lines: Lines) -> None:
        """Its lines carry the run's id, name and attempt, and the flow's name."""

        def body() -> str | None:
            get_run_logger().info("hello", extra=1)
            return flow_run.id

        made = way.flow(body, name="named", flow_run_name="run-name")
        run_id = way.call(made)
        [line] = lines
        assert line == {
            "event": "hello",
            "extra": 1,
            "run_id": run_id,
            "run": "run-name",
            "attempt": 1,
            "flow": "named",
        }

    def test_the_run_logger_of_a_task_knows_its_flow(self, lines: Lines) -> None:
        """In a task its lines carry the task's name and the flow's."""
        log = task(name="inner")(lambda: get_run_logger(key="value").info("hello"))
        flow(name="outer")(lambda: log())()
        [line] = lines
        assert (line["task"], line["flow"], line["key"]) == ("inner", "outer", "value")

    def test_the_run_logger_works_in_hooks(self, lines: Lines) -> None:
        """A hook's lines carry the run that it is about."""
        ids = []

        def hook(_: Any, run: Any, __: Any) -> None:
            get_run_logger().info("hooked")
            ids.append(run.id)

        flow(on_completion=[hook], on_running=[hook])(lambda: None)()
        assert [line["run_id"] for line in lines] == ids

    async def test_lines_of_any_logger_carry_the_run(self, lines: Lines) -> None:
        """Bound keys are right in bodies, worker threads, hooks and children."""
        log = structlog.get_logger("mine")

        def write(event: str) -> None:
            log.info(event)

        @task(on_completion=[lambda *_: write("task hook")])
        def in_thread() -> None:
            write("task")

        @flow(name="outer", on_completion=[lambda *_: write("flow hook")])
        async def body() -> tuple[Any, Any]:
            write("flow")
            handle = in_thread.submit()
            await handle
            write("flow again")
            return flow_run.id, handle.id

        write("before")
        flow_id, task_id = await body()
        write("after")
        found = {line.pop("event"): line for line in lines}
        for line in found.values():
            line.pop("log_level", None)
        in_flow = {"run_id": flow_id, "flow": "outer"}
        in_task = {"run_id": task_id, "flow": "outer", "task": "in_thread"}
        assert found == {
            "before": {},
            "flow": in_flow,
            "task": in_task,
            "task hook": in_task,
            "flow again": in_flow,
            "flow hook": in_flow,
            "after": {},
        }

    def test_a_flow_in_a_task_logs_without_the_task(self, lines: Lines) -> None:
        """The keys are those of the innermost run."""
        lower = flow(name="lower")(lambda: structlog.get_logger().info("lower"))
        upper = task(name="upper")(lambda: lower())
        upper()
        [line] = lines
        assert line["flow"] == "lower"
        assert "task" not in line

    def test_keys_that_users_bound_stay(self, lines: Lines) -> None:
        """Runs add their keys to those that are there, and take only theirs away."""
        with structlog.contextvars.bound_contextvars(request="r1"):
            flow(lambda: structlog.get_logger().info("inside"))()
            structlog.get_logger().info("outside")
        inside, outside = lines
        assert inside["request"] == outside["request"] == "r1"
        assert "run_id" in inside
        assert "run_id" not in outside

    def test_transitions_are_not_logged(self, lines: Lines) -> None:
        """A run that goes well writes no line of its own."""
        flow(lambda: task(lambda: None)())()
        assert lines == []


class TestLogPrints:
    @in_every_way
    @of_each_kind
    def test_prints_become_lines(
        self, way: Way, kind: str, lines: Lines, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With log_prints what a body prints is logged with its run's keys."""

        def body() -> Any:
            print("hello", 1, sep="-", end="!\n")
            return getattr(runtime, f"{kind}_run").id

        run_id = way.call(getattr(way, kind)(body, log_prints=True))
        [line] = lines
        assert (line["event"], line["run_id"]) == ("hello-1", run_id)
        assert capsys.readouterr().out == ""

    @in_every_way
    def test_without_it_prints_are_prints(
        self, way: Way, lines: Lines, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The default changes nothing."""
        way.call(way.flow(lambda: print("hello")))
        assert lines == []
        assert capsys.readouterr().out == "hello\n"

    def test_print_is_restored(self) -> None:
        """After the run, also a failed one, print is Python's own."""
        original = builtins.print
        made = flow(log_prints=True)(lambda x: 1 / x)
        made(1)
        made(0, return_state=True)
        assert builtins.print is original

    def test_other_files_are_written_to(
        self, lines: Lines, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """print(file=…) goes where it was told."""
        buffer = io.StringIO()

        @flow(log_prints=True)
        def body() -> None:
            print("to a buffer", file=buffer)
            print("to stderr", file=sys.stderr)
            print("to stdout", file=sys.stdout)

        body()
        assert buffer.getvalue() == "to a buffer\n"
        assert capsys.readouterr().err == "to stderr\n"
        assert lines.events == ["to stdout"]

    @pytest.mark.parametrize(
        ("outer", "inner", "logged", "printed"),
        [
            (True, False, ["outer"], "inner\n"),
            (False, True, ["inner"], "outer\n"),
            (True, True, ["outer", "inner"], ""),
        ],
    )
    @in_every_way
    def test_each_run_decides_for_itself(
        self,
        way: Way,
        lines: Lines,
        capsys: pytest.CaptureFixture[str],
        outer: bool,
        inner: bool,
        logged: list[str],
        printed: str,
    ) -> None:
        """Prints of a nested run follow its own option."""
        nested = task(log_prints=inner)(lambda: print("inner"))

        def body() -> None:
            print("outer")
            nested()

        way.call(way.flow(body, log_prints=outer))
        assert lines.events == logged
        assert capsys.readouterr().out == printed

    async def test_runs_beside_it_print(
        self, lines: Lines, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """While one run's prints are logged, those of others are printed."""
        both = anyio.Event()

        @task(log_prints=True)
        async def logs() -> None:
            await both.wait()
            print("logged")

        @task
        async def prints() -> None:
            both.set()
            print("printed by a task")

        async with Engine():
            handles = [logs.submit(), prints.submit()]
            await anyio.wait_all_tasks_blocked()
            print("printed by nobody")
            for handle in handles:
                await handle
        assert lines.events == ["logged"]
        assert sorted(capsys.readouterr().out.splitlines()) == [
            "printed by a task",
            "printed by nobody",
        ]

    async def test_threads_beside_it_print(
        self, lines: Lines, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The same between worker threads."""
        entered, printed = threading.Event(), threading.Event()

        @task(log_prints=True)
        def logs() -> None:
            entered.set()
            assert printed.wait(10)
            print("logged")

        @task
        def prints() -> None:
            assert entered.wait(10)
            print("printed")
            printed.set()

        async with Engine():
            for handle in [logs.submit(), prints.submit()]:
                await handle
        assert lines.events == ["logged"]
        assert capsys.readouterr().out == "printed\n"

    def test_a_logger_that_prints_is_no_circle(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The default logger of structlog prints its lines: once."""
        flow(log_prints=True)(lambda: print("hello"))()
        assert capsys.readouterr().out.count("hello") == 1

    def test_methods_print_once(self, lines: Lines) -> None:
        """A bound flow logs each print once."""

        class Shop:
            @flow(log_prints=True)
            def visit(self) -> None:
                print("hello")

        Shop().visit()
        assert lines.events == ["hello"]

    async def test_threads_of_a_body_log_too(self, lines: Lines) -> None:
        """What a body prints in a thread of its own is logged."""

        @task(log_prints=True)
        async def body() -> None:
            await anyio.to_thread.run_sync(print, "in a thread")

        await body()
        assert lines.events == ["in a thread"]


def test_standard_logging_is_left_alone() -> None:
    """Running flows adds no handler and changes no level of the logging module."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level, set(logging.root.manager.loggerDict))
    flow(log_prints=True)(lambda: None)()
    asyncio.run(flow(anyio.lowlevel.checkpoint)())  # type: ignore[arg-type]
    after = (list(root.handlers), root.level, set(logging.root.manager.loggerDict))
    assert before == after


def test_total_run_time_is_measured() -> None:
    """A run's times are in order, and its duration is that of its body."""
    runs = []
    made = flow(on_completion=[lambda f, run, s: runs.append(run)])(lambda: None)
    made()
    [run] = runs
    assert run.expected_start_time <= run.start_time < run.end_time
    assert timedelta() < run.total_run_time < timedelta(seconds=5)
