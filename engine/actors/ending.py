"""How transactions end: what is kept, and which hooks are called in which order.

The hooks belong to the runs of the tasks, most of which have settled long ago. Each is
owed by its run, served where the transaction ends, and waited for before the next; so
they are counted, and have outcomes, like the hooks of states.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from engine.actors.stores import in_thread, needs_thread
from engine.actors.transaction import COMMITTED, ROLLED_BACK, STAGED, Transaction
from engine.dispatch.caller import CallerDispatcher
from engine.dispatch.here import running_backend
from engine.logging import log
from engine.runs import Transition
from engine.states import COMPLETED, State, safe_text

if TYPE_CHECKING:
    from engine.actors.lane import Lane
    from engine.actors.run import RunActor
    from engine.dispatch.base import Dispatcher, Subscribe
    from engine.hooks import Hook, TransactionHookKind
    from engine.host import Engine
    from engine.results.store import ResultStore


class Step(Transition):
    """A transaction's end, as the hook actor sees it: a step that no run has taken."""

    __slots__ = ("transaction",)

    def __init__(self, run: RunActor, transaction: Transaction, state: str) -> None:
        sequence = run.engine.broadcast.sequence
        super().__init__(run, run.state, State(COMPLETED, state), sequence)
        self.transaction = transaction


class Ending:
    """Commits or rolls back, waiting through one dispatcher.

    Attributes:
        carry: A cancellation or interrupt that came meanwhile, to be raised afterwards.
    """

    def __init__(self, engine: Engine, on: Dispatcher) -> None:
        self._engine = engine
        self._on = on
        self.carry: BaseException | None = None

    async def settle(self, transaction: Transaction) -> None:
        """End the body of a transaction well, and do what is to be done at once."""
        fate = transaction.stage()
        if fate is COMMITTED:
            await self.commit(transaction)
        elif fate is ROLLED_BACK:
            await self.roll_back(transaction)

    async def commit(self, transaction: Transaction) -> None:
        """Keep what was done; what fails to commit is rolled back, and only that.

        A commit that has begun is finished, whoever is cancelled meanwhile.
        """
        for child in transaction.take_staged(STAGED):
            await self.commit(child)
        if transaction.state is not STAGED:
            return
        problem = await self._keep_result(transaction)
        if problem is None:
            problem = await self._call_commit_hooks(transaction)
        if problem is None:
            transaction.close(COMMITTED)
            return
        log.error("commit_failed", transaction=repr(transaction), problem=problem)
        transaction.problem = problem
        await self._forget_result(transaction)
        await self.roll_back(transaction)

    async def roll_back(self, transaction: Transaction) -> None:
        """Undo what was done: this one's hooks reversed, then the children reversed."""
        ended_well = transaction.state is STAGED or transaction.problem is not None
        staged = transaction.take_staged(ROLLED_BACK)
        if transaction.run is not None and ended_well:
            run = transaction.run
            log.warning("transaction_rolled_back", run_id=run.id, run=run.name)
            for hook in reversed(transaction.hooks("on_rollback")):
                await self._deliver(transaction, "on_rollback", hook)
        for child in reversed(staged):
            await self.roll_back(child)
        if transaction.state is ROLLED_BACK:
            transaction.close(ROLLED_BACK)

    async def _call_commit_hooks(self, transaction: Transaction) -> str | None:
        """Call hooks until one of them fails; return how it did, or None."""
        for hook in transaction.hooks("on_commit"):
            status = await self._deliver(transaction, "on_commit", hook)
            if status != "delivered":
                return f"its on_commit hook {hook.name!r} {status}"
        return None

    async def _deliver(
        self, transaction: Transaction, kind: TransactionHookKind, hook: Hook
    ) -> str:
        """Have a hook called in a copy of its run's context; return how that ended."""
        run = transaction.run
        assert run is not None
        context, seen = run.context, len(run.hook_outcomes())
        name = "Committed" if kind == "on_commit" else "RolledBack"
        run.context = transaction.context
        lane = run.engine.hooks.owe(run, Step(run, transaction, name), kind, hook)
        await self._serve(lane)
        run.context = context
        new = run.hook_outcomes()[seen:]
        return next((one.status for one in new if one.kind == kind), "undelivered")

    async def _serve(self, lane: Lane) -> None:
        """Have a lane served, and wait until it is idle."""
        if self._on.can_interrupt:
            self._hand_over(lane, self._on)
            while not lane.is_idle:
                await self._wait(lane.subscribe_idle)
            return
        while True:
            try:
                await self._on.wait_for_lane(lane)
                return
            except KeyboardInterrupt as interrupt:
                if self.carry is not None:
                    # Asked for twice: somebody means it, so others wait for the hook.
                    self._hand_over(lane, lane.run.engine.worker)
                    raise
                self.carry = interrupt

    def _hand_over(self, lane: Lane, on: Dispatcher) -> None:
        """Have a lane served by the hook actor's own servers, unless it is already."""
        engine = lane.run.engine
        if engine.hooks.claim(lane):
            with engine.lock:
                engine.hooks.enqueue(on, lane)

    async def _keep_result(self, transaction: Transaction) -> str | None:
        """Write the result where it is kept; return why that failed, or None."""
        if transaction.record is None:
            return None
        store, record = transaction.record
        try:
            await self._call(store, store.write, record)
        except Exception as error:
            return f"its result was not kept in {store}: {safe_text(error)}"
        return None

    async def _forget_result(self, transaction: Transaction) -> None:
        """Remove a result that may have been written."""
        if transaction.record is not None:
            store, record = transaction.record
            with suppress(Exception):
                await self._call(store, store.delete, record.key)

    async def _call(
        self, store: ResultStore, call: Callable[[Any], None], argument: Any
    ) -> None:
        if needs_thread(store, self._on):
            job = in_thread(self._engine, call, argument)
            await self._wait(job.subscribe)
            job.result()
        else:
            call(argument)

    async def _wait(self, subscribe: Subscribe) -> None:
        self.carry = await self._on.wait_shielded(subscribe) or self.carry


def blocking_dispatcher(engine: Engine) -> CallerDispatcher:
    """Return what waits by blocking this thread, even if a loop runs in it.

    What has to be awaited then is done on a loop in the background.
    """
    if running_backend() is None:
        return engine.caller
    site = engine.loops.site_beside_here()
    return CallerDispatcher(
        lambda _: engine.loops.at(site),
        engine.threads,
        engine.hook_threads,
        in_place=True,
    )
