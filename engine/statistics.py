"""How an engine is doing, as one frozen value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from engine.actors.broadcast import BufferStatistics
    from engine.actors.hook import HookStatistics
    from engine.recording import JournalStatistics


@attrs.frozen(kw_only=True)
class EngineStatistics:
    """How an engine is doing.

    Attributes:
        live_runs: Runs that have not reached their terminal state.
        ended_runs: Runs that have.
        transitions: Transitions published.
        hooks: Hooks owed, and what became of them.
        buffers: How full each subscriber's buffer is.
        threads: Threads that execute sync bodies and hooks.
        abandoned_threads: Threads among them, or the caller's, whose body or hook went
            on after its run was cancelled or timed out.
        waiting_runs: Runs that ``max_concurrency`` keeps from starting.
        journal: How the journal is doing; None without one.
    """

    live_runs: int
    ended_runs: int
    transitions: int
    hooks: HookStatistics
    buffers: tuple[BufferStatistics, ...]
    threads: int
    abandoned_threads: int
    waiting_runs: int
    journal: JournalStatistics | None
