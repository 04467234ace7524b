"""The seven programs of the two pages about state change hooks, each as a process.

They are word for word what Prefect's pages say, with its name replaced by this
package's; one of the pages breaks a string literal over two lines, which is joined.
Webhooks go to a real HTTP server of the test's own, and ``gcloud`` is a script that
writes its arguments down.
"""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import attrs
import pytest
from support import ROOT
from test_seeds import MANY_HOOKS, ON_RUNNING, PARTIAL_KWARGS, SIMPLE

from engine.blocks.document import read_documents
from engine.blocks.notifications import SlackWebhook
from engine.settings import temporary_settings

NOTIFY = """
from prefect import flow
from prefect.blocks.core import Block
from prefect.settings import get_current_settings


@flow(retries=1)
def failing_flow():
    raise ValueError("oops!")


@failing_flow.on_failure
def notify_slack(flow, flow_run, state):
    slack_webhook_block = Block.load(
        "slack-webhook/my-slack-webhook"
    )

    PREFECT_API_URL = get_current_settings().api.url

    slack_webhook_block.notify(
        (
            f"Your job {flow_run.name} entered {state.name} "
            f"with message:\\n\\n"
            f"See <https://{PREFECT_API_URL}/flow-runs/"
            f"flow-run/{flow_run.id}|the flow run in the UI>\\n\\n"
            f"Tags: {flow_run.tags}\\n\\n"
            f"Scheduled start: {flow_run.expected_start_time}"
        )
    )

if __name__ == "__main__":
    failing_flow()
"""

NOTIFY_OF_THE_SECOND_VERSION = """
from prefect import flow
from prefect.blocks.core import Block
from prefect.settings import PREFECT_API_URL

def notify_slack(flow, flow_run, state):
    slack_webhook_block = Block.load(
        "slack-webhook/my-slack-webhook"
    )

    slack_webhook_block.notify(
        (
            f"Your job {flow_run.name} entered {state.name} "
            f"with message:\\n\\n"
            f"See <https://{PREFECT_API_URL.value()}/flow-runs/"
            f"flow-run/{flow_run.id}|the flow run in the UI>\\n\\n"
            f"Tags: {flow_run.tags}\\n\\n"
            f"Scheduled start: {flow_run.expected_start_time}"
        )
    )

@flow(on_failure=[notify_slack], retries=1)
def failing_flow():
    raise ValueError("oops!")

if __name__ == "__main__":
    failing_flow()
"""

CLOUD_RUN = '''
import os
from prefect import flow, task
from prefect.blocks.system import String
from prefect.client import get_client
import prefect.runtime

async def delete_cloud_run_job(flow, flow_run, state):
    """Flow run state change hook that deletes a Cloud Run Job if
    the flow run crashes."""

    # retrieve Cloud Run job name
    cloud_run_job_name = await String.load(
        name="noisy-flow-cloud-run-job"
    )

    # delete Cloud Run job
    delete_job_command = f"yes | gcloud beta run jobs delete {cloud_run_job_name.value} --region us-central1"
    os.system(delete_job_command)

    # clean up the Cloud Run job string block as well
    async with get_client() as client:
        block_document = await client.read_block_document_by_name(
            "noisy-flow-cloud-run-job", block_type_slug="string"
        )
        await client.delete_block_document(block_document.id)

@task
def my_task_that_crashes():
    raise SystemExit("Crashing on purpose!")

@flow(on_crashed=[delete_cloud_run_job])
def crashing_flow():
    """Save the flow name (i.e. Cloud Run job name) as a
    String block. It then executes a task that ends up crashing."""
    flow_name = prefect.runtime.flow_run.name
    cloud_run_job_name = String(value=flow_name)
    cloud_run_job_name.save(
        name="noisy-flow-cloud-run-job", overwrite=True
    )

    my_task_that_crashes()

if __name__ == "__main__":
    crashing_flow()
'''  # noqa: E501  # the page's own line

# An engine that is entered before the program, so that its runs can be watched.
WATCHED = """
import json, os
from engine import Engine

def watch(transition):
    run, state = transition.run, transition.state
    facts = [run.flow_name if hasattr(run, "flow_name") else run.task_name, run.name,
             run.id, state.name, str(run.expected_start_time)]
    with open(os.environ["WATCHED"], "a") as file:
        print(json.dumps(facts), file=file)

Engine(on_transition=[watch]).__enter__()
"""


@attrs.define
class Place:
    """Where a program runs: its home, its environment and what it leaves there."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def run(
        self, program: str, *, start: str = "", end: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in a process of its own; warnings are errors there."""
        text = program.replace("prefect", "engine").replace("PREFECT_", "ENGINE_")
        path = self.folder / "program.py"
        path.write_text(start + text + end)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("ENGINE_")}
        return subprocess.run(
            [sys.executable, "-W", "error", str(path)],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            cwd=self.folder,
            env={
                **inherited,
                "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "ENGINE_HOME": str(self.home),
                "WATCHED": str(self.folder / "watched"),
                **variables,
            },
        )

    def watched(self) -> list[list[str]]:
        """Return what an engine of WATCHED has seen."""
        lines = (self.folder / "watched").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class Receiver(ThreadingHTTPServer):
    """An HTTP server that keeps what is posted to it."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, Any]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/T0/B0/secret-part"


class Handler(BaseHTTPRequestHandler):
    """Takes one request."""

    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((self.path, json.loads(body)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def receiver(place: Place) -> Iterator[Receiver]:
    """A receiver whose address is in the block that the programs load."""
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with temporary_settings(home=place.home):
            SlackWebhook(url=server.url).save("my-slack-webhook")
        yield server
        server.shutdown()
        thread.join()


def test_a_simple_example(place: Place) -> None:
    """A completed flow calls its hook."""
    ended = place.run(SIMPLE)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "Flow run succeeded!\n"
    assert not place.home.exists()


def test_many_hooks(place: Place) -> None:
    """Several hooks for one state, and one hook for several states."""
    calls = (
        "def my_task(fails):\n"
        "    if fails: raise ValueError\n"
        "my_task(False)\n"
        "my_task(True, return_state=True)\n"
    )
    ended = place.run(MANY_HOOKS, start="from engine import task\n", end=calls)
    assert (ended.returncode, ended.stderr) == (0, "")
    both = "If the task run succeeds or fails, this hook runs."
    assert ended.stdout.splitlines() == [
        "Task run succeeded!", both, "Task run failed!", both,
    ]  # fmt: skip


def test_on_running(place: Place) -> None:
    """Hooks in the list and as a decorator run before the bodies."""
    ended = place.run(ON_RUNNING, end="\nmy_flow()\n")
    assert (ended.returncode, ended.stderr) == (0, "")
    first, second = ended.stdout.splitlines()
    assert re.fullmatch(r"Task my_task started at \d+\.\d+", first)
    assert second == "Starting another_task!"


def test_kwargs_for_hooks(place: Place) -> None:
    """The hook's data is the returned state: the program asserts it itself."""
    ended = place.run(PARTIAL_KWARGS)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    "program", [NOTIFY, NOTIFY_OF_THE_SECOND_VERSION], ids=["v3", "v2"]
)
@pytest.mark.parametrize("start", ["", WATCHED], ids=["alone", "watched"])
def test_a_notification_of_a_failure(
    place: Place, receiver: Receiver, program: str, start: str
) -> None:
    """Exactly one POST after both attempts, with all that the message names."""
    ended = place.run(program, start=start, ENGINE_API_URL="runs.example.com")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "ValueError: oops!"
    ((path, posted),) = receiver.posts
    assert path == "/services/T0/B0/secret-part"
    found = re.fullmatch(
        r"Your job (\S+) entered Failed with message:\n\n"
        r"See <https://runs\.example\.com/flow-runs/flow-run/(\S+)"
        r"\|the flow run in the UI>\n\n"
        r"Tags: \[\]\n\n"
        r"Scheduled start: (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+\+00:00)",
        posted["text"],
    )
    assert found is not None, posted
    assert "secret-part" not in ended.stdout + ended.stderr
    if start:
        seen = place.watched()
        assert [state for _, _, _, state, _ in seen] == [
            "Pending", "Running", "Retrying", "Failed",
        ]  # fmt: skip
        assert {(name, run_id, at) for _, name, run_id, _, at in seen} == {
            found.groups()
        }


def test_a_notification_without_a_server(place: Place, receiver: Receiver) -> None:
    """The link is as the page makes it, with the None that it does not expect."""
    assert place.run(NOTIFY).returncode == 1
    ((_, posted),) = receiver.posts
    assert "<https://None/flow-runs/flow-run/" in posted["text"]


@pytest.mark.skipif(os.name != "posix", reason="the page's command is a shell's")
@pytest.mark.parametrize("start", ["", WATCHED], ids=["alone", "watched"])
def test_deleting_a_cloud_run_job(place: Place, start: str) -> None:
    """The crash's hook deletes the job of the run's name, and then the block."""
    gcloud = place.folder / "gcloud"
    gcloud.write_text('#!/bin/sh\nread answer\necho "$answer $*" >> "$GCLOUD_CALLS"\n')
    gcloud.chmod(0o755)
    calls = place.folder / "calls"
    ended = place.run(CLOUD_RUN, start=start, GCLOUD_CALLS=str(calls))
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "Crashing on purpose!"
    (call,) = calls.read_text().splitlines()
    found = re.fullmatch(r"y beta run jobs delete (\w+-\w+) --region us-central1", call)
    assert found is not None, call
    with temporary_settings(home=place.home):
        assert read_documents() == []
    if start:
        flows = [one for one in place.watched() if one[0] == "crashing-flow"]
        assert {name for _, name, _, _, _ in flows} == {found.group(1)}
        assert [state for _, _, _, state, _ in flows][-1] == "Crashed"
