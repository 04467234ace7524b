"""``python -m engine bench`` as its users call it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from engine.bench import living, measure, report, sizes
from engine.bench.cases import BY_NAME, CASES
from engine.bench.measure import Sample
from engine.bench.peers.catalogue import PEERS
from engine.bench.results import Limit, Result
from engine.cli import main

ROOT = Path(__file__).parents[2]
TINY = ("bench", "--runs", "10", "--repeat", "1")


@pytest.fixture(autouse=True)
def little_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "WEIGHED", 20)
    monkeypatch.setattr(sizes, "LEAST_RUNS", 1)


def test_the_table_shows_each_figure_beside_its_limit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A line a loop: the costs, the limit, the figure, and whether it is met."""
    assert main([*TINY, "--case", "fanout", "--case", "sync"]) == 0
    printed, complaints = capsys.readouterr()
    lines = printed.splitlines()
    assert "cores" in lines[0]
    assert "10 runs, medians of 1 rounds" in lines[0]
    head = lines[2]
    for column in ("case", "µs/run", "bare µs", "transitions/s", "bytes/live run"):
        assert column in head
    assert [line.split()[:2] for line in lines[3:5]] == [
        ["submit", "asyncio"],
        ["submit", "trio"],
    ]
    assert "≤ 2x the bare loop" in lines[3]
    assert re.search(r" \d+\.\d\dx  (yes|NO)$", lines[3])
    assert "≤ 12 µs" in lines[5]
    assert not complaints  # no progress where stderr is no terminal


def test_json_has_the_machine_and_everything_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Programs get what the table has, by name, and where it was measured."""
    options = ("--loop", "trio", "--clock", "cpu", "--json")
    assert main([*TINY, "--case", "await", *options]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["python"].endswith(sys.version.split()[0])
    assert set(said["versions"]) >= {"anyio", "attrs", "structlog", "trio"}
    assert (said["runs"], said["rounds"], said["clock"]) == (10, 1, "cpu")
    assert said["was_interrupted"] is False
    [result] = said["results"]
    assert result["case"] == "await"
    assert result["loop"] == "trio"
    assert result["limit"] == {"most": 8.0, "unit": "us", "of": "over a bare await"}
    assert result["is_met"] == (result["figure"] <= 8.0)
    assert result["ratio"] > 0


def test_list_names_every_case_and_every_peer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What --case and --against take is listed, and nothing measured."""
    assert main(["bench", "--list"]) == 0
    printed = capsys.readouterr().out
    for name in [*BY_NAME, *(peer.name for peer in PEERS)]:
        assert re.search(rf"^{name} ", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--case", "speed"], "case 'speed' is none of fanout, hook"),
        (["--against", "dask,celery"], "peer 'celery' is none of prefect, dask"),
        (["--write"], "--write needs --gate FILE, where the figures are kept"),
        (["--plot", "a.png"], "--plot a.png must end in .svg"),
        (["--plot", "no/such/a.svg"], "is in a folder that does not exist"),
    ],
)
def test_a_mistake_is_one_sentence(
    options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong name or file is refused before anything is measured."""
    assert main([*TINY, *options]) == 2
    printed, complaints = capsys.readouterr()
    assert complaint in complaints
    assert complaints.count("\n") == 1
    assert not printed


@pytest.mark.parametrize("value", ["0", "-3", "many", "1.5"])
@pytest.mark.parametrize("option", ["--runs", "--repeat"])
def test_a_size_has_to_be_a_number(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no whole number above zero is refused, and named."""
    with pytest.raises(SystemExit):
        main(["bench", option, value])
    complaint = f"{option}: must be a whole number >= 1, got '{value}'"
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    "interruption",
    [KeyboardInterrupt(), BaseExceptionGroup("nursery", [KeyboardInterrupt()])],
    ids=["alone", "in a group"],
)
def test_an_interruption_leaves_what_was_measured(
    interruption: BaseException,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Complete rounds of the case at hand count; the code is that of SIGINT."""
    calls = 0

    def interrupted(loop: str, runs: int) -> Sample:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise interruption
        return Sample(1.0)

    case = measure.InTurn(name="odd", title="odd", measure=interrupted, bare=quick)
    monkeypatch.setitem(BY_NAME, "odd", case)
    arguments = ["bench", "--runs", "10", "--repeat", "9", "--json", "--case", "odd"]
    assert main(arguments) == 130
    said, complaints = capsys.readouterr()
    facts = json.loads(said)
    assert facts["was_interrupted"] is True
    assert [result["rounds"] for result in facts["results"]] == [2]
    assert complaints == "interrupted: that is what was measured so far\n"


@pytest.mark.parametrize("option", ["--gate", "--plot"])
def test_an_interruption_before_any_figure_is_clean_too(
    option: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is no traceback, whatever was being measured."""

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(sizes, "collected", interrupted)
    monkeypatch.setattr("engine.bench.gate.apart", interrupted)
    assert main([*TINY, option, str(tmp_path / "a.svg")]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="raises a POSIX signal")
def test_an_interruption_is_not_lost_in_a_finaliser() -> None:
    """SIGINT while the garbage collector finalises strikes when it is done."""
    done: list[str] = []

    class Interrupting:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)
            done.append("finalised")

    Interrupting()
    with pytest.raises(KeyboardInterrupt):
        measure.collected(quick, "asyncio", 1)
    assert done == ["finalised"]


def quick(loop: str, runs: int) -> Sample:
    return Sample(0.5)


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal to a terminal's job")
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_ctrl_c_ends_it_cleanly(loop: str) -> None:
    """On a terminal a line shows the progress; SIGINT gives the table so far."""
    ours, theirs = os.openpty()
    arguments = ("--case", "fanout", "--loop", loop, "--runs", "50", "--repeat", "9999")
    path = os.pathsep.join([str(ROOT), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-m", "engine", "bench", *arguments],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while b"round 3 of 9999" not in shown:
                shown += os.read(ours, 10_000)
            process.send_signal(signal.SIGINT)
            printed, _ = process.communicate(timeout=15)
        finally:
            process.kill()
    rest = os.read(ours, 10_000)
    os.close(ours)
    assert process.returncode == 130
    assert b"Traceback" not in shown + rest
    assert f"submit  {loop}" in printed


def test_the_plot_is_well_formed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is SVG with a line for the engine and the bare loop on each loop."""
    path = tmp_path / "cost.svg"
    assert main([*TINY, "--plot", str(path)]) == 0
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = {element.text for element in root.iter() if element.text}
    assert {"engine, asyncio", "bare asyncio", "engine, trio", "bare trio"} <= texts
    assert "microseconds a run" in texts
    assert "bare µs" in capsys.readouterr().out


def test_the_plot_is_of_points_up_to_the_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each size up to --runs is a point, as JSON says."""
    monkeypatch.setattr(sizes, "SIZES", (5, 10, 20))
    options = ("--plot", str(tmp_path / "a.svg"), "--json", "--loop", "asyncio")
    assert main([*TINY, *options]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert [point["size"] for point in points] == [5, 10]
    assert all(min(point["engine"], point["bare"]) > 0 for point in points)


def test_without_matplotlib_the_plot_names_the_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence says what to install, before anything is measured."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main([*TINY, "--plot", str(tmp_path / "a.svg")]) == 2
    complaint = "--plot needs: pip install 'actor-engine[bench]'"
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_plot_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder in the place of the file is named."""
    (tmp_path / "a.svg").mkdir()
    assert main([*TINY, "--plot", str(tmp_path / "a.svg")]) == 2
    assert "a.svg failed: Is a directory" in capsys.readouterr().err


def test_the_script_measures_the_fan_out() -> None:
    """``benchmarks/fanout.py`` is the command with its cases."""
    script = ROOT / "benchmarks" / "fanout.py"
    path = os.pathsep.join([str(ROOT), *sys.path])
    ended = subprocess.run(
        [sys.executable, str(script), "--runs", "10", "--repeat", "1", "--list"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(ended.stdout.splitlines()) == len(CASES) + len(PEERS) + 2


def test_columns_fit_their_texts() -> None:
    """Every line of a table has its columns where the head has them."""
    wide = Result(
        case="a",
        title="a case with a long title",
        loop="trio",
        runs=1_000_000,
        rounds=1,
        us_a_run=123456.789,
        figure=1234.5,
        limit=Limit(0, "wake-ups", "of the bare loop"),
    )
    narrow = Result(case="b", title="b", loop=None, rounds=1, figure=1.0, base="x")
    lines = report.table([wide, narrow]).splitlines()
    at = lines[0].index("limit")
    assert lines[1][at:].startswith("≤ 0 wake-ups/s of the bare loop")
    assert lines[2][at:].startswith("-")
    assert lines[1].endswith("1234.50 wake-ups/s  NO")
    assert lines[2].endswith("1.00x x  -")
