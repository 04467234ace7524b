"""Take an inventory of a directory: read, hash and count the lines of every file.

    python examples/inventory.py [DIRECTORY] [--limit N] [--timeout SECONDS] [--loop L]

One flow walks the tree and fans out a task for each folder and file. Retries deal with
errors that pass, a deadline with reads that hang, and hooks with everything that is to
be told: they keep a progress line, collect the failures, and print the report, however
the flow ends. Ctrl-C cancels it; the report is then of what was seen so far.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import io
import math
import os
import signal
import stat
import sys
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TextIO

import anyio
import attrs
import structlog

from engine import Engine, Flow, FlowRun, RunHandle, State, Task, TaskRun, flow, task
from engine.runtime import task_run as this_run

INTERRUPTED: Final = 130  # what shells give to a command that Ctrl-C has stopped
CHUNK: Final = 1 << 20
LISTED_FAILURES: Final = 10

# Errors that may be gone a moment later: somebody else's lock, or too many open files.
TRANSIENT: Final = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
SHARING_VIOLATIONS: Final = {32, 33}  # how Windows says that a file is in use

Identity = tuple[int, int]


@attrs.frozen
class Folder:
    """What is in one folder, by what is to be done with it."""

    identity: Identity
    folders: list[str]
    files: list[str]
    links: int
    special: int


@attrs.frozen
class File:
    """What is known of one file; a binary one has no lines."""

    identity: Identity
    size: int
    digest: bytes
    lines: int | None


def is_transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether another attempt may go better."""
    error = state.data
    in_use = getattr(error, "winerror", None) in SHARING_VIOLATIONS
    return in_use or (isinstance(error, OSError) and error.errno in TRANSIENT)


patient_task = task(
    retries=3,
    retry_delay_seconds=[0.05, 0.2, 1.0],
    retry_jitter_factor=1.0,
    retry_condition_fn=is_transient,
)


@patient_task
def list_folder(path: str) -> Folder:
    """List a folder. Links are counted and never followed, so they cannot loop."""
    facts = os.stat(path)
    folders: list[str] = []
    files: list[str] = []
    links = special = 0
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_symlink():
                links += 1
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                files.append(entry.path)
            else:
                special += 1  # a FIFO, socket or device: reading it may never end
    return Folder((facts.st_dev, facts.st_ino), folders, files, links, special)


@patient_task
def read_file(path: str) -> File:
    """Read a file from beginning to end."""
    with open(path, "rb", buffering=0, opener=open_without_waiting) as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "is no regular file any more", path)
        digest, size, newlines, last = hashlib.sha256(), 0, 0, b"\n"
        is_binary = False
        while chunk := file.read(CHUNK):
            # Nobody can stop a thread from outside: one whose run is cancelled or past
            # its deadline was given up, and ends here rather than read on for nobody.
            if not this_run.state.is_running():
                break
            is_binary = is_binary or (not size and b"\0" in chunk)
            digest.update(chunk)
            size += len(chunk)
            newlines += chunk.count(b"\n")
            last = chunk[-1:]
    lines = None if is_binary else newlines + (last != b"\n")
    return File((facts.st_dev, facts.st_ino), size, digest.digest(), lines)


def open_without_waiting(path: str, flags: int) -> int:
    """Open what was a file a moment ago, even if it has become a FIFO or a link."""
    for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_NOCTTY"):
        flags |= getattr(os, name, 0)
    return os.open(path, flags)


class Inventory:
    """One inventory: its flow, its hooks, and what they have found out so far.

    The hooks are called in threads, many at a time.
    """

    def __init__(self, engine: Engine, limit: int, timeout: float) -> None:
        self.engine = engine
        self.limit = limit
        self.list_folder = self.observed(list_folder, timeout)
        self.read_file = self.observed(read_file, timeout)
        self.progress = Progress(sys.stderr)
        self.lock = threading.Lock()
        self.folders: set[Identity] = set()
        self.links = self.special = 0
        self.files = self.bytes = self.lines = self.binary = 0
        self.contents: dict[bytes, set[Identity]] = {}
        self.duplicates = self.duplicate_bytes = 0
        self.retries = self.cancelled = 0
        self.failed: Counter[str] = Counter()
        self.first_failures: list[str] = []

    def observed(self, step: Task[..., Any], timeout: float) -> Task[..., Any]:
        """Return a task with this inventory's hooks and deadline."""
        return step.with_options(
            timeout_seconds=timeout,
            on_completion=[self.show_progress],
            on_failure=[self.collect_failure, self.show_progress],
            on_retry=[self.count_retry],
            on_cancellation=[self.count_cancelled],
        )

    def make_flow(self) -> Flow[[str], Any]:
        """Return the flow, which ends in a report whatever happens."""
        at_the_end = [self.print_report]
        return flow(
            name="inventory",
            on_completion=at_the_end,
            on_failure=at_the_end,
            on_cancellation=at_the_end,
            on_crashed=at_the_end,
        )(self.take)

    async def take(self, root: str) -> None:
        """Read every file below *root*, at most so many at a time."""
        paths = self.walk(root)
        stream = self.read_file.stream(paths, limit=self.limit, on_error="continue")
        async with stream as handles:
            async for handle in handles:
                if handle.state.is_completed():
                    self.add(await handle)

    async def walk(self, root: str) -> AsyncIterator[str]:
        """Yield the paths of all files; a folder that cannot be listed has none."""
        left = [root]
        while left:
            path = left.pop()
            state = await self.list_folder.submit(path).join()
            if path == root:
                state.result()  # without the first folder there is nothing to report
            if not state.is_completed() or state.data.identity in self.folders:
                continue  # seen before: a junction or a bind mount has led back here
            folder: Folder = state.data
            self.folders.add(folder.identity)
            self.links += folder.links
            self.special += folder.special
            left += folder.folders
            for file in folder.files:
                yield file

    def add(self, file: File) -> None:
        """Take a file into account."""
        with self.lock:
            self.files += 1
            self.bytes += file.size
            self.lines += file.lines or 0
            self.binary += file.lines is None
            # Two names of one file (a hard link) are no duplicates.
            copies = self.contents.setdefault(file.digest, set())
            if copies and file.size and file.identity not in copies:
                self.duplicates += 1
                self.duplicate_bytes += file.size
            copies.add(file.identity)

    # The hooks.

    def show_progress(self, *_: object) -> None:
        """Say how far it has come."""
        with self.lock:
            failed = f", {self.failed.total():,} failed" if self.failed else ""
            self.progress.show(
                f"{self.files:,} files in {len(self.folders):,} folders,"
                f" {readable(self.bytes)}{failed}"
            )

    def collect_failure(
        self, task: Task[..., Any], run: TaskRun, state: State[Any]
    ) -> None:
        """Count a failure by its kind, and keep what the first ones say."""
        error = state.data
        reason = getattr(error, "strerror", None) or str(error)
        path = shortened(printable(run.parameters["path"]))
        with self.lock:
            self.failed[type(error).__name__] += 1
            if len(self.first_failures) < LISTED_FAILURES:
                self.first_failures.append(f"{path}: {reason}")

    def count_retry(self, *_: object) -> None:
        """Count an error that may pass."""
        with self.lock:
            self.retries += 1

    def count_cancelled(self, *_: object) -> None:
        """Count a folder or file that was left because the flow was stopped."""
        with self.lock:
            self.cancelled += 1

    def print_report(
        self, flow: Flow[..., Any], run: FlowRun, state: State[Any]
    ) -> None:
        """Print what was found, all of it or in part."""
        with self.lock:
            self.progress.clear()
            print("\n".join(self.report(run, state)), flush=True)

    def report(self, run: FlowRun, state: State[Any]) -> list[str]:
        """Return the report's lines."""
        root = printable(run.parameters["root"])
        title = f"Inventory of {root}"
        if not state.is_completed():
            title = f"Partial inventory of {root} ({state.name}: {state.message})"
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in self.failed.most_common())
        failed = self.failed.total()
        failures = [f"    {failure}" for failure in self.first_failures]
        if failed > len(failures):
            failures.append(f"    ... and {failed - len(failures):,} more")
        seconds = run.total_run_time.total_seconds()
        statistics = self.engine.statistics()
        rate = statistics.transitions / seconds if seconds else 0.0
        hooks = statistics.hooks
        return [
            title,
            f"  folders     {len(self.folders):,}",
            f"  files       {self.files:,}, of which {self.binary:,} binary",
            f"  skipped     {self.links:,} links, {self.special:,} special files",
            f"  bytes       {self.bytes:,} ({readable(self.bytes)})",
            f"  lines       {self.lines:,}",
            f"  duplicates  {self.duplicates:,} ({readable(self.duplicate_bytes)})",
            f"  failures    {failed:,}" + (kinds and f" ({kinds})"),
            *failures,
            f"  retries     {self.retries:,}",
            f"  time        {seconds:.2f} s, {rate:,.0f} transitions per second",
            f"  hooks       {hooks.delivered:,} delivered of {hooks.due:,} due,"
            f" {hooks.waiting:,} under way (this report is one)",
        ]


class Progress:
    """A line rewritten in place on a terminal; elsewhere a new one now and then."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_live = stream.isatty()
        self.interval = 0.1 if self.is_live else 5.0
        self.next = time.monotonic() + (0.0 if self.is_live else self.interval)
        self.is_over = False

    def show(self, text: str) -> None:
        """Show *text*, unless the last one is too recent to have been read."""
        if self.is_over or time.monotonic() < self.next:
            return
        self.next = time.monotonic() + self.interval
        if self.is_live:
            self.write("\r" + text[: self.width()].ljust(self.width()))
        else:
            self.write(text + "\n")

    def clear(self) -> None:
        """Wipe the line away, and show nothing more."""
        if self.is_live and not self.is_over:
            self.write("\r" + " " * self.width() + "\r")
        self.is_over = True

    def write(self, text: str) -> None:
        """Write *text* so that it is seen at once."""
        self.stream.write(text)
        self.stream.flush()

    def width(self) -> int:
        """Return how long a line may be without wrapping."""
        # A full last column wraps on some terminals; some do not know their width.
        return (os.get_terminal_size(self.stream.fileno()).columns or 80) - 1


def printable(path: str) -> str:
    """Return *path* on one line: newlines, escapes and undecodable bytes as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in path)


def shortened(text: str, length: int = 100) -> str:
    """Return *text* with its middle left out where it is too long for a line."""
    half = length // 2
    return text if len(text) <= length else f"{text[:half]}...{text[-half:]}"


def readable(size: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


async def run_inventory(options: argparse.Namespace) -> int:
    """Run the flow in an engine of its own; return the exit code."""
    async with Engine(signals=True) as engine:
        inventory = Inventory(engine, options.limit, options.timeout)
        handle = engine.start(inventory.make_flow(), options.directory)
        state = await join_or_interrupt(handle)
    if state.is_cancelled():
        assert engine.shutdown_report is not None
        hooks = engine.shutdown_report.hooks
        print(
            f"Cancelled, with {inventory.cancelled:,} tasks under way;"
            f" hooks: {hooks.delivered:,} delivered of {hooks.due:,} due",
            file=sys.stderr,
        )
        return INTERRUPTED
    told = all(hook.status == "delivered" for hook in handle.hook_outcomes)
    return 0 if told and state.is_completed() else 1


async def join_or_interrupt(handle: RunHandle[Any]) -> State[Any]:
    """Wait for the run's end, which Ctrl-C brings about early."""
    async with anyio.create_task_group() as group:
        group.start_soon(cancel_on_interrupt, handle)
        await handle.join()
        group.cancel_scope.cancel()
    return handle.state


async def cancel_on_interrupt(handle: RunHandle[Any]) -> None:
    """Cancel the run at the first Ctrl-C; a second one finds Python's own handler."""
    # On Windows asyncio has no such receiver. There Ctrl-C cancels the main task, and
    # leaving the engine's block cancels the run.
    with (
        suppress(NotImplementedError),
        anyio.open_signal_receiver(signal.SIGINT) as signals,
    ):
        async for _ in signals:
            handle.cancel("Ctrl-C")
            return


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="inventory.py",
        description="Read, hash and count the lines of every file below a directory.",
        epilog="exit codes: 0 the whole report, 1 no report, 2 wrong usage,"
        " 130 stopped by Ctrl-C",
    )
    parser.add_argument(
        "directory",
        nargs="?",
        metavar="DIRECTORY",
        type=directory,
        default=sysconfig.get_path("stdlib"),
        help="where to begin (default: the Python standard library, %(default)s)",
    )
    parser.add_argument(
        "--limit",
        type=partial(above_zero, int),
        default=64,
        help="how many files are read at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=partial(above_zero, float),
        default=30.0,
        help="how long reading one file may take (default: %(default)g)",
    )
    parser.add_argument(
        "--loop",
        choices=["asyncio", "trio"],
        default="asyncio",
        help="the event loop that it runs on (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def directory(path: str) -> str:
    """Check that *path* is a directory."""
    if not os.path.exists(path):
        raise argparse.ArgumentTypeError(f"no such directory: '{printable(path)}'")
    if not os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"not a directory: '{printable(path)}'")
    return path


def above_zero(kind: type[int] | type[float], text: str) -> float:
    """Check that *text* is a number above zero."""
    with suppress(ValueError):
        number = kind(text)
        if number > 0 and math.isfinite(number):
            return number
    raise argparse.ArgumentTypeError(f"must be a number above zero, got {text!r}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # any name can be printed
    # The engine logs through structlog and leaves it to the application where to.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    options = parse_options(arguments)
    try:
        return anyio.run(run_inventory, options, backend=options.loop)
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
