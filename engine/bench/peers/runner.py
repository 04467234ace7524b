"""The process that does a peer's job: ``python runner.py MODULE RUNS ROUNDS``.

Prints one line of JSON, the last: the seconds of each round, or what is missing. What
the peer prints goes to stderr, unless it writes past Python.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from importlib.metadata import version
from tempfile import TemporaryDirectory
from typing import Any


def main(module_name: str, runs: int, rounds: int) -> dict[str, Any]:
    """Do the job; return what is to be said about it."""
    try:
        peer = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        return {"missing": error.name}
    distribution = peer.DISTRIBUTION
    return {
        "python": platform.python_version(),
        "version": distribution and version(distribution),
        "seconds": peer.measure(runs, rounds),
    }


if __name__ == "__main__":
    # Workers import what they are asked to do from here.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    stdout, sys.stdout = sys.stdout, sys.stderr
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)  # what the peer leaves there goes with it
        said = main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
        print(json.dumps(said), file=stdout, flush=True)
        os.chdir("/")
