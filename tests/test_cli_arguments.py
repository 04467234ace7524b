"""What the commands of ``python -m engine`` take, and what they refuse."""

import argparse
import importlib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import anyio
import pytest

from engine import Engine, flow, task
from engine.cli import COMMANDS, main

NOTHING = ("--journal", "none.db")

Capture = pytest.CaptureFixture[str]


@task
async def double(number: int) -> int:
    return 2 * number


@flow
async def nightly() -> int:
    return await double(2)


async def fill(path: Path) -> str:
    """Keep a run in a journal; return its id."""
    async with Engine(journal=f"sqlite:///{path}") as engine:
        handle = engine.start(nightly)
        await handle
        return handle.id


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal.db"
    anyio.run(fill, path)
    return path


def refused(capsys: Capture, *arguments: str) -> str:
    """Return what a command says when it refuses its arguments."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "1e300", "soon"])
@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("run m:f", "--drain"),
        ("run m:f", "--grace"),
        ("run m:f", "--wait"),
        ("redeliver --journal a.db", "--wait"),
    ],
)
def test_a_duration_can_be_waited_for(
    command: str, option: str, value: str, capsys: Capture
) -> None:
    """Seconds below zero, or without an end, are refused before anything is done."""
    said = refused(capsys, *command.split(), option, value)
    name, *_ = command.split()
    assert said == (
        f"python -m engine {name}: error: argument {option}:"
        f" must be a number of seconds >= 0, got {value!r}"
    )


@pytest.mark.parametrize("value", ["-1", "0", "many"])
@pytest.mark.parametrize("command", ["runs", "hooks"])
def test_a_limit_is_a_number_of_rows(command: str, value: str, capsys: Capture) -> None:
    """A limit below one, which SQLite takes for none at all, is refused."""
    said = refused(capsys, command, *NOTHING, "--limit", value)
    assert said.endswith(f"--limit: must be a whole number >= 1, got {value!r}")


@pytest.mark.parametrize("value", ["", "sqlite:///", "postgres:///a", "sqlite://a"])
@pytest.mark.parametrize("command", ["run m:f", "runs", "redeliver"])
def test_a_journal_is_a_file(command: str, value: str, capsys: Capture) -> None:
    """What is neither a path nor a URL of one is refused, as the engine does."""
    said = refused(capsys, *command.split(), "--journal", value)
    assert said.endswith(f"--journal: must be a file or sqlite:///FILE, got {value!r}")


def test_a_journal_may_be_a_url(journal: Path, capsys: Capture) -> None:
    """The commands take the URL that ``Engine(journal=…)`` takes."""
    for command in ("runs", "hooks", "doctor", "redeliver"):
        assert main([command, "--journal", f"sqlite:///{journal}"]) == 0
    assert "nightly" in capsys.readouterr().out


@pytest.mark.parametrize("module_name", COMMANDS.values())
def test_each_option_says_what_it_is(module_name: str) -> None:
    """Every option has a help text, and every value a name or a choice."""
    parser = argparse.ArgumentParser()
    importlib.import_module(module_name).configure(parser)
    for action in parser._actions:
        assert action.help, action
        takes_a_value = action.nargs != 0
        assert not takes_a_value or action.metavar or action.choices, action


def test_the_version_is_that_of_the_package(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--version`` needs no command; a bare checkout has none to tell."""
    for look_up, said in [(given, "1.2.3"), (missing, "(not installed)")]:
        monkeypatch.setattr("importlib.metadata.version", look_up)
        with pytest.raises(SystemExit) as caught:
            main(["--version"])
        assert caught.value.code == 0
        assert capsys.readouterr().out == f"actor-engine {said}\n"


def given(name: str) -> str:
    assert name == "actor-engine"
    return "1.2.3"


def missing(name: str) -> str:
    raise PackageNotFoundError(name)
