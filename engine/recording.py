"""An engine with a journal: opens it, keeps it, and takes over what others left."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import TYPE_CHECKING

import attrs

from engine.ids import new_prefix
from engine.journal.base import Owner, journal_from
from engine.journal.clerk import describe
from engine.journal.owner import boot_id, host_name, process_start
from engine.journal.recorder import Recorder
from engine.journal.writer import Writer
from engine.logging import log
from engine.recovery import deliver

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from engine.dispatch.base import Dispatcher
    from engine.hooks import Hook
    from engine.host import Engine
    from engine.journal.exceptions import JournalError


@attrs.frozen(kw_only=True)
class JournalStatistics:
    """How an engine's journal is doing.

    Attributes:
        path: Where it is.
        written: Entries that are on disk: transitions, and outcomes of hooks.
        waiting: Entries that are not yet.
        problem: Why it cannot be written now; None while it can.
        recovered: Runs of lost processes that entering this engine moved to Crashed.
        owed: Hooks that earlier processes owed when it was entered.
    """

    path: str
    written: int
    waiting: int
    problem: str | None
    recovered: int
    owed: int


class Recording:
    """The journal of one engine.

    Args:
        engine: The engine.
        journal: What ``Engine(journal=…)`` was given.
        on_transition: The engine's own hooks.

    Raises:
        ValueError: A URL of an unknown kind.
        TypeError: Neither a URL nor a journal.
    """

    def __init__(
        self, engine: Engine, journal: Any, on_transition: Iterable[Hook]
    ) -> None:
        self._engine = engine
        self._journal = journal_from(journal)
        self._own_hooks = tuple(on_transition)
        self.recorder = Recorder(engine.broadcast, engine.hooks)
        self._recovered = self._owed = 0
        self._writer = Writer(
            self._journal,
            self.recorder,
            engine.hooks,
            make_owner=self._make_owner,
            may_restart=partial(engine.supervisor.note_death, "journal"),
            on_trouble=self._note_trouble,
        )

    async def open(self, here: Dispatcher) -> None:
        """Wait until the journal is open; take over what other processes left.

        What they owed is delivered meanwhile, beside new runs.

        Raises:
            JournalLocked: Another engine has it.
            JournalError: It cannot be opened.
        """
        self._writer.start()
        try:
            await here.wait(self._writer.subscribe_opened)
            opening = self._writer.opening()
        except BaseException:
            self.recorder.finish()
            raise
        engine = self._engine
        self._recovered, self._owed = opening.recovered, len(opening.owed)
        engine.hooks.recorder = self.recorder
        engine.broadcast.attach(self.recorder)
        if opening.recovered:
            log.warning("runs_recovered", runs=opening.recovered)
        if opening.owed:
            engine.hooks.expect()
            engine.hook_threads.submit(
                partial(deliver, engine, self.recorder, opening.owed)
            )

    async def close(self, here: Dispatcher) -> None:
        """Write what is left, for a bounded time, and let go of the journal."""
        job = self._engine.hook_threads.start(self._writer.stop)
        await here.wait_shielded(job.subscribe)

    def was_forked(self) -> None:
        """Write nothing: this process is a fork."""
        self._writer.was_forked()

    def problem(self) -> JournalError | None:
        """Return why the journal cannot be written, as a new error to raise."""
        problem = self.recorder.problem
        return None if problem is None else attrs.evolve(problem)

    def statistics(self) -> JournalStatistics:
        """Return how the journal is doing."""
        recorder = self.recorder
        return JournalStatistics(
            path=self._journal.path,
            written=recorder.written,
            waiting=recorder.waiting,
            problem=None if recorder.problem is None else recorder.problem.problem,
            recovered=self._recovered,
            owed=self._owed,
        )

    def _make_owner(self) -> Owner:
        # Ids are unique within a journal, not only very likely so.
        self._engine.prefix = new_prefix()
        pid = os.getpid()
        hooks = [describe("on_transition", hook) for hook in self._own_hooks]
        return Owner(
            prefix=self._engine.prefix,
            pid=pid,
            started=process_start(pid),
            boot=boot_id(),
            host=host_name(),
            hooks=json.dumps(hooks),
        )

    def _note_trouble(self, problem: JournalError | None) -> None:
        engine, recorder = self._engine, self.recorder
        with engine.lock:
            recorder.problem = problem
            engine.hold_intake(problem is not None)
            if problem is not None:
                engine.hooks.refuse(problem)
                recorder.let_writers_go()
