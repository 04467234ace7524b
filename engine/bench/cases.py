"""The cases, in the order of the table, each with what it may cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from engine.bench import calling, fanout, living
from engine.bench.apart import IDLE, IMPORT, LONG_STREAM, Apart
from engine.bench.exceptions import BenchError
from engine.bench.measure import (
    InTurn,
    microseconds,
    microseconds_over_base,
)
from engine.bench.results import Limit

Case = InTurn | Apart

BARE_LOOP: Final = "the bare loop"
in_turn: Final = partial(InTurn, bare=fanout.bare)
# Beside the fan-out that nobody listens to. Three of them, with many transitions that
# are kept: a part of the runs will do.
listened: Final = partial(
    in_turn, base=fanout.submit, base_title="no subscriber", share=0.2
)
# A pool and a hundred thousand runs that each cross threads take long.
in_threads: Final = partial(
    in_turn,
    base=calling.thread_pool,
    base_title="a bare pool",
    limit=Limit(3.0, "x", "a bare pool"),
    share=0.2,
)
journalled: Final = partial(
    in_turn,
    base=fanout.without_journal,
    base_title="no journal",
    share=0.2,
)

CASES: Final[tuple[Case, ...]] = (
    in_turn(
        name="fanout",
        title="submit",
        measure=fanout.submit,
        limit=Limit(2.0, "x", BARE_LOOP),
        live_bytes=living.bytes_a_live_run,
    ),
    in_turn(
        name="hook",
        title="submit, one async hook",
        measure=fanout.submit_with_hook,
        limit=Limit(3.5, "x", BARE_LOOP),
        live_bytes=living.bytes_with_hook,
    ),
    listened(
        name="reading",
        title="submit, one subscriber",
        measure=fanout.with_readers(1),
    ),
    listened(
        name="never-reading",
        title="submit, one that never reads",
        measure=fanout.with_deaf_subscriber,
        limit=Limit(1.05, "x", "no subscriber"),
    ),
    listened(
        name="ten-reading",
        title="submit, ten subscribers",
        measure=fanout.with_readers(10),
    ),
    in_turn(
        name="stream",
        title=f"stream(limit={fanout.STREAM_LIMIT})",
        measure=fanout.stream,
    ),
    LONG_STREAM,
    in_turn(
        name="await",
        title="awaited one by one",
        measure=calling.awaited,
        base=calling.awaited_bare,
        base_title="a bare await",
        judge=microseconds_over_base,
        limit=Limit(8.0, "us", "over a bare await"),
    ),
    in_turn(
        name="sync",
        title="sync task in a sync flow",
        measure=calling.called,
        base=calling.called_bare,
        base_title="a bare call",
        judge=microseconds,
        limit=Limit(12.0, "us"),
        needs_loop=False,
    ),
    in_threads(
        name="threads",
        title="submit to threads, no loop",
        measure=calling.threads_from_thread,
        needs_loop=False,
    ),
    in_threads(
        name="threads-on-loop",
        title="submit to threads, on a loop",
        measure=calling.threads_from_loop,
    ),
    in_turn(
        name="cancel",
        title="cancel a flow with live runs",
        measure=living.cancel,
        base=living.cancel_bare,
        base_title="bare cancellation",
        limit=Limit(3.0, "x", "bare cancellation"),
    ),
    *(
        journalled(
            name=f"journal-{durability}",
            title=f"submit, journal ({durability})",
            measure=fanout.with_journal(durability),
        )
        for durability in ("full", "normal", "off")
    ),
    IMPORT,
    IDLE,
)
BY_NAME: Final = {case.name: case for case in CASES}


def named(names: Sequence[str]) -> list[Case]:
    """Return the named cases, or all.

    Raises:
        BenchError: One of the names is no case's.
    """
    for name in names:
        if name not in BY_NAME:
            raise BenchError(f"case {name!r}", f"is none of {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in names or BY_NAME]
