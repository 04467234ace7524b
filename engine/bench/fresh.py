"""What has to be measured in a process of its own, and how to get it from there.

A process's peak of memory only ever rises, modules are imported once, and threads of
other measurements would wake beside an idle engine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Final

from engine.bench.exceptions import BenchError

SLOWING: Final = ("COVERAGE_", "PYTHON")
"""How variables begin that have Python watch what it executes."""

IMPORTED: Final = (
    "import time\nbegan = time.perf_counter()\nimport {}\n"
    "print(time.perf_counter() - began)"
)


def surroundings() -> dict[str, str]:
    """Return the environment for a process that finds and measures what we would."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(SLOWING) or name == "PYTHONHOME"
    }
    environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, sys.path))
    return environment


def answer(title: str, *arguments: str) -> Any:
    """Run Python with *arguments* and this process's path; return what it prints.

    Raises:
        BenchError: It failed.
    """
    run = subprocess.run(
        [sys.executable, *arguments],
        env=surroundings(),
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no word"])[-1]
        raise BenchError(title, f"failed in a process of its own: {last}")
    return json.loads(run.stdout)


def seconds_to_import(modules: str) -> float:
    """Return how long it takes to import *modules* first of all."""
    return float(answer(f"importing {modules}", "-c", IMPORTED.format(modules)))


def apart(function: str, *arguments: Any) -> Any:
    """Call a function of `engine.bench.alone` in a process of its own."""
    given = json.dumps(arguments)
    return answer(function, "-m", "engine.bench.alone", function, given)
