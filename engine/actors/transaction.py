"""Transactions: what tasks have done under one of them, and how all of it ends.

A transaction is *active* while its body goes on. A body that returns *stages* it: its
parent, the transaction around it, takes over the decision, and one without a parent
decides at once. To *commit* is to keep the results and call the on_commit hooks,
children first, in the order in which they were staged. To *roll back* is to forget the
results and call the on_rollback hooks in the reverse order.

Only what was staged is rolled back: a task that failed has its own clean-up to do, and
what its retry does is another transaction. Whatever is staged under a transaction that
has ended, such as a submitted task's that nobody waited for, shares its fate at once.

States of runs are not touched: a completed run stays Completed when its transaction is
rolled back later, because terminal states absorb and it did complete. What became of
its effects is told by its hooks' outcomes, by the log, and by the transaction's state.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

from engine.exceptions import EngineError

if TYPE_CHECKING:
    from engine.actors.family import Kin
    from engine.actors.run import RunActor
    from engine.hooks import Hook, TransactionHookKind
    from engine.results.store import ResultRecord, ResultStore

TRANSACTION: ContextVar[Transaction | None] = ContextVar(
    "engine_transaction", default=None
)
"""The transaction that the code being executed is in."""

MISSING: Final = object()


class TransactionState(enum.Enum):
    """Where a transaction is."""

    ACTIVE = "active"
    STAGED = "staged"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"


class CommitMode(enum.Enum):
    """When a transaction whose block ends well is committed.

    Attributes:
        LAZY: With the transaction around it; the outermost at its own end.
        EAGER: At its own end, whatever becomes of the one around it.
        OFF: Only by `Transaction.commit`; else it is rolled back at its end.
    """

    LAZY = "lazy"
    EAGER = "eager"
    OFF = "off"


ACTIVE: Final = TransactionState.ACTIVE
STAGED: Final = TransactionState.STAGED
COMMITTED: Final = TransactionState.COMMITTED
ROLLED_BACK: Final = TransactionState.ROLLED_BACK


@attrs.define(eq=False)
class TransactionError(EngineError, RuntimeError):
    """A transaction was used in a way that it does not allow."""

    problem: str

    def __str__(self) -> str:
        return self.problem


@attrs.define(eq=False)
class UnknownValueError(EngineError, ValueError):
    """A transaction was asked for a value that nobody has set."""

    name: str

    def __str__(self) -> str:
        return (
            f"no value {self.name!r} was set in this transaction or one around it:"
            " give get() a default"
        )


class Transaction:
    """What is done in one ``with transaction()`` block, or in one run of a task.

    Hooks of transactions get it as their argument.

    Attributes:
        key: What its result is found by; None keeps none.
        name: The name of the task's run; None for a block.
        commit_mode: When it is committed; a task's is that of the block around it.
        parent: The transaction around it; None for the outermost.
        state: Where it is; on_commit hooks see STAGED, on_rollback hooks ROLLED_BACK.
        problem: Why it was rolled back although its body ended well; else None.
    """

    __slots__ = (
        "__weakref__",
        "_by_hand",
        "_in_hook",
        "_lock",
        "_owner",
        "_results",
        "_staged",
        "_values",
        "commit_mode",
        "context",
        "key",
        "name",
        "parent",
        "problem",
        "record",
        "run",
        "state",
    )

    def __init__(
        self,
        parent: Transaction | None,
        *,
        owner: RunActor | None,
        in_hook: bool = False,
        run: RunActor | None = None,
        commit_mode: CommitMode | None = None,
    ) -> None:
        inherited = CommitMode.LAZY if parent is None else parent.commit_mode
        self.key: str | None = None
        self.name = None if run is None else run.name
        self.commit_mode: CommitMode = commit_mode or inherited
        self.parent = parent
        self.state = ACTIVE
        self.problem: str | None = None
        # The task's run, whose hooks it calls until it has ended; a block has none.
        self.run = run
        # Around whose code it is: the body of a run, one of its hooks, or None.
        self._owner = owner
        self._in_hook = in_hook
        # What on_commit and on_rollback hooks are called in a copy of.
        self.context: Context | None = None
        self.record: tuple[ResultStore, ResultRecord] | None = None
        # Shared with all transactions below, so that a decision is one for all.
        self._lock: Any = Lock() if parent is None else parent._lock
        self._staged: list[Transaction] = []
        self._results: dict[tuple[str, str], ResultRecord] = {}
        self._values: dict[str, Any] = {}
        self._by_hand: ByHand | None = None

    # What users ask.

    def set(self, name: str, value: Any) -> None:
        """Keep a copy of *value* for this transaction's hooks and what is inside of it.

        Args:
            name: What `get` finds it by.
            value: Anything that can be deep-copied.
        """
        self._values[name] = copy.deepcopy(value)

    def get(self, name: str, default: Any = MISSING) -> Any:
        """Return a copy of a value that was set here, or in a transaction around.

        Args:
            name: What `set` was given.
            default: What to return if there is none.

        Raises:
            UnknownValueError: There is none, and no *default*.
        """
        for transaction in self._outwards():
            if name in transaction._values:
                return copy.deepcopy(transaction._values[name])
        if default is MISSING:
            raise UnknownValueError(name)
        return default

    def is_active(self) -> bool:
        """Whether its body goes on."""
        return self.state is ACTIVE

    def is_staged(self) -> bool:
        """Whether its body has ended well and the decision is yet to come."""
        return self.state is STAGED

    def is_committed(self) -> bool:
        """Whether what was done in it stands."""
        return self.state is COMMITTED

    def is_rolled_back(self) -> bool:
        """Whether what was done in it was undone."""
        return self.state is ROLLED_BACK

    def commit(self) -> Any:
        """Commit what was done in the block so far, now.

        Returns:
            None in a ``with`` block; in an ``async with`` block what has to be awaited.

        Raises:
            TransactionError: It is a task's own, or its block has ended.
        """
        return self._finish("commit")

    def rollback(self) -> Any:
        """Roll back what was done in the block so far, now.

        Returns:
            None in a ``with`` block; in an ``async with`` block what has to be awaited.

        Raises:
            TransactionError: It is a task's own, or its block has ended.
        """
        return self._finish("rollback")

    def __repr__(self) -> str:
        whose = "a block" if self.name is None else f"run {self.name!r}"
        return f"<Transaction of {whose}: {self.state.value}>"

    # What the block and the tasks inside of it ask.

    def covers(self, run: RunActor) -> bool:
        """Whether *run* is a part of what this transaction is around.

        The context variable alone does not tell: hooks and detached runs have it too.
        """
        owner = self._owner
        if owner is not None and not self._in_hook:
            return run.descends_from(owner)
        top: Kin = run
        while top.parent is not None:
            top = top.parent
        # What a hook starts has no parent, and that of the hook in its lineage.
        hooked = None if top.lineage is None else top.lineage.parent_id
        return hooked == (None if owner is None else owner.id)

    def encloses(self, run: RunActor | None, *, in_hook: bool) -> bool:
        """Whether code of *run*, or of one of its hooks, is inside of this one."""
        if run is None or in_hook:
            return self._owner is run and self._in_hook is in_hook
        return self.covers(run)

    def enable_by_hand(self, finish: ByHand | None) -> None:
        """Let `commit` and `rollback` be called; None ends that."""
        self._by_hand = finish

    def stage(self) -> TransactionState:
        """End the body well, and find out who decides what becomes of it.

        Returns:
            STAGED if that is the transaction around this one, or was done by hand;
            COMMITTED or ROLLED_BACK if that is to be done now.
        """
        with self._lock:
            if self.state is not ACTIVE:
                return STAGED
            self.state = STAGED
            above = self.parent
            while above is not None and above.state is STAGED:
                above = above.parent
            if above is not None and above.state is ROLLED_BACK:
                self.problem = "the transaction around it was rolled back before"
                return ROLLED_BACK
            if (
                above is None
                or above.state is COMMITTED
                or self.commit_mode is CommitMode.EAGER
            ):
                return COMMITTED
            above._take(self)
            return STAGED

    def take_staged(self, decided: TransactionState) -> list[Transaction]:
        """Decide, and return what was staged below; nothing the second time."""
        with self._lock:
            if self.state in (COMMITTED, ROLLED_BACK):
                return []
            self.state = decided
            staged, self._staged = self._staged, []
            self._results = {}
            return staged

    def find(self, store: ResultStore, key: str) -> ResultRecord | None:
        """Return a result that was staged and not yet committed, here or around."""
        place = str(store), key
        for transaction in self._outwards():
            record = transaction._results.get(place)
            if record is not None:
                return record
        return None

    def hooks(self, kind: TransactionHookKind) -> tuple[Hook, ...]:
        """Return the hooks of a kind, in the order of registration."""
        if self.run is None:
            return ()
        return self.run.definition.hooks.by_kind.get(kind, ())

    def close(self, state: TransactionState) -> None:
        """End for good, and let go of everything but the values."""
        self.state = state
        # The context holds this transaction as this one does it.
        self.context = self.record = self.run = None

    def _take(self, child: Transaction) -> None:
        """Become the one who decides on *child*; with the lock held."""
        self._results.update(child._results)
        if child.record is not None:
            store, record = child.record
            self._results[str(store), record.key] = record
        self._staged.append(child)

    def _outwards(self) -> Iterator[Transaction]:
        transaction: Transaction | None = self
        while transaction is not None:
            yield transaction
            transaction = transaction.parent

    def _finish(self, end: Literal["commit", "rollback"]) -> Any:
        if self._by_hand is None:
            problem = f"{end}() is for transaction() blocks, while they go on"
            raise TransactionError(problem)
        return self._by_hand(end)


ByHand = Callable[[Literal["commit", "rollback"]], Any]
"""Ends a block's transaction in the middle of the block."""
