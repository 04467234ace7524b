"""What ``python -m engine`` does when nobody takes what it prints."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = (["config"], ["config", "--json"], ["bench", "--list"])


def run(
    arguments: list[str], out: int | IO[bytes], **variables: str
) -> tuple[int, str]:
    """Run a command; return its code and what it says on stderr."""
    path = os.pathsep.join([str(ROOT), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-m", "engine", *arguments],
        env={**os.environ, "PYTHONPATH": path, **variables},
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
    )
    return ended.returncode, ended.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="writes to /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_full_disk_is_one_sentence(arguments: list[str], unbuffered: str) -> None:
    """Output that cannot be written is an error, at once or at the end."""
    with open("/dev/full", "wb") as full:
        code, said = run(arguments, full, PYTHONUNBUFFERED=unbuffered)
    assert code == 1
    problem = "[Errno 28] No space left on device"
    assert said == f"python -m engine {arguments[0]}: {problem}\n"


@pytest.mark.skipif(os.name == "nt", reason="has pipes that end otherwise")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_is_no_error(unbuffered: str) -> None:
    """Nothing is said to whoever pipes into ``head``."""
    read, write = os.pipe()
    os.close(read)
    code, said = run(["config"], write, PYTHONUNBUFFERED=unbuffered)
    os.close(write)
    assert (code, said) == (1, "")
