"""The gate: what a run costs may not grow by more than a quarter unseen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.bench import alone, counts, fanout, gate, living
from engine.cli import main
from engine.tasks import Task

KEPT = Path(__file__).parents[2] / "benchmarks" / "baseline.json"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[gate.Figures]:
    """What the next measurements will give, the last of them ever after."""
    given: list[gate.Figures] = []

    def figures(*_: Any) -> gate.Figures:
        return given.pop(0) if len(given) > 1 else given[0]

    monkeypatch.setattr(gate, "figures", figures)
    return given


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count and time with little."""
    monkeypatch.setattr(counts, "COUNTED_RUNS", 20)
    monkeypatch.setattr(counts, "TIMED_RUNS", 20)
    monkeypatch.setattr(counts, "TIMED_ROUNDS", 3)


@pytest.mark.timeout(120)
def test_a_run_is_not_dearer_than_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """The fan-out costs at most a quarter more than the repository's figures say.

    If that is meant: ``python -m engine bench --gate benchmarks/baseline.json --write``
    with each Python.
    """
    code = main(["bench", "--gate", str(KEPT)])
    assert code == 0, capsys.readouterr().out


def test_figures_are_kept_for_each_python() -> None:
    """The repository's file has the same figures for each Python and loop."""
    kept = gate.read(KEPT)
    assert set(kept) >= {"3.11", "3.12", "3.13"}
    for loops in kept.values():
        assert set(loops) == {"asyncio", "trio"}
        for figures in loops.values():
            assert set(figures) == set(gate.MEANINGS)
            assert all(figure > 1 for figure in figures.values())


@pytest.mark.parametrize(("now", "code"), [(5.0, 0), (4.9, 0), (5.1, 1)])
def test_a_quarter_more_is_let_through_and_no_more(
    now: float,
    code: int,
    tmp_path: Path,
    measured: list[gate.Figures],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The exit code says whether it passes, and the table what has grown."""
    path = tmp_path / "kept.json"
    gate.write(path, {"asyncio": {"calls": 4.0, "seconds": 4.0}})
    measured.append({"asyncio": {"calls": now, "seconds": 4.0}})
    assert main(["bench", "--gate", str(path)]) == code
    printed = capsys.readouterr().out
    assert printed.count("TOO DEAR") == code
    assert ("--write" in printed) == bool(code)


def test_what_seems_too_dear_is_measured_again(
    tmp_path: Path, measured: list[gate.Figures]
) -> None:
    """One slow moment of the machine does not fail the gate."""
    path = tmp_path / "kept.json"
    gate.write(path, {"trio": {"seconds": 4.0}})
    measured += [{"trio": {"seconds": 9.0}}, {"trio": {"seconds": 4.1}}]
    [verdict] = gate.judge(path, ["trio"], str)
    assert verdict.now == 4.1
    assert verdict.is_let_through


def test_writing_leaves_other_pythons_and_loops(
    tmp_path: Path, measured: list[gate.Figures], capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the figures of this Python and the loops measured are renewed."""
    path = tmp_path / "kept.json"
    old = {"asyncio": {"calls": 9.0}, "trio": {"calls": 8.0}}
    path.write_text(json.dumps({"2.7": old, gate.VERSION: old}))
    measured.append({"asyncio": {"calls": 4.123}})
    assert main(["bench", "--gate", str(path), "--write"]) == 0
    assert gate.VERSION in capsys.readouterr().out
    assert json.loads(path.read_text()) == {
        "2.7": old,
        gate.VERSION: {**old, "asyncio": {"calls": 4.12}},
    }


def test_a_python_without_figures_passes_and_says_so(
    tmp_path: Path, measured: list[gate.Figures], capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nothing to hold a new Python against yet."""
    measured.append({"asyncio": {"calls": 4.0}})
    assert main(["bench", "--gate", str(tmp_path / "none.json"), "--json"]) == 0
    [verdict] = json.loads(capsys.readouterr().out)
    assert verdict["kept"] is None
    main(["bench", "--gate", str(tmp_path / "none.json")])
    assert "keeps no figures" in capsys.readouterr().out


def test_what_has_become_cheaper_asks_to_be_held_there(
    tmp_path: Path, measured: list[gate.Figures], capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the next loss would hide in the gain."""
    path = tmp_path / "kept.json"
    gate.write(path, {"asyncio": {"calls": 8.0}})
    measured.append({"asyncio": {"calls": 4.0}})
    assert main(["bench", "--gate", str(path)]) == 0
    assert "become cheaper" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["", "[]", '{"3.11": 4}', '{"3.11": {"asyncio": {"calls": "many"}}}']
)
def test_a_file_that_is_not_the_gate_s_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence names the file; nothing is measured, and no exception escapes."""
    path = tmp_path / "kept.json"
    path.write_text(text)
    assert main(["bench", "--gate", str(path)]) == 2
    assert f"the gate's file {path} cannot be used" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_refused(
    tmp_path: Path, measured: list[gate.Figures], capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence names it."""
    measured.append({"asyncio": {"calls": 4.0}})
    path = tmp_path / "no" / "such" / "kept.json"
    assert main(["bench", "--gate", str(path), "--write"]) == 2
    assert str(path) in capsys.readouterr().err


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_every_figure_is_counted(loop: str) -> None:
    """A run costs more than a bare task, by whatever counts."""
    found = alone.FUNCTIONS["ratios"](loop)
    assert set(found) == set(gate.MEANINGS)
    assert all(figure > 1 for figure in found.values())


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("counting", [counts.bytecodes, counts.calls])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_counts_repeat(counting: Callable[[], Any], loop: str) -> None:
    """The same code counts the same, to a few hundredths."""
    first, second = (counts.a_run(counting, fanout.submit, loop) for _ in range(2))
    assert first == pytest.approx(second, rel=0.03)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("counting", [counts.bytecodes, counts.calls])
def test_the_counts_see_a_core_that_does_more(
    counting: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work that is added to each submission is in the figures."""
    before = counts.a_run(counting, fanout.submit, "asyncio")
    submit = Task.submit

    def slower(self: Any, *args: Any) -> Any:
        for _ in range(100):
            len(args)
        return submit(self, *args)

    monkeypatch.setattr(Task, "submit", slower)
    after = counts.a_run(counting, fanout.submit, "asyncio")
    assert after > before * gate.MARGIN


@pytest.mark.usefixtures("few")
def test_the_counts_see_runs_that_keep_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each live run holds on to is in the figures."""
    before = counts.live(counts.tracked, living.engine_crowd, "asyncio")
    kept: list[Any] = []
    submit = Task.submit

    def hoarding(self: Any, *args: Any) -> Any:
        kept.append([[], [], [], [], [], [], [], [], []])
        return submit(self, *args)

    monkeypatch.setattr(Task, "submit", hoarding)
    after = counts.live(counts.tracked, living.engine_crowd, "asyncio")
    assert after >= before + 9
