"""``run``: a flow in a process of its own, under a supervisor that outlives it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Final

from engine.cli.arguments import add_loop, add_wait, journal_file, seconds

HELP: Final = "Run a flow under a supervisor, which delivers its hooks if it is killed."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("target", metavar="MODULE:FLOW", help="or path/to/file.py:flow")
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument, as JSON or as plain text; may be repeated",
    )
    parser.add_argument(
        "--journal",
        type=journal_file,
        metavar="FILE",
        help="where the run is kept, a file or sqlite:///FILE; without, nowhere",
    )
    add_loop(parser)
    parser.add_argument(
        "--durability",
        choices=("full", "normal", "off"),
        default="full",
        help="what a loss of power takes from the journal: nothing, the last moments,"
        " or perhaps all of it; the death of the process takes nothing (default full)",
    )
    parser.add_argument(
        "--drain",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="from the first SIGINT or SIGTERM to cancelling (default 1)",
    )
    parser.add_argument(
        "--grace",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="from cancelling to killing (default 10)",
    )
    add_wait(parser)


def execute(options: argparse.Namespace) -> int:
    """Start the child, watch over it, recover what it leaves; return the exit code."""
    try:
        job = json.dumps(
            {
                "target": options.target,
                "parameters": dict(map(parameter, options.param)),
                "journal": options.journal,
                "durability": options.durability,
                "loop": options.loop,
                "grace": options.grace,
                "wait": options.wait,
            }
        )
    except ValueError as error:
        print(f"python -m engine run: {error}", file=sys.stderr)
        return 2
    from engine.cli.watch import Watch

    command = (sys.executable, "-m", "engine.cli.child", job)
    return Watch(command, drain=options.drain, grace=options.grace).run(
        options.journal, options.loop
    )


def parameter(text: str) -> tuple[str, Any]:
    """Split ``name=value``; the value is JSON where it can be read so, else text.

    Raises:
        ValueError: There is no name.
    """
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise ValueError(f"--param must look like name=value, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
