"""Programs written for Prefect, word for word; only the package's name is replaced."""

from typing import Any

import pytest
from support import run_program

from engine import State

SIMPLE = """
from prefect import flow

def my_success_hook(flow, flow_run, state):
    print("Flow run succeeded!")

@flow(on_completion=[my_success_hook])
def my_flow():
    return 42

my_flow()
"""

FLOW_HOOK = '''
def my_flow_hook(flow: Flow, flow_run: FlowRun, state: State):
    """This is the required signature for a flow run state
    change hook. This hook can only be passed into flows.
    """

# pass hook as a list of callables
@flow(on_completion=[my_flow_hook])
'''

TASK_HOOK = '''
def my_task_hook(task: Task, task_run: TaskRun, state: State):
    """This is the required signature for a task run state change
    hook. This hook can only be passed into tasks.
    """

# pass hook as a list of callables
@task(on_failure=[my_task_hook])
'''

MANY_HOOKS = """
def my_success_hook(task, task_run, state):
    print("Task run succeeded!")

def my_failure_hook(task, task_run, state):
    print("Task run failed!")

def my_succeed_or_fail_hook(task, task_run, state):
    print("If the task run succeeds or fails, this hook runs.")

@task(
    on_completion=[my_success_hook, my_succeed_or_fail_hook],
    on_failure=[my_failure_hook, my_succeed_or_fail_hook]
)
"""

ON_RUNNING = """
from prefect import flow, task
import time

def record_start_time(task, task_run, state):
    print(f"Task {task.name} started at {time.time()}")

@task(on_running=[record_start_time])
def my_task():
    return "hello"

# Or use the decorator pattern
@task
def another_task():
    return "world"

@another_task.on_running
def log_start(task, task_run, state):
    print(f"Starting {task.name}!")

@flow
def my_flow():
    my_task()
    another_task()
"""

PARTIAL_KWARGS = """
from functools import partial
from prefect import flow, task

data = {}

def my_hook(task, task_run, state, **kwargs):
    data.update(state=state, **kwargs)

@task
def bad_task():
    raise ValueError("meh")

@flow
def ok_with_failure_flow(x: str = "foo", y: int = 42):
    bad_task_with_a_hook = bad_task.with_options(
        on_failure=[partial(my_hook, **dict(x=x, y=y))]
    )
    # return a tuple of "bar" and the task run state
    # to avoid raising the task's exception
    return "bar", bad_task_with_a_hook(return_state=True)

_, task_run_state = ok_with_failure_flow()

assert data == {"x": "foo", "y": 42, "state": task_run_state}
"""

# The notification of the failing flow, without the block that sends it.
FAILING = """
from prefect import flow


@flow(retries=1)
def failing_flow():
    raise ValueError("oops!")


@failing_flow.on_failure
def notify_slack(flow, flow_run, state):
    print(
        (
            f"Your job {flow_run.name} entered {state.name} "
            f"with message:\\n\\n"
            f"flow-run/{flow_run.id}|the flow run in the UI>\\n\\n"
            f"Tags: {flow_run.tags}\\n\\n"
            f"Scheduled start: {flow_run.expected_start_time}"
        )
    )

if __name__ == "__main__":
    failing_flow()
"""

# The flow that crashes, with a variable for the block that keeps its name.
CRASHING = '''
from prefect import flow, task
import prefect.runtime

cloud_run_job = {}

async def delete_cloud_run_job(flow, flow_run, state):
    """Flow run state change hook that deletes a Cloud Run Job if
    the flow run crashes."""
    print(state.name, cloud_run_job == {"name": flow_run.name})

@task
def my_task_that_crashes():
    raise SystemExit("Crashing on purpose!")

@flow(on_crashed=[delete_cloud_run_job])
def crashing_flow():
    flow_name = prefect.runtime.flow_run.name
    cloud_run_job["name"] = flow_name

    my_task_that_crashes()

if __name__ == "__main__":
    crashing_flow()
'''


def run(program: str, start: str = "", end: str = "") -> dict[str, Any]:
    """Run a program between two lines of our own; return what it has defined."""
    names: dict[str, Any] = {"__name__": "__main__"}
    text = start + program.replace("prefect", "engine") + end
    exec(compile(text, "<seed>", "exec"), names)
    return names


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


EVERYTHING = "from engine import *\n"


def test_a_simple_example(capsys: pytest.CaptureFixture[str]) -> None:
    """A completed flow calls its hook."""
    run(SIMPLE)
    assert printed(capsys) == ["Flow run succeeded!"]


@pytest.mark.parametrize(
    ("program", "kind"), [(FLOW_HOOK, "flow"), (TASK_HOOK, "task")]
)
def test_hooks_with_annotations(program: str, kind: str) -> None:
    """The required signatures, annotated with this package's names, are accepted."""
    names = run(program, EVERYTHING, "def decorated(): return 1")
    assert names["decorated"]() == 1
    assert names["decorated"].kind == kind


def test_many_hooks(capsys: pytest.CaptureFixture[str]) -> None:
    """Several hooks for one state, and one hook for several states."""
    names = run(MANY_HOOKS, EVERYTHING, "def divide(x): return 1 / x")
    names["divide"](1)
    assert printed(capsys) == [
        "Task run succeeded!",
        "If the task run succeeds or fails, this hook runs.",
    ]
    assert names["divide"](0, return_state=True).is_failed()
    assert printed(capsys) == [
        "Task run failed!",
        "If the task run succeeds or fails, this hook runs.",
    ]


def test_on_running_in_both_forms(capsys: pytest.CaptureFixture[str]) -> None:
    """A list of hooks and a decorator, both called before the body."""
    run(ON_RUNNING, end="my_flow()")
    first, second = printed(capsys)
    assert first.startswith("Task my_task started at ")
    assert second == "Starting another_task!"


def test_on_running_with_retries(capsys: pytest.CaptureFixture[str]) -> None:
    """A task with retries=2 calls its on_running hooks up to three times."""
    names = run(ON_RUNNING)
    another = names["another_task"].with_options(retries=2)
    another()
    assert printed(capsys) == ["Starting another_task!"]

    @names["task"](retries=2, on_running=[names["log_start"]])
    def failing() -> None:
        raise ValueError

    assert failing(return_state=True).is_failed()
    assert printed(capsys) == ["Starting failing!"] * 3


def test_kwargs_for_hooks() -> None:
    """Partials pass keyword arguments, and the hook's state is the caller's."""
    names = run(PARTIAL_KWARGS)
    state = names["task_run_state"]
    assert isinstance(state, State)
    assert names["data"]["state"] is state


def test_a_failing_flow_notifies_once(capsys: pytest.CaptureFixture[str]) -> None:
    """on_failure runs after all retries, with all that a notification tells."""
    with pytest.raises(ValueError, match="oops!"):
        run(FAILING)
    text = capsys.readouterr().out
    assert text.count("entered Failed with message") == 1
    assert "None" not in text
    assert "Tags: []" in text


def test_a_crashing_flow_cleans_up() -> None:
    """An async on_crashed hook runs before the process exits with its message."""
    ended = run_program(CRASHING.replace("prefect", "engine"))
    assert ended.returncode == 1
    assert ended.stdout == "Crashed True\n"
    assert ended.stderr == "Crashing on purpose!\n"
