"""Every example runs by itself, as its reader would run it, and says what it should."""

import json
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine import Engine

EXAMPLES = Path(__file__).parents[1] / "examples"
LONG = {"inventory.py"}  # has tests of its own, in test_inventory.py

LOG_LINES = re.compile(
    r"^\S+ \S+ \[error +\] (\w+).*\n(?:Traceback.*\n(?: .*\n)*.*\n)?", re.MULTILINE
)


def run(name: str) -> str:
    """Run an example; return what it prints, with its log lines cut short."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-X", "utf8", EXAMPLES / name],
        capture_output=True,
        encoding="utf-8",
        timeout=20,
    )
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr
    return LOG_LINES.sub(r"[\1]\n", ended.stdout)


def test_each_example_is_short() -> None:
    """An example shows one concept in less than 75 lines."""
    for path in EXAMPLES.glob("*.py"):
        if path.name not in LONG:
            lines = path.read_text("utf-8").count("\n")
            assert lines < 75, f"{path.name} has {lines} lines"


def test_each_example_is_tested() -> None:
    """A new example needs a test here."""
    tested = {name.removeprefix("test_") + ".py" for name in globals()}
    assert {path.name for path in EXAMPLES.glob("*.py")} <= tested | LONG


def test_hello() -> None:
    assert run("hello.py") == (
        "Hello, Ada!\n"
        "Completed with 'Hello, Grace!'\n"
        "Failed('The arguments were refused:"
        " TypeError: greet() too many positional arguments')\n"
        "1 thread\n"
    )


def test_hooks() -> None:
    """Each end has its hooks, in order, and a broken hook changes no end."""
    assert run("hooks.py") == (
        "One that returns:\n"
        "  Running, attempt 1\n"
        "  Completed, attempt 1\n"
        "[hook_failed]\n"
        "  -> Completed()\n"
        "One that fails:\n"
        "  Running, attempt 1\n"
        "  once more, after ValueError: no luck\n"
        "  Retrying, attempt 2\n"
        "  Failed, attempt 2\n"
        "  Failed: alert! Task run encountered an exception: ValueError: no luck\n"
        "  -> Failed('Task run encountered an exception: ValueError: no luck')\n"
        "One that crashes:\n"
        "  Running, attempt 1\n"
        "  Crashed, attempt 1\n"
        "  Crashed: alert! Execution was aborted by Python system exit call.\n"
        "  -> Crashed('Execution was aborted by Python system exit call.')\n"
        "One that is cancelled:\n"
        "  Running, attempt 1\n"
        "  Cancelling, attempt 1\n"
        "  -> Cancelled('nobody needs it any more')\n"
        "One whose hook takes too long:\n"
        "  Running, attempt 1\n"
        "[hook_failed]\n"
        "  -> Completed(), all the same\n"
        "  hook dawdle did not end within 0.05 s\n"
        "17 transitions, HookStatistics("
        "due=32, delivered=30, failed=1, timed_out=1, undelivered=0)\n"
    )


def test_fan_out() -> None:
    """One failure is one handle among others, or the end of its siblings."""
    lines = run("fan_out.py").splitlines()
    assert lines[:2] == [
        "5 of 5000 failed, the others add up to 14980",
        "Failed('Flow run encountered an exception: ValueError: 999 is out of order')",
    ]
    causes = re.fullmatch(r"\{'sibling': (\d+)\}", lines[2])
    assert causes
    assert 0 < int(causes[1]) < 100
    assert int(lines[3].removesuffix(" transitions")) > 15_000


def test_progress() -> None:
    assert run("progress.py") == (
        "[#...] salad    Completed\n"
        "[##..] soup     Completed\n"
        "[###.] soufflé  Failed\n"
        "[####] roast    Completed\n"
        "3 dishes are served: soup, salad, roast\n"
    )


def test_cancellation() -> None:
    """Every way to stop a run names its cause, and lets the body clean up."""
    sections = re.split(r"^(?=\S)", run("cancellation.py"), flags=re.MULTILINE)[1:]
    asleep = "  (download cleans up)\n"
    # Within a section, which of the two children cleans up first is the loop's choice.
    assert [sorted(section.splitlines(True)) for section in sections] == [
        sorted(lines)
        for lines in (
            (
                "By its handle:\n",
                "  mirror is Cancelling, cause 'user': the user left\n",
                asleep,
                asleep,
                "  Cancelled('the user left')\n",
            ),
            (
                "By its deadline:\n",
                asleep,
                "  TimedOut('Task run exceeded timeout of 0.05 second(s)',"
                " type=FAILED)\n",
            ),
            (
                "By the caller's scope:\n",
                "  mirror is Cancelling, cause 'host':"
                " the task or scope that ran it was cancelled\n",
                asleep,
                asleep,
            ),
            (
                "A thread that does not listen:\n",
                "  TimedOut('Task run exceeded timeout of 0.05 second(s)',"
                " type=FAILED)\n",
                "  threads given up: 1\n",
            ),
            (
                "By the end of the engine, which waits 0.05 s for what is left:\n",
                "  mirror is Cancelling, cause 'shutdown':"
                " the engine is shutting down\n",
                asleep,
                asleep,
                "  Cancelled('the engine is shutting down')\n",
            ),
        )
    ]


def test_with_trio() -> None:
    assert run("with_trio.py") == (
        "300 words\nthe fastest took 0.05 s\ngiven up: True; the run is Cancelled\n"
    )


class Service:
    """A client of the service that runs in a process of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str) -> Any:
        """Make a request and wait for the answer."""
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            text = response.read().decode()
        is_json = response.headers.get_content_type() == "application/json"
        return json.loads(text) if is_json else text

    def send(self, method: str, path: str) -> socket.socket:
        """Make a request and do not wait."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        client.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return client

    def ask_until(self, states: list[str]) -> None:
        """Ask for the states of all runs, live ones first, until they are these."""
        while list(self.ask("GET", "/reports").values()) != states:
            pass  # each round is a request, and the test has a time limit


@pytest.fixture
def service() -> Iterator[Service]:
    command = [sys.executable, "-m", "uvicorn", "--app-dir", EXAMPLES, "--port", "0"]
    with subprocess.Popen(
        [*command, "fastapi_service:app"], stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        try:
            for line in server.stderr:
                if found := re.search(r"running on http://127.0.0.1:(\d+)", line):
                    yield Service(int(found[1]))
                    break
            server.terminate()
            _, log = server.communicate(timeout=10)
            assert "Application shutdown complete" in log
        finally:
            server.kill()


def test_fastapi_service(service: Service) -> None:
    """A client that goes away cancels what it waited for, and not a started run."""
    assert service.ask("GET", "/report?seconds=0.01") == "a report that took 0.01 s"
    service.ask_until(["Completed"])

    with closing(service.send("GET", "/report?seconds=60")):
        service.ask_until(["Running", "Completed"])
    service.ask_until(["Completed", "Cancelled"])

    with closing(service.send("POST", "/reports?seconds=60")):
        pass  # gone before the answer
    service.ask_until(["Running", "Completed", "Cancelled"])

    (run_id, *_) = service.ask("GET", "/reports")
    service.ask("DELETE", f"/reports/{run_id}")
    service.ask_until(["Completed", "Cancelled", "Cancelled"])


async def test_fastapi_service_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disconnect reaches the run through the handler's scope, on either loop."""
    monkeypatch.syspath_prepend(EXAMPLES)
    from fastapi_service import app, lifespan

    gone, answers = anyio.Event(), list[Any]()
    messages = iter([{"type": "http.request"}])

    async def receive() -> dict[str, str]:
        if message := next(messages, None):
            return message
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        answers.append(message)

    async def ask() -> None:
        await app(scope, receive, send)

    async with lifespan(app) as state, anyio.create_task_group() as group:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/report",
            "query_string": b"seconds=60",
            "headers": [],
            "state": state,
        }
        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        engine: Engine = state["engine"]
        (handle,) = engine.handles()
        assert handle.state.is_running()
        gone.set()
        ended = await handle.join()
    assert ended.is_cancelled()
    assert ended.cause == "host"
    assert answers[0]["status"] == 499
