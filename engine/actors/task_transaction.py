"""The attempt of a task that is cached, or has on_commit or on_rollback hooks.

It is a transaction of its own, staged when the body has returned. One around it decides
what becomes of that; without one it commits here, before the run's terminal state. A
task with a kept result does not run its body, and its transaction has nothing to undo.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from engine.actors import messages as m
from engine.actors.ending import Ending, blocking_dispatcher
from engine.actors.flights import FLIGHTS, Flight
from engine.actors.stores import read_result
from engine.actors.transaction import (
    COMMITTED,
    ROLLED_BACK,
    TRANSACTION,
    Transaction,
    TransactionError,
)
from engine.states import COMPLETED, RUNNING, State, safe_text

if TYPE_CHECKING:
    from engine.actors.run import RunActor
    from engine.caching import Caching
    from engine.dispatch.base import Dispatcher, Wake
    from engine.results.store import ResultStore

Execute = Callable[["RunActor", "Dispatcher"], Coroutine[Any, Any, m.Message]]

NOTHING: Final = m.Asked.NOTHING


async def attempt_in_transaction(
    run: RunActor,
    on: Dispatcher,
    execute: Execute,
    stop_timer: Callable[[], None] | None,
) -> m.Message:
    """Make one attempt in a transaction of its own; return its verdict.

    Args:
        run: A run of a task.
        on: Where it is driven.
        execute: Calls the body.
        stop_timer: Ends the attempt's deadline, which is the body's, not the hooks'.
    """
    transaction = begin(run)
    token = TRANSACTION.set(transaction)
    ending, kept = Ending(run.engine, on), KeptResult(run, on, transaction)
    try:
        verdict = await kept.find()
        if verdict is not None:
            transaction.close(COMMITTED)
            return verdict
        if run.state_type is not RUNNING:
            transaction.close(ROLLED_BACK)
            return m.STOPPED  # another thread stopped it while it waited for the result
        verdict = await execute(run, on)
        transaction.context = copy_context()
        if stop_timer is not None:
            stop_timer()
        await end(transaction, verdict, run, kept, ending)
    except BaseException as error:
        await undo(transaction, run, ending, error)
        raise
    finally:
        TRANSACTION.reset(token)
        kept.let_go()
    if ending.carry is not None:
        raise ending.carry
    if transaction.state is ROLLED_BACK:
        return undone(verdict, transaction)
    return verdict


def begin(run: RunActor) -> Transaction:
    """Return the transaction of a task's run, in the one that is around it.

    Raises:
        TransactionError: That was rolled back already: the body must not run.
    """
    around = TRANSACTION.get()
    if around is not None and not around.covers(run):
        around = None
    if around is not None and around.state is ROLLED_BACK:
        problem = f"run {run.name!r} began after its transaction was rolled back"
        raise TransactionError(problem)
    return Transaction(around, owner=run, run=run)


async def end(
    transaction: Transaction,
    verdict: m.Message,
    run: RunActor,
    kept: KeptResult,
    ending: Ending,
) -> None:
    """Settle the transaction of a body that has returned, or roll it back.

    Raises:
        EngineError: The result cannot be kept as the task asks.
    """
    if value_of(verdict) is NO_VALUE:
        await ending.roll_back(transaction)
    elif run.asked is not NOTHING or run.state_type is not RUNNING:
        # A body that did not heed a cancellation, or was left behind in its thread: the
        # run cannot complete any more, so what the body did is undone.
        transaction.problem = "its run was asked to stop"
        await ending.roll_back(transaction)
    else:
        kept.keep(value_of(verdict))
        await ending.settle(transaction)


async def undo(
    transaction: Transaction, run: RunActor, ending: Ending, error: BaseException
) -> None:
    """Roll back what was staged in a body that has raised."""
    if isinstance(error, GeneratorExit):
        # Somebody closes the coroutine: it must not wait on its loop any more.
        ending = Ending(run.engine, blocking_dispatcher(run.engine))
    await ending.roll_back(transaction)
    if ending.carry is not None:
        raise ending.carry


NO_VALUE: Final = object()


def value_of(verdict: m.Message) -> Any:
    """Return what a body has returned that ended well; else NO_VALUE."""
    if isinstance(verdict, m.Returned):
        return verdict.value
    if isinstance(verdict, m.Concluded) and verdict.state.type is COMPLETED:
        return verdict.state.data
    return NO_VALUE


def undone(verdict: m.Message, transaction: Transaction) -> m.Message:
    """Return the verdict on a run whose transaction was rolled back before its end.

    It completed and its caller gets the value, but the state does not hide what came of
    it.
    """
    if value_of(verdict) is NO_VALUE:
        return verdict
    text = f"Its transaction was rolled back: {transaction.problem}."
    state: State[Any] = State(COMPLETED, "RolledBack", text, value_of(verdict))
    return m.Concluded(state)


class KeptResult:
    """One run's way to a result that was kept, and to keeping its own."""

    def __init__(self, run: RunActor, on: Dispatcher, transaction: Transaction) -> None:
        self._run = run
        self._on = on
        self._transaction = transaction
        self._caching: Caching | None = run.definition.caching
        self._store: ResultStore | None = None
        self._flight: Flight | None = None

    async def find(self) -> m.Message | None:
        """Return the verdict that a kept result gives; None if there is none.

        Without one this run is the one that makes it, and others that want it wait.

        Raises:
            Exception: There is no key, for a reason of the task's own.
        """
        caching, run = self._caching, self._run
        if caching is None:
            return None
        key = self._transaction.key = caching.key_of(run)
        if key is None:
            return None
        self._store = store = caching.store()
        if caching.refresh:
            return None
        place = str(store), key
        self._flight = FLIGHTS.take_off(place, run)
        if self._flight is not None:
            return await self._look_up(caching, store, key)
        await self._wait(place)
        verdict = await self._look_up(caching, store, key)
        if verdict is None:
            await self._wait_for_place()
            self._flight = FLIGHTS.take_off(place, run)
        return verdict

    def keep(self, value: Any) -> None:
        """Have a result written when the transaction is committed.

        Raises:
            EngineError: It cannot be kept as the task asks.
        """
        key = self._transaction.key
        if self._caching is None or self._store is None or key is None:
            return
        try:
            record = self._caching.record(self._run, key, value, self._store)
        except Exception as error:
            self._transaction.problem = safe_text(error)
            raise
        self._transaction.record = self._store, record

    def let_go(self) -> None:
        """Let those go on who wait for this run's result."""
        if self._flight is not None:
            FLIGHTS.land(self._flight)

    async def _look_up(
        self, caching: Caching, store: ResultStore, key: str
    ) -> m.Message | None:
        record = self._transaction.find(store, key)
        if record is None:
            record = await read_result(self._run.engine, self._on, store, key)
        found = None if record is None else caching.found(record, store)
        if found is None:
            return None
        text = f"The result is that of run {found.run_id}."
        return m.Concluded(State(COMPLETED, "Cached", text, found.value))

    async def _wait(self, place: tuple[str, str]) -> None:
        """Wait for another run's result, giving up the place to run meanwhile."""
        run, engine = self._run, self._run.engine
        limiter = engine.limiter
        if limiter is None:
            await FLIGHTS.wait(place, run, self._on)
            return
        with engine.lock:
            limiter.release(run)
        await FLIGHTS.wait(place, run, self._on)

    async def _wait_for_place(self) -> None:
        """Wait until the run may execute, where it has given its place up."""
        engine, run = self._run.engine, self._run

        def subscribe(wake: Wake) -> bool:
            assert engine.limiter is not None
            with engine.lock:
                if run.is_over:
                    return False
                engine.limiter.start(run, wake)
            return True

        if engine.limiter is not None:
            await self._on.wait(subscribe)
