"""``--against``: the same job on others, whatever becomes of them."""

from __future__ import annotations

import ast
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from engine.bench.measure import Setting
from engine.bench.peers import catalogue, compare
from engine.bench.peers.catalogue import OURSELVES, PEERS, Peer
from engine.cli import main

SETTING = Setting(runs=20, rounds=2)
GOOD = """
DISTRIBUTION = "attrs"
def measure(runs, rounds):
    print("noise")
    return [runs * 1e-6] * rounds
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the runner and its modules, to which others can be added."""
    copy = tmp_path / "peers"
    shutil.copytree(compare.RUNNER.parent, copy)
    monkeypatch.setattr(compare, "RUNNER", copy / "runner.py")
    return copy


def peer(folder: Path, name: str, text: str, runs: int = 10) -> Peer:
    (folder / f"on_{name}.py").write_text(text)
    return Peer(
        name=name,
        module=f"on_{name}",
        job="returns",
        install=f"pip install {name}",
        most_runs=runs,
    )


def quietly(_: str) -> None:
    """Show no progress."""


def test_ourselves_and_a_peer_are_compared(folder: Path) -> None:
    """Everybody has microseconds and a ratio to this library with as many runs."""
    found = list(
        compare.compare([peer(folder, "good", GOOD)], sys.executable, SETTING, quietly)
    )
    assert [one.peer for one in found] == [
        "asyncio",
        "engine",
        "engine, journal",
        "good",
    ]
    assert [one.runs for one in found] == [20, 20, 20, 10]
    assert not any(one.problem for one in found)
    assert found[1].ratio == 1.0
    good = found[-1]
    assert good.us_a_run == pytest.approx(1.0)
    assert good.version
    assert good.ratio is not None
    assert good.ratio > 0
    table = compare.comparison_table(found)
    assert len(table.splitlines()) == 5


def test_what_goes_wrong_with_a_peer_stays_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is missing, fails or dies says so, and the next has its turn."""
    monkeypatch.setattr(compare, "OURSELVES", ())
    good = "DISTRIBUTION = None\ndef measure(runs, rounds):\n    "
    peers = [
        peer(folder, "missing", "import no_such_library"),
        peer(folder, "failing", good + "raise RuntimeError('no luck')"),
        peer(folder, "dying", good + "import os; os._exit(3)"),
        peer(folder, "good", GOOD),
    ]
    found = list(compare.compare(peers, sys.executable, SETTING, quietly))
    assert [one.problem for one in found] == [
        "no_such_library is not installed: pip install missing",
        "failed: RuntimeError: no luck",
        "failed: code 3",
        None,
    ]
    assert found[-1].us_a_run is not None


def test_a_peer_that_hangs_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time it is killed, and that is what is said of it."""
    monkeypatch.setattr(compare, "PATIENCE", 0.1)
    text = "import threading\nthreading.Event().wait()"
    found = compare.do_job(peer(folder, "hanging", text), sys.executable, 1, 1)
    assert found.problem == "took more than 0.1 s"


@pytest.mark.skipif(os.name == "nt", reason="POSIX process groups")
def test_a_peer_leaves_no_process_behind(folder: Path) -> None:
    """What a peer has started and forgotten ends with it."""
    text = """
import subprocess, sys
DISTRIBUTION = None
def measure(runs, rounds):
    left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    return [left.pid] * rounds
"""
    found = compare.do_job(peer(folder, "leaving", text), sys.executable, 1, 1)
    assert found.us_a_run is not None
    pid = round(found.us_a_run / 1e6)
    deadline = time.monotonic() + 10
    while is_alive(pid):  # it was killed, and dies when it gets its turn
        assert time.monotonic() < deadline


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_a_python_that_cannot_be_run_is_named(folder: Path) -> None:
    """A wrong --python is each peer's problem, with the reason."""
    found = compare.do_job(peer(folder, "good", GOOD), "/no/such/python", 1, 1)
    assert found.problem == "cannot be run: No such file or directory"


def test_a_peer_does_not_see_what_our_python_has(folder: Path) -> None:
    """With another Python, our path is not on theirs; a peer's own modules are."""
    text = """
import sys
DISTRIBUTION = None
assert not any(path == "/only/ours" for path in sys.path)
import runner
def measure(runs, rounds):
    return [1.0]
"""
    sys.path.append("/only/ours")
    try:
        found = compare.do_job(peer(folder, "strict", text), sys.executable, 1, 1)
    finally:
        sys.path.remove("/only/ours")
    assert found.problem is None


@pytest.mark.parametrize("one", [*OURSELVES, *PEERS], ids=lambda one: one.module)
def test_each_peer_has_a_module_that_says_what_it_does(one: Peer) -> None:
    """The module is there, documented, and has the two names that the runner needs."""
    text = Path(catalogue.__file__).with_name(f"{one.module}.py").read_text("utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "measure" in names
    assert "DISTRIBUTION = " in text


def test_the_command_prints_the_comparison(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--against gives a table, or JSON, of the peers instead of the cases."""
    monkeypatch.setitem(catalogue.BY_NAME, "good", peer(folder, "good", GOOD))
    options = ("bench", "--runs", "10", "--repeat", "1", "--against", "good,")
    assert main([*options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:2] == ["peer", "version"]
    assert lines[-1].startswith("good ")
    assert main([*options, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["results"] == []
    assert [one["peer"] for one in said["peers"]][-1] == "good"
