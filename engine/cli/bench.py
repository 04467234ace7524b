"""``bench``: what runs cost, beside the bare loop and beside others."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.cli.arguments import positive

if TYPE_CHECKING:
    from engine.bench.measure import Setting
    from engine.bench.session import Session

HELP: Final = "Measure what runs cost, beside the bare event loop and beside others."
INTERRUPTED: Final = 130


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add(
        "--case",
        action="append",
        default=[],
        metavar="NAME",
        help="measure only this case; may be repeated (--list names them)",
    )
    add("--list", action="store_true", help="list the cases and the peers")
    add("--runs", type=positive, metavar="N", help="how many at once (default 100000)")
    add("--repeat", type=positive, metavar="N", help="how many rounds (default 5)")
    add("--quick", action="store_true", help="5000 runs in 3 rounds, if not told else")
    add("--loop", choices=("asyncio", "trio"), help="only this one (default: both)")
    add(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu counts this process's own time: steadier on a busy machine",
    )
    add(
        "--against",
        metavar="NAMES",
        help="compare with others, such as prefect,dask,ray,taskiq,dbos; the cases are"
        " measured too only if named",
    )
    add(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="the Python that the others are installed in (default: this one)",
    )
    add(
        "--plot",
        type=Path,
        metavar="FILE.svg",
        help="draw the cost of a run against how many there are; the cases are"
        " measured too only if named",
    )
    add(
        "--gate",
        type=Path,
        metavar="FILE",
        help="only compare the fan-out's cost with the figures that FILE keeps; the"
        " exit code is 1 where one has grown by more than a quarter",
    )
    add(
        "--write",
        action="store_true",
        help="with --gate: keep the figures of this Python in FILE",
    )
    add("--json", action="store_true", help="print JSON instead of tables")


def execute(options: argparse.Namespace) -> int:
    """Measure and report; return the exit code."""
    from engine.bench.exceptions import BenchError
    from engine.bench.progress import ProgressLine

    if options.list:
        print_choices()
        return 0
    if options.write and options.gate is None:
        raise BenchError("--write", "needs --gate FILE, where the figures are kept")
    progress = ProgressLine()
    session: Session | None = None
    try:
        if options.gate is not None:
            return guard(options, progress)
        session = new_session(options)
        session.measure(progress)
    except BaseException as error:
        if not is_interruption(error):
            raise
        progress.clear()
        if session is not None:
            session.was_interrupted = True
            report(session, as_json=options.json)
        print("interrupted: that is what was measured so far", file=sys.stderr)
        return INTERRUPTED
    progress.clear()
    report(session, as_json=options.json)
    return 0


def is_interruption(error: BaseException) -> bool:
    """Whether it is a KeyboardInterrupt, or one in a group, as nurseries raise it."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is not None
    return isinstance(error, KeyboardInterrupt)


def report(session: Session, *, as_json: bool) -> None:
    """Print what was measured."""
    if as_json:
        print(json.dumps(session.as_json(), indent=2))
    else:
        print(session.as_text())


def print_choices() -> None:
    """Print the names that the options take."""
    from engine.bench.cases import CASES
    from engine.bench.peers.catalogue import PEERS

    for case in CASES:
        print(f"{case.name:16} {case.title}")
    print("\n--against:")
    for peer in PEERS:
        print(f"{peer.name:16} {peer.job}; {peer.install}")


def new_session(options: argparse.Namespace) -> Session:
    """Read what is to be measured; refuse at once what cannot be."""
    from engine.bench.cases import named
    from engine.bench.peers.compare import chosen
    from engine.bench.plot import check_can_plot
    from engine.bench.session import Session

    peers = chosen(options.against or "")
    if options.plot is not None:
        check_can_plot(options.plot)
    only_others = not options.case and (peers or options.plot is not None)
    return Session(
        setting=setting_of(options),
        cases=() if only_others else named(options.case),
        peers=peers,
        python=options.python,
        plot=options.plot,
    )


def setting_of(options: argparse.Namespace) -> Setting:
    """Return how to measure."""
    from engine.bench.measure import LOOPS, Setting

    return Setting(
        runs=options.runs or (5_000 if options.quick else 100_000),
        rounds=options.repeat or (3 if options.quick else 5),
        loops=(options.loop,) if options.loop else LOOPS,
        clock=options.clock,
        idle_seconds=0.2 if options.quick else 1.0,
    )


def guard(options: argparse.Namespace, progress: Any) -> int:
    """Hold the fan-out's cost against the figures that are kept, or keep it."""
    from engine.bench import gate
    from engine.bench.measure import LOOPS

    path: Path = options.gate
    loops = (options.loop,) if options.loop else LOOPS
    if options.write:
        gate.write(path, gate.figures(loops, progress))
        progress.clear()
        print(f"kept the figures of Python {gate.VERSION} in {path}")
        return 0
    judged = gate.judge(path, loops, progress)
    progress.clear()
    if options.json:
        print(json.dumps(gate.as_json(judged), indent=2))
    else:
        print(gate.gate_table(judged))
        print(gate.sentence(path, judged))
    return 0 if all(one.is_let_through for one in judged) else 1
