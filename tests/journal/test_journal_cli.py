"""``python -m engine``: running under a supervisor, looking, and mending."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import journal_app
import pytest
from journal_faults import rows

from engine.cli import main
from engine.cli.run import parameter
from engine.journal.targets import UnresolvableTarget, find

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

pytestmark = pytest.mark.timeout(60)


class Place:
    """Where a command runs: its journal and the notes of the application's hooks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / "journal.db"
        self.notes = folder / "notes"
        self.notes.touch()

    @property
    def env(self) -> dict[str, str]:
        path = os.pathsep.join([str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")])
        return {
            **os.environ,
            "PYTHONPATH": path,
            journal_app.NOTES: str(self.notes),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            (sys.executable, "-m", "engine", *arguments, "--journal", self.journal),
            env=self.env,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=30)
        return process.returncode, out, err

    def words(self) -> list[list[str]]:
        return [line.split() for line in self.notes.read_text().splitlines()]

    def wait_for(self, word: str) -> None:
        """Wait until the application has noted something."""
        deadline = time.monotonic() + 20
        while not any(line[1] == word for line in self.words()):
            assert time.monotonic() < deadline, f"{word} was never noted"
            time.sleep(0.005)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_killed_run_is_recovered_at_once(place: Place) -> None:
    """The supervisor of a killed child delivers its hooks and says how it died."""
    code, _, err = place.run("run", "journal_app:parent", "--param", "how=kill")
    assert code == 128 + signal.SIGKILL, err
    times = {line[1]: float(line[0]) for line in reversed(place.words())}
    after = min(times["noted"], times["noted_later"]) - times["killing"]
    print(f"the first hook began {after * 1e3:.0f} ms after the death")
    assert after < 5
    hooks = rows(place.journal, "SELECT fate FROM hooks")
    assert hooks == [("delivered",)] * 5


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_run_that_ends_by_itself(place: Place, loop: str) -> None:
    """The exit code says how the run ended; its hooks run in the child."""
    target = f"{HERE / 'journal_app.py'}:parent"
    code, _, err = place.run("run", target, "--param", "how=0", "--loop", loop)
    assert code == 0, err
    assert "Completed" in err
    code, _, err = place.run("run", target, "--param", "how=word", "--loop", loop)
    assert code == 1
    assert err.startswith("Traceback (most recent call last):\n")
    assert "await anyio.sleep(float(how))" in err
    lines = err.splitlines()
    assert lines[-2] == "ValueError: could not convert string to float: 'word'"
    assert "Failed(" in lines[-1]
    assert "actors" not in err  # above the body is nothing of ours
    kinds = [line[3] for line in place.words() if line[1] == "noted"]
    assert kinds == ["Completed", "Failed"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_after_a_second(place: Place, number: signal.Signals) -> None:
    """The first signal drains; later the run is cancelled, and its hooks run."""
    process = place.start(
        "run", "journal_app:parent", "--param", "how=60", "--drain", "0.1"
    )
    place.wait_for("child")
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number, err
    assert "cancelling" in err
    query = "SELECT name, cause FROM transitions ORDER BY sequence DESC LIMIT 1"
    assert rows(place.journal, query) == [("Cancelled", "user")]


def test_draining_lets_the_run_end(place: Place) -> None:
    """A run that ends while it is drained has ended as if nothing had happened."""
    process = place.start(
        "run", "journal_app:parent", "--param", "how=0.3", "--drain", "20"
    )
    place.wait_for("child")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


def test_what_does_not_stop_is_killed(place: Place) -> None:
    """A body that blocks for ever is killed, and its hooks run in the supervisor."""
    process = place.start(
        *("run", "journal_app:blocking", "--param", "seconds=60"),
        *("--drain", "0.1", "--grace", "0.3"),
    )
    place.wait_for("blocking")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode in (128 + signal.SIGKILL, 128 + signal.SIGTERM), err
    query = "SELECT count(*) FROM runs WHERE ended_at IS NULL"
    assert rows(place.journal, query) == [(0,)]


def test_a_deadly_hook_does_not_kill_the_supervisor(place: Place) -> None:
    """A hook that kills each recovery is quarantined, and the supervisor goes on."""
    code, _, err = place.run("run", "journal_app:doomed")
    assert code == 128 + signal.SIGKILL, err
    fates = rows(place.journal, "SELECT fate, recoveries FROM hooks ORDER BY position")
    assert fates == [("quarantined", 5), ("delivered", 1)]
    code, out, _ = place.run("hooks")
    assert code == 0
    assert "quarantined" in out
    assert place.run("doctor")[0] == 1
    place.notes.write_text("")
    os.environ["JOURNAL_APP_TAMED"] = "1"
    try:
        code, out, err = place.run("redeliver", "--json")
    finally:
        del os.environ["JOURNAL_APP_TAMED"]
    assert code == 0, err
    assert json.loads(out) == {"again": 1, "delivered": 1, "left": {}}
    assert [line[1] for line in place.words()] == ["deadly"]


@pytest.fixture
def full(place: Place) -> Place:
    """A journal with something in it."""
    place.run("run", "journal_app:parent", "--param", "how=0")
    place.run("run", "journal_app:parent", "--param", "how=kill")
    return place


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_looking_into_a_journal(
    full: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """``runs``, ``show``, ``hooks`` and ``doctor`` agree, as tables and as JSON."""
    journal = ("--journal", str(full.journal))
    runs = answer(capsys, "runs", *journal)
    assert [run["state"] for run in runs] == ["Crashed"] * 2 + ["Completed"] * 2
    crashed = answer(capsys, "runs", *journal, "--state", "crashed", "--of", "parent")
    assert [run["cause"] for run in crashed] == ["process_lost"]
    assert answer(capsys, "runs", *journal, "--live") == []
    shown = answer(capsys, "show", crashed[0]["id"], *journal)
    assert [step["state"] for step in shown["steps"]] == [
        "Pending",
        "Running",
        "Crashed",
    ]
    assert [child["state"] for child in shown["children"]] == ["Crashed"]
    assert shown["parameters"] == {"how": "kill"}
    assert len(shown["hooks"]) == 4
    assert answer(capsys, "hooks", *journal) == []
    assert len(answer(capsys, "hooks", *journal, "--all")) == 6
    report = {line["check"]: line for line in answer(capsys, "doctor", *journal)}
    assert report["hooks"]["delivered"] == 6
    assert report["format"]["runs"] == 4
    assert report["integrity"]["verdict"] == "ok"
    assert 0 < report["disk"]["fsync_seconds"] < 5
    for command in ("runs", "hooks", "doctor"):
        assert main([command, *journal]) == 0
    assert main(["show", crashed[0]["id"], *journal]) == 0
    out = capsys.readouterr().out
    assert "process_lost" in out
    assert "DEFINITION" in out


def test_mistakes_are_named(
    place: Place, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A missing journal, an unknown run and a bad parameter are told in a sentence."""
    missing = ("--journal", str(tmp_path / "no.db"))
    for command in ("runs", "hooks", "doctor", "redeliver"):
        assert main([command, *missing]) == 2
        assert "there is no such file" in capsys.readouterr().err
        assert main([command, "--journal", str(tmp_path)]) == 2
        assert "as a journal: it is a folder" in capsys.readouterr().err
    assert not (tmp_path / "no.db").exists()
    assert main(["run", "m:f", "--param", "nothing"]) == 2
    assert "name=value" in capsys.readouterr().err
    code, _, err = place.run("run", "journal_app:nobody")
    assert code == 2
    assert "nobody" in err
    code, _, err = place.run("run", "no_such_module:flow")
    assert code == 2
    assert "no_such_module" in err


@pytest.mark.parametrize("target", ["nope", "journal_app", "journal_app:", ":parent"])
def test_a_target_has_two_parts(target: str) -> None:
    """Where one of them is missing, that is what is said."""
    with pytest.raises(UnresolvableTarget) as caught:
        find(target)
    said = str(caught.value)
    assert said == f"the target must look like MODULE:FLOW, got {target!r}"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_journal_of_no_use_is_one_sentence(place: Place, loop: str) -> None:
    """What the child says of garbage, or of a folder, is not said again."""
    place.journal.write_text("garbage")
    code, _, err = place.run("run", "journal_app:parent", "--loop", loop)
    assert code == 2
    assert err.count("\n") == 1
    assert "file is not a database" in err
    place.journal.unlink()
    place.journal.mkdir()
    code, _, err = place.run("run", "journal_app:parent", "--loop", loop)
    assert code == 2
    assert err.count("\n") == 1


def test_a_journal_in_use_is_left_alone(place: Place) -> None:
    """A run that is refused for it is not followed by a recovery of another's runs."""
    first = place.start("run", "journal_app:parent", "--param", "how=60")
    place.wait_for("child")
    code, _, err = place.run("run", "journal_app:parent")
    assert code == 2
    assert err.count("\n") == 1
    assert "is in use by process" in err
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=30)


def test_a_body_may_exit_with_the_code_of_a_refusal(place: Place) -> None:
    """What it leaves is recovered at once all the same."""
    code, _, err = place.run("run", "journal_app:parent", "--param", "how=exit")
    assert code == 2, err
    assert [line[3] for line in place.words() if line[1] == "noted"] == ["Crashed"] * 2


def test_a_recovery_that_fails_says_why(place: Place) -> None:
    """When the child was killed, only the recovery can: in one sentence."""
    place.journal.write_text("garbage")
    code = "import sys; from engine.cli.standby import Standby; "
    code += "sys.exit(Standby(sys.argv[1], 'asyncio').recover())"
    ended = subprocess.run(
        [sys.executable, "-c", code, str(place.journal)],
        env=place.env,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        f"python -m engine run: cannot open {place.journal} as a journal:"
        " file is not a database (SQLITE_NOTADB)\n"
    )


def test_parameters_are_json_or_text() -> None:
    """A value is JSON where it can be read so, else text."""
    assert parameter("n=3") == ("n", 3)
    assert parameter("n=three") == ("n", "three")
    assert parameter('n={"a": [1]}') == ("n", {"a": [1]})
    assert parameter("n=") == ("n", "")
    assert parameter("n=a=b") == ("n", "a=b")
