"""Transactions: several tasks whose effects stand together or are undone together.

    with transaction() as txn:              # in async flows: async with
        txn.set("folder", folder)
        write_files(folder)                 # its on_rollback hooks remove them …
        check_files(folder)                 # … if this raises

Every run of a task that has ``on_commit`` or ``on_rollback`` hooks, or is cached, is a
transaction inside of the one around it. A block that is left by an exception or a
cancellation, or whose run was asked to stop, is rolled back: the on_rollback hooks of
what has completed in it are called, the last task's first, of one task the last hook
first. A block that ends well is committed: results are kept and on_commit hooks called,
in order; that of a block inside of another one waits for the outer one's end.

An exception that is caught outside of the inner block and inside of the outer one rolls
the inner one back, and only that. An on_commit hook that fails rolls its own task back;
the others stand. Hooks are contained, have outcomes and are counted like all others.

Transactions live in the memory of their process: one that is killed neither commits nor
rolls back what it has begun. A journal changes nothing about that: it keeps the hooks
of states. The flow's on_crashed hook, which it delivers after a kill, is the place to
look at what was left.

Runs stay in the states they have ended in: what was rolled back later did complete. A
run whose rollback comes before its end, because it had no transaction around it and
could not be committed, ends in the COMPLETED state that is called ``RolledBack``.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from contextvars import Token
from typing import TYPE_CHECKING, Any, Literal

from engine.actors import messages as m
from engine.actors.ending import Ending, blocking_dispatcher
from engine.actors.stores import read_result
from engine.actors.transaction import (
    COMMITTED,
    ROLLED_BACK,
    TRANSACTION,
    CommitMode,
    Transaction,
    TransactionError,
    TransactionState,
    UnknownValueError,
)
from engine.calls import engine_and_parent
from engine.context import CURRENT, IN_HOOK, SCOPE
from engine.dispatch.caller import drive
from engine.exceptions import EngineLoopError
from engine.fingerprint import has_kind
from engine.host import Engine
from engine.placement import current_run, loop_here
from engine.states import safe_repr

if TYPE_CHECKING:
    from types import TracebackType

    from engine.actors.run import RunActor
    from engine.dispatch.base import Dispatcher
    from engine.results import ResultStore

__all__ = [
    "CommitMode",
    "Transaction",
    "TransactionBlock",
    "TransactionError",
    "TransactionState",
    "UnknownValueError",
    "get_transaction",
    "transaction",
]


def get_transaction() -> Transaction | None:
    """Return the transaction that the calling code is in; None outside of any.

    In a task it is the run's own, if the task has transaction hooks or is cached.
    """
    return TRANSACTION.get()


def transaction(
    key: str | None = None,
    commit_mode: CommitMode | Literal["lazy", "eager", "off"] | None = None,
    *,
    store: ResultStore | None = None,
    overwrite: bool = False,
) -> TransactionBlock:
    """Open a transaction for the length of a ``with`` or ``async with`` block.

    Works in sync and in async code, in flows, tasks and hooks, and around them: where
    there is no engine yet, one is open for the length of the block. A ``with`` in async
    code holds the event loop while hooks run, and async hooks run on another loop.

    Args:
        key: Remembers that the block was committed: the next transaction with the same
            key begins committed, which ``txn.is_committed()`` tells, so that the work
            can be left out. None remembers nothing.
        commit_mode: See `CommitMode`; None is that of the transaction around, else
            lazy.
        store: Where the key is remembered; None is the memory of this process,
            `engine.results.home_store` gives the folder in ``ENGINE_HOME``.
        overwrite: Whether to begin anew although the key is remembered.

    Returns:
        The block; entering it gives the `Transaction`.

    Raises:
        ValueError: *commit_mode* is none.
        TypeError: *key* is no string.
    """
    if key is not None and not has_kind(key, str):
        text = f"the key of a transaction is a string, got {safe_repr(key)}"
        raise TypeError(text)
    mode = None if commit_mode is None else CommitMode(commit_mode)
    return TransactionBlock(key, mode, store, overwrite=overwrite)


class TransactionBlock:
    """A block that is a transaction; made by `transaction`, entered once."""

    __slots__ = (
        "_ending",
        "_engine",
        "_key",
        "_mode",
        "_on",
        "_overwrite",
        "_own_engine",
        "_run",
        "_scope",
        "_store",
        "_token",
        "_transaction",
    )

    def __init__(
        self,
        key: str | None,
        mode: CommitMode | None,
        store: ResultStore | None,
        *,
        overwrite: bool,
    ) -> None:
        self._key = key
        self._mode = mode
        self._store = store
        self._overwrite = overwrite
        self._own_engine: Engine | None = None
        self._transaction: Transaction | None = None
        self._run: RunActor | None = None

    def __enter__(self) -> Transaction:
        engine, _ = engine_and_parent()
        if engine is None:
            engine = self._own_engine = Engine.for_one_call().__enter__()
        try:
            opened: Transaction = drive(self._open(engine, waiting_here(engine)))
        except BaseException:
            if self._own_engine is not None:
                self._own_engine.__exit__(*sys.exc_info())
            raise
        return opened

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            drive(self._close(error))
        finally:
            self._leave()
            if self._own_engine is not None:
                self._own_engine.__exit__(kind, error, traceback)

    async def __aenter__(self) -> Transaction:
        engine, run = engine_and_parent()
        if engine is None:
            engine = self._own_engine = await Engine.for_one_call().__aenter__()
        try:
            here = loop_here(engine, run)
            if here is None:
                raise EngineLoopError("transaction()")
            return await self._open(engine, here[0])
        except BaseException:
            if self._own_engine is not None:
                await self._own_engine.__aexit__(*sys.exc_info())
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if isinstance(error, GeneratorExit):
                # Somebody closes the coroutine: it must not wait on its loop any more.
                self._ending = Ending(self._engine, blocking_dispatcher(self._engine))
                drive(self._close(error))
            else:
                await self._close(error)
        finally:
            self._leave()
            if self._own_engine is not None:
                await self._own_engine.__aexit__(kind, error, traceback)

    async def _open(self, engine: Engine, on: Dispatcher) -> Transaction:
        """Begin the transaction, in whichever way *on* waits."""
        if self._transaction is not None:
            raise TransactionError(
                "a transaction() block is entered once: open another"
            )
        self._engine, self._on, self._ending = engine, on, Ending(engine, on)
        run, around = CURRENT.get(), TRANSACTION.get()
        in_hook = bool(IN_HOOK.get())
        if around is not None and not around.encloses(run, in_hook=in_hook):
            around = None
        if around is not None and around.state is ROLLED_BACK:
            problem = "the transaction around it was rolled back before it began"
            raise TransactionError(problem)
        opened = self._transaction = Transaction(
            around, owner=run, in_hook=in_hook, commit_mode=self._mode
        )
        # A hook's run has ended, or goes on whatever its hooks do.
        self._run = None if in_hook else run
        if self._key is not None:
            await self._look_up(opened, self._key)
        opened.enable_by_hand(self._end_by_hand)
        self._token: Token[Transaction | None] = TRANSACTION.set(opened)
        self._scope: Token[Any] | None = None
        if self._own_engine is not None:
            self._scope = SCOPE.set(self._own_engine)
        return opened

    async def _close(self, error: BaseException | None) -> None:
        """End the transaction in the way its block has ended."""
        opened, ending, run = self._transaction, self._ending, self._run
        assert opened is not None
        opened.enable_by_hand(None)
        stopped = run is not None and is_stopped(run)
        if error is not None or stopped or self._mode is CommitMode.OFF:
            await ending.roll_back(opened)
        else:
            await ending.settle(opened)
        if ending.carry is not None:
            raise ending.carry

    def _leave(self) -> None:
        """Take the block out of the context."""
        with suppress(ValueError):  # left in another context than it was entered in
            TRANSACTION.reset(self._token)
        if self._scope is not None:
            with suppress(ValueError):
                SCOPE.reset(self._scope)

    def _end_by_hand(self, end: Literal["commit", "rollback"]) -> Any:
        opened, ending = self._transaction, Ending(self._engine, self._on)
        assert opened is not None
        ends = ending.commit if end == "commit" else ending.roll_back

        async def finish() -> None:
            await ends(opened)
            if ending.carry is not None:
                raise ending.carry

        return finish() if self._on.can_interrupt else drive(finish())

    async def _look_up(self, opened: Transaction, key: str) -> None:
        """Begin committed if the key is remembered; else have it remembered."""
        from engine.results.current import memory_store
        from engine.results.store import ResultRecord

        store = memory_store() if self._store is None else self._store
        opened.key = key
        record = None if self._overwrite else opened.find(store, key)
        if record is None and not self._overwrite:
            record = await read_result(self._engine, self._on, store, key)
        if record is not None:
            opened.state = COMMITTED
            return
        run_id = "" if self._run is None else self._run.id
        opened.record = (
            store,
            ResultRecord(
                key=key,
                payload=b"null",
                serializer="json",
                task="",
                run_id=run_id,
                created_at=time.time(),
            ),
        )


def waiting_here(engine: Engine) -> Dispatcher:
    """Return what the current run waits with if it blocks, else what does."""
    run = current_run(engine)
    on = None if run is None else run.dispatcher
    if on is None or on.can_interrupt:
        return blocking_dispatcher(engine)
    return on


def is_stopped(run: RunActor) -> bool:
    """Whether a run was asked to stop, or given up, while its code goes on."""
    return run.asked is not m.Asked.NOTHING or run.is_over
