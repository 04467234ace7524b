"""The process that a supervised flow runs in.

It is told what to do by its supervisor: SIGTERM means cancel. SIGINT, which a terminal
sends to everybody in it, is the supervisor's to understand.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from typing import Any, Final

import anyio

from engine.definition import Definition
from engine.exceptions import EngineError
from engine.handles import RunHandle
from engine.host import Engine
from engine.journal.targets import UnresolvableTarget, find
from engine.states import StateType

CODES: Final = {StateType.COMPLETED: 0, StateType.CANCELLED: 143}
FAILED: Final = 1
REFUSED: Final = 2

SHOWN: Final = frozenset({StateType.FAILED, StateType.CRASHED})
"""Ends whose error is printed with its traceback, as Python does."""


async def run(definition: Definition[..., Any], job: dict[str, Any]) -> int:
    """Run a flow; return the exit code that its end means."""
    journal = None
    if job["journal"] is not None:
        from engine.journal.sqlite import SQLiteJournal

        journal = SQLiteJournal(
            job["journal"], durability=job["durability"], wait=job["wait"]
        )
    async with Engine(journal=journal, shutdown_grace=job["grace"]) as engine:
        handle = await run_until_told(engine, definition, job["parameters"])
    state, took = handle.state, handle.run.total_run_time.total_seconds()
    if state.type in SHOWN and isinstance(state.data, BaseException):
        traceback.print_exception(state.data)
    print(f"{handle.name} ({handle.id}): {state} after {took:.3f} s", file=sys.stderr)
    return CODES.get(state.type, FAILED)


async def run_until_told(
    engine: Engine, definition: Any, parameters: dict[str, Any]
) -> RunHandle[Any]:
    """Run a flow to its end; a SIGTERM cancels it."""
    # Opened before the run starts, so that no signal is missed between the two.
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        handle = engine.start(definition, **parameters)

        async def obey() -> None:
            async for _ in signals:
                handle.cancel("the supervisor was told to stop")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(obey)
            await handle.join()
            tasks.cancel_scope.cancel()
    return handle


def main(text: str) -> int:
    """Do the job that *text* describes as JSON."""
    signal.signal(signal.SIGINT, lambda *_: None)
    job = json.loads(text)
    try:
        definition = find(job["target"])
        if not isinstance(definition, Definition):
            raise UnresolvableTarget(f"{job['target']} is no flow or task")
        return anyio.run(run, definition, job, backend=job["loop"])
    except (UnresolvableTarget, EngineError) as error:
        print(f"python -m engine run: {error}", file=sys.stderr)
        return REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
