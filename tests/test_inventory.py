"""The inventory example: a real job on real files, nasty ones among them."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Self

import pytest
import structlog

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPT = EXAMPLES / "inventory.py"
LOOPS = ["asyncio", "trio"]

each_loop = pytest.mark.parametrize("loop", LOOPS)
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")


@pytest.fixture
def inventory(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(EXAMPLES)
    import inventory

    yield inventory
    structlog.reset_defaults()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", str(SCRIPT), *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, encoding="utf-8", timeout=20
    )


def facts(report: str) -> dict[str, str]:
    """Return the lines of a report by their names."""
    return dict(re.findall(r"^  (\w[\w ]*?) {2,}(.*)$", report, re.MULTILINE))


def make_tree(root: Path) -> None:
    """Make files with every content that matters."""
    folder = root / "folder"
    folder.mkdir()
    (root / "text").write_bytes(b"one\ntwo\nno newline at the end")
    (folder / "copy").write_bytes(b"one\ntwo\nno newline at the end")
    (root / "binary").write_bytes(b"\x7fELF\0\n\n\n")
    (root / "empty").touch()
    (folder / "empty too").touch()


@each_loop
def test_report(tmp_path: Path, loop: str) -> None:
    """Everything that was read is counted, and every hook is accounted for."""
    make_tree(tmp_path)
    ended = run(tmp_path, "--loop", loop)
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr, "a short run without a terminal shows no progress"
    assert ended.stdout.startswith(f"Inventory of {tmp_path}\n")
    found = facts(ended.stdout)
    assert re.fullmatch(r"\S+ s, \S+ transitions per second", found.pop("time"))
    assert found == {
        "folders": "2",
        "files": "5, of which 1 binary",
        "skipped": "0 links, 0 special files",
        "bytes": "66 (66 bytes)",
        "lines": "6",
        "duplicates": "1 (29 bytes)",
        "failures": "0",
        "retries": "0",
        # One for each of 5 files and 2 folders, and the report itself.
        "hooks": "7 delivered of 8 due, 1 under way (this report is one)",
    }


@posix_only
def test_links_and_special_files_are_skipped(tmp_path: Path) -> None:
    """Loops of links, FIFOs and sockets are counted; hard links are no duplicates."""
    make_tree(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "this").symlink_to("that")
    (tmp_path / "that").symlink_to("this")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "to a file").symlink_to("text")
    (tmp_path / "hard link").hardlink_to(tmp_path / "text")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
    found = facts(run(tmp_path).stdout)
    assert found["skipped"] == "5 links, 2 special files"
    assert found["files"].startswith("6,")
    assert found["duplicates"] == "1 (29 bytes)"
    assert found["failures"] == "0"


@posix_only
@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", r"new\nline \udcff\x1b[31m 日本"),
        ("ascii", r"new\nline \udcff\x1b[31m \u65e5\u672c"),
    ],
    ids=["utf-8", "ascii"],
)
def test_odd_names(tmp_path: Path, encoding: str, shown: str) -> None:
    """Any name can be read and printed, on one line and without control characters."""
    root = os.path.join(
        os.fsencode(tmp_path), b"new\nline \xff\x1b[31m " + "日本".encode()
    )
    os.mkdir(root)
    for name in (
        b"new\nline",
        b"\x1b[31mred",
        b"\xff\xfe",
        "日本 ß".encode(),
        b"n" * 255,
    ):
        with open(os.path.join(root, name), "wb") as file:
            file.write(name)
    # The folders above this one make its path too long for the system.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(os.fsdecode(root))
        for _ in range(20):
            os.mkdir(b"d" * 250)
            os.chdir(b"d" * 250)
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    ended = subprocess.run(
        command(os.fsdecode(root)), capture_output=True, env=environment, timeout=20
    )
    assert ended.returncode == 0, ended.stderr
    output = ended.stdout.decode(encoding)
    assert output.splitlines()[0] == f"Inventory of {tmp_path}/{shown}"
    assert all(line.isprintable() for line in output.splitlines())
    found = facts(output)
    assert found["files"].startswith("5,")
    assert found["failures"] == "1 (1 OSError)"
    assert f"...{'d' * 50}: {os.strerror(errno.ENAMETOOLONG)}" in output


Opener = Callable[[str, int], int]


@pytest.fixture
def opening(inventory: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Have files whose names say so go wrong when they are opened."""
    opener: Opener = inventory.open_without_waiting
    opened: set[str] = set()

    def open_badly(path: str, flags: int) -> int:
        is_first, name = path not in opened, os.path.basename(path)
        opened.add(path)
        if name == "vanishing":
            os.remove(path)
        elif name == "unreadable":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        elif name == "flaky" and is_first:
            raise OSError(errno.EBUSY, "Device or resource busy", path)
        elif name == "stubborn":
            raise OSError(errno.EMFILE, "Too many open files", path)
        elif name == "replaced":
            os.remove(path)
            os.mkfifo(path)
        elif name == "moved":
            os.rename(path, f"{path} away")
            os.symlink(f"{path} away", path)
        return opener(path, flags)

    monkeypatch.setattr(inventory, "open_without_waiting", open_badly)
    return open_badly


@posix_only
@pytest.mark.usefixtures("opening")
@each_loop
def test_failures(
    inventory: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    loop: str,
) -> None:
    """What fails is collected, what fails for a moment is tried again."""
    at_once = inventory.read_file.with_options(retry_delay_seconds=0)
    monkeypatch.setattr(inventory, "read_file", at_once)
    for name in ("vanishing", "unreadable", "flaky", "stubborn", "good"):
        (tmp_path / name).write_text("line\n")
    for name in ("replaced", "moved"):
        (tmp_path / name).write_text("line\n")
    assert inventory.main([str(tmp_path), "--loop", loop]) == 0
    output = capsys.readouterr().out
    found = facts(output)
    assert found["files"].startswith("2,"), "the good one, and the flaky one"
    assert found["retries"] == "4", "one of the flaky file's, three of the stubborn's"
    assert found["failures"].startswith("5 (")
    for failure in (
        "vanishing: No such file or directory",
        "unreadable: Permission denied",
        "stubborn: Too many open files",
        "replaced: is no regular file any more",
        f"moved: {os.strerror(errno.ELOOP)}",
    ):
        assert f"    {tmp_path}/{failure}\n" in output


@each_loop
def test_a_read_that_hangs(
    inventory: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    loop: str,
) -> None:
    """A file that cannot be read in time is a failure, and holds nothing else up."""
    make_tree(tmp_path)
    over = threading.Event()
    opener = inventory.open_without_waiting

    def hang(path: str, flags: int) -> int:
        if path.endswith("binary"):
            over.wait()
        return opener(path, flags)

    monkeypatch.setattr(inventory, "open_without_waiting", hang)
    try:
        code = inventory.main([str(tmp_path), "--timeout", "0.1", "--loop", loop])
    finally:
        over.set()
    assert code == 0
    found = facts(capsys.readouterr().out)
    assert found["failures"] == "1 (1 TimeoutError)"
    assert found["files"].startswith("4,")


def test_a_read_without_end(
    inventory: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The thread of a file that is given up goes no further than its next chunk."""
    with (tmp_path / "endless").open("wb") as file:
        file.truncate(1 << 42)
    before = set(threading.enumerate())
    assert inventory.main([str(tmp_path), "--timeout", "0.05"]) == 0
    assert facts(capsys.readouterr().out)["failures"] == "1 (1 TimeoutError)"
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_many_failures_are_counted_and_some_listed(
    inventory: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(inventory, "open_without_waiting", refuse)
    for number in range(30):
        (tmp_path / str(number)).touch()
    assert inventory.main([str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert facts(output)["failures"] == "30 (30 PermissionError)"
    assert output.count("Permission denied") == 10
    assert "    ... and 20 more\n" in output


def test_a_folder_that_leads_back_is_walked_once(
    inventory: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Junctions and bind mounts make loops that are no links."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "file").touch()
    stat = os.stat
    monkeypatch.setattr(inventory.os, "stat", lambda _: stat(tmp_path))
    assert inventory.main([str(tmp_path)]) == 0
    found = facts(capsys.readouterr().out)
    assert found["folders"] == "1"
    assert found["files"].startswith("0,")


def test_no_report_without_the_first_folder(
    inventory: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where the directory itself cannot be listed, the exit code says so."""

    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(inventory.os, "scandir", refuse)
    assert inventory.main([str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert output.startswith(f"Partial inventory of {tmp_path} (Failed: ")
    assert f"    {tmp_path}: Permission denied\n" in output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "argument DIRECTORY: no such directory: 'nowhere'"),
        (["bad\nname"], r"argument DIRECTORY: no such directory: 'bad\nname'"),
        ([str(SCRIPT)], f"argument DIRECTORY: not a directory: '{SCRIPT}'"),
        (["--limit", "0"], "argument --limit: must be a number above zero, got '0'"),
        (["--limit", "1.5"], "must be a number above zero, got '1.5'"),
        (["--timeout", "nan"], "must be a number above zero, got 'nan'"),
        (["--loop", "curio"], "argument --loop: invalid choice: 'curio'"),
    ],
)
def test_bad_usage(
    inventory: ModuleType,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    complaint: str,
) -> None:
    """A mistake on the command line is named, before anything runs."""
    with pytest.raises(SystemExit) as caught:
        inventory.main(arguments)
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


def test_help(inventory: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        inventory.main(["--help"])
    assert caught.value.code == 0
    output = " ".join(capsys.readouterr().out.split())
    assert os.path.dirname(os.__file__) in output, "the default directory"
    assert "130 stopped by Ctrl-C" in output


# A terminal's Ctrl-C reaches the processes of the session that it controls.
PROGRAM = """
import fcntl, sys, termios
import inventory

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
opener = inventory.open_without_waiting

def tell(path, flags):
    if path.endswith("endless"):
        print("reading without end", flush=True)
    return opener(path, flags)

inventory.open_without_waiting = tell
sys.exit(inventory.main(sys.argv[1:]))
"""


class Terminal:
    """A program that runs on a terminal of its own."""

    def __init__(self, *arguments: object) -> None:
        self._screen, end = os.openpty()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", PROGRAM, *map(str, arguments)],
                env={**os.environ, "PYTHONPATH": f"{EXAMPLES}{os.pathsep}{ROOT}"},
                **dict.fromkeys(("stdin", "stdout", "stderr"), end),
                start_new_session=True,
            )
        finally:
            os.close(end)
        self.output = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._screen)

    def read_until(self, text: bytes | None) -> None:
        """Read until *text* is seen; None is until the program has ended."""
        while text is None or text not in self.output:
            try:
                data = os.read(self._screen, 10_000)
            except OSError:  # how Linux says that the other end is closed
                data = b""
            self.output += data
            if not data:
                assert text is None, self.output
                return

    def press(self, key: bytes) -> None:
        os.write(self._screen, key)


@posix_only
@each_loop
@pytest.mark.parametrize(
    ("stop", "reason", "exit_code"),
    [
        ("Ctrl-C", "Cancelling: Ctrl-C", 130),
        ("SIGTERM", "Crashed: Execution was aborted by a termination signal.", 143),
    ],
)
def test_stopped(
    tmp_path: Path, loop: str, stop: str, reason: str, exit_code: int
) -> None:
    """A line shows the progress; when stopped, a report what was found."""
    make_tree(tmp_path)
    with (tmp_path / "endless").open("wb") as file:
        file.truncate(1 << 42)
    with Terminal(tmp_path, "--timeout", "600", "--loop", loop) as terminal:
        terminal.read_until(b"reading without end")
        if stop == "Ctrl-C":
            terminal.press(b"\x03")
        else:
            terminal.process.send_signal(signal.SIGTERM)
        terminal.read_until(None)
        assert terminal.process.wait() == exit_code
    output = terminal.output.decode().replace("\r\n", "\n")
    assert re.match(r"\r0 files in \d folders, 0 bytes {10,}", output)
    assert f"\rPartial inventory of {tmp_path} ({reason})\n" in output
    assert "Traceback" not in output
    if stop == "Ctrl-C":
        last = re.search(
            r"Cancelled, with (\d) tasks under way;"
            r" hooks: (\d+) delivered of (\d+) due\n$",
            output,
        )
        assert last
        assert int(last[1]) > 0
        assert last[2] == last[3]
