"""The commands of ``python -m engine``.

Each command is a module here with three names: ``HELP``, a sentence;
``configure(parser)``, which adds its arguments; and ``execute(options)``, which returns
the exit code. It needs nothing but the library itself, and what takes long to import is
imported by ``execute``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn

import engine
from engine.exceptions import EngineError

COMMANDS: Final = {
    "run": "engine.cli.run",
    "runs": "engine.cli.runs",
    "show": "engine.cli.show",
    "hooks": "engine.cli.hooks",
    "redeliver": "engine.cli.redeliver",
    "doctor": "engine.cli.doctor",
    "config": "engine.cli.config",
    "bench": "engine.cli.bench",
}


class ShowVersion(argparse.Action):
    """Prints the version, which is looked up only then, since that takes long."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Print it."""
        print("actor-engine", getattr(engine, "__version__", "(not installed)"))
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code.

    Args:
        arguments: What follows ``python -m engine``; None takes the process's own.
    """
    parser = argparse.ArgumentParser(
        prog="python -m engine",
        description="Run flows under a supervisor; read journals and settings.",
    )
    parser.add_argument(
        "--version", action=ShowVersion, nargs=0, help="print the version and exit"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module_name in COMMANDS.items():
        module = importlib.import_module(module_name)
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.configure(command)
        command.set_defaults(execute=module.execute)
    options = parser.parse_args(arguments)
    try:
        code = int(options.execute(options))
        sys.stdout.flush()  # now, when it can still be said that this fails
        return code
    except EngineError as error:
        print(f"{parser.prog} {options.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        give_up_output()  # whoever read it (head, less) has seen enough
        return 1
    except OSError as error:
        print(f"{parser.prog} {options.command}: {error}", file=sys.stderr)
        give_up_output()
        return 1


def give_up_output() -> None:
    """Leave nothing to write at exit, where Python would complain once more."""
    with suppress(OSError):
        sys.stdout.flush()
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
