"""How the commands find the run that somebody means."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine import Engine, flow, task
from engine.cli import main

Capture = pytest.CaptureFixture[str]


@task
async def double(number: int) -> int:
    return 2 * number


@flow(flow_run_name="on-{day}")
async def nightly(day: str) -> None:
    for number in range(10):
        await double(number)


@pytest.fixture
def journal(tmp_path: Path) -> str:
    """A journal of two engines: one with many runs, one with a single run."""
    path = str(tmp_path / "journal.db")

    async def fill() -> None:
        async with Engine(journal=f"sqlite:///{path}") as engine:
            await engine.run(nightly, "monday")
        async with Engine(journal=f"sqlite:///{path}") as engine:
            await engine.run(double, 1)

    anyio.run(fill)
    return path


@pytest.fixture
def runs(journal: str, capsys: Capture) -> list[dict[str, Any]]:
    """What the journal has, the latest first."""
    assert main(["runs", "--journal", journal, "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def test_a_run_is_found_by_what_means_only_it(
    journal: str, runs: list[dict[str, Any]], capsys: Capture
) -> None:
    """By its id, by how that begins, and by its name, given or made up."""
    latest, *_, second, first = runs
    assert f"{first['id']}0" in [run["id"] for run in runs]  # not what is meant
    for called, meant in [
        (first["id"], first),
        (latest["id"][:4], latest),
        ("on-monday", first),
        (second["name"], second),
    ]:
        assert main(["show", called, "--journal", journal, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["id"] == meant["id"]
        assert main(["redeliver", called, "--journal", journal]) == 0
        assert capsys.readouterr().out.startswith("0 hooks owed again")


@pytest.mark.parametrize("command", ["show", "redeliver"])
def test_no_such_run_is_a_mistake(command: str, journal: str, capsys: Capture) -> None:
    """An unknown run is not one for which there is nothing to do."""
    for called in ("nope", "%"):
        assert main([command, called, "--journal", journal]) == 2
        said = f"python -m engine {command}: {journal} has no run {called!r}\n"
        assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("command", ["show", "redeliver"])
def test_several_runs_are_named(
    command: str, journal: str, runs: list[dict[str, Any]], capsys: Capture
) -> None:
    """Where more than one may be meant, that is said, with some of them."""
    prefix = runs[-1]["id"].partition("-")[0]
    some = ", ".join(run["id"] for run in runs[1:6])
    assert main([command, prefix, "--journal", journal]) == 2
    said = capsys.readouterr().err
    assert f"{prefix!r} may be any of {some}, …: give the whole id" in said
