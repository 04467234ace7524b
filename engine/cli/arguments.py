"""Arguments that several commands take, and the types of their values."""

from __future__ import annotations

import argparse
import threading
from typing import Final

URL: Final = "sqlite:///"


def add_journal(parser: argparse.ArgumentParser) -> None:
    """Add what every command that reads a journal takes."""
    parser.add_argument(
        "--journal",
        required=True,
        type=journal_file,
        metavar="FILE",
        help="the journal's file, or sqlite:///FILE",
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of a table"
    )


def add_loop(parser: argparse.ArgumentParser) -> None:
    """Add the choice of an event loop."""
    parser.add_argument(
        "--loop",
        choices=("asyncio", "trio"),
        default="asyncio",
        help="the event loop for async code (default asyncio)",
    )


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add how long to wait for a journal that somebody else has."""
    parser.add_argument(
        "--wait",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="how long to wait for the journal's lock (default 0)",
    )


def journal_file(text: str) -> str:
    """Read a path, or a URL of one as ``Engine(journal=…)`` takes it."""
    path = text.removeprefix(URL)
    if not path or "://" in path:
        problem = f"must be a file or {URL}FILE, got {text!r}"
        raise argparse.ArgumentTypeError(problem)
    return path


def seconds(text: str) -> float:
    """Read a duration that can be waited for."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    # No clock waits for infinity, and not-a-number is in no range.
    if not 0 <= value <= threading.TIMEOUT_MAX:
        problem = f"must be a number of seconds >= 0, got {text!r}"
        raise argparse.ArgumentTypeError(problem)
    return value


def positive(text: str) -> int:
    """Read a whole number above zero."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return value
