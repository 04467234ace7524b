"""What does a run cost beside a bare task of the event loop?

The same as ``python -m engine bench`` with the cases of one task's fan-out; it takes
that command's options.
"""

from __future__ import annotations

import sys

from engine.cli import main

RUNS = "20000"
CASES = ("fanout", "hook", "reading", "stream", "await", "sync")

if __name__ == "__main__":
    cases = [argument for case in CASES for argument in ("--case", case)]
    sys.exit(main(["bench", "--runs", RUNS, *cases, *sys.argv[1:]]))
