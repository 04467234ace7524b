"""Tasks: the steps of flows, run in place, elsewhere, or many at a time."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    Unpack,
    overload,
)

from engine.calls import call, loop_and_run_here, submit_here, take_wait_for
from engine.checks import Checker
from engine.definition import Definition
from engine.exceptions import MappingLengthMismatch, MappingMissingIterable
from engine.fanout import HandleList
from engine.handles import RunHandle
from engine.hooks import Hook, TransactionHookKind
from engine.options import (
    CACHING_OPTIONS,
    Options,
    TaskOptions,
    exponential_backoff,
)
from engine.states import State, safe_repr
from engine.streams import Stream
from engine.upstream import quote, result_of, unmapped

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Task", "exponential_backoff", "task"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
P2 = ParamSpec("P2")
R2 = TypeVar("R2")
TH = TypeVar("TH", bound=Callable[[Any], Any] | Hook)


class Task(Definition[P, R_co]):
    """A function whose calls are task runs.

    Made by `task`. Calling it runs it in place: a sync one in the calling thread, an
    async one in the calling task. `submit` runs it elsewhere.
    """

    kind: ClassVar[Literal["flow", "task"]] = "task"
    _known_options = frozenset(
        TaskOptions.__required_keys__ | TaskOptions.__optional_keys__
    )

    def _check_options(self, given: Mapping[str, Any]) -> Options:
        options = super()._check_options(given)
        if any(given.get(option) is not None for option in CACHING_OPTIONS):
            # Only for tasks that are cached: most programs have none, and import less.
            from engine.caching import check_caching

            check = Checker("task", options.name)
            self.caching = check_caching(check, given, self.binder.names)
        return options

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(
        self: Task[..., Coroutine[Any, Any, T]],
        *args: Any,
        return_state: Literal[True],
        **kwargs: Any,
    ) -> Coroutine[Any, Any, State[T]]: ...
    @overload
    def __call__(
        self, *args: Any, return_state: Literal[True], **kwargs: Any
    ) -> State[R_co]: ...
    @overload
    def __call__(self, *args: Any, wait_for: Iterable[Any], **kwargs: Any) -> R_co: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task in place and give its value, or raise what it raised.

        Args:
            *args: Positional arguments of the function. Handles and states among them,
                at any depth, are replaced by their results.
            **kwargs: Its keyword arguments, and two of the call's own:
                ``return_state=True`` gives the terminal state instead of the value,
                ``wait_for=[…]`` names runs that have to complete first.

        Returns:
            The value; for an async task a coroutine that gives it.

        Raises:
            Exception: What the body raised, the same object.
            UpstreamNotCompleted: A run among the arguments did not complete.
            CancelledRun: The run was cancelled.
            TimeoutError: ``timeout_seconds`` passed.
        """
        return call(self, args, kwargs)

    @overload
    def submit(
        self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> RunHandle[T]: ...
    @overload
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> RunHandle[R_co]: ...
    @overload
    def submit(
        self: Task[..., Coroutine[Any, Any, T]],
        *args: Any,
        wait_for: Iterable[Any],
        **kwargs: Any,
    ) -> RunHandle[T]: ...
    @overload
    def submit(
        self, *args: Any, wait_for: Iterable[Any], **kwargs: Any
    ) -> RunHandle[R_co]: ...
    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Start a run elsewhere and return at once.

        An async body runs on the engine's loop, a sync one in a worker thread. The run
        is a child of the current one, which does not end before it. Of many async ones
        64 begin in each turn of the loop, in the order of submission, so that what else
        the loop has to do is not held up.

        Args:
            *args: As in a call.
            **kwargs: As in a call, with ``wait_for``.

        Returns:
            A handle: ``await`` it, or use its blocking `RunHandle.result`.

        Raises:
            NoEngineError: Called outside of any engine and flow.
            DeadlockError: It would wait for a run that waits for it.
            ReturnStateError: ``return_state=True`` is for calls.
        """
        wait_for = take_wait_for(self, "submit", kwargs) if kwargs else None
        return submit_here(self, args, kwargs, wait_for)

    @overload
    def map(
        self: Task[..., Coroutine[Any, Any, T]], *args: Any, **kwargs: Any
    ) -> HandleList[T]: ...
    @overload
    def map(self, *args: Any, **kwargs: Any) -> HandleList[R_co]: ...
    def map(self, *args: Any, **kwargs: Any) -> Any:
        """Submit a run for each item of the iterables among the arguments.

        Strings, bytes, mappings and what is wrapped in `unmapped` are the same for
        every run; a list in `quote` is iterated over without looking for runs in it;
        the handle or state of a run is iterated over by its result.

        Args:
            *args: Values and iterables of one length.
            **kwargs: Likewise, with ``wait_for``.

        Returns:
            The handles, in order.

        Raises:
            MappingMissingIterable: There is nothing to iterate over.
            MappingLengthMismatch: The iterables are of unequal lengths.
            ReturnStateError: ``return_state=True`` is for calls.
        """
        wait_for = take_wait_for(self, "map", kwargs)
        given = {**{f"argument {i + 1}": a for i, a in enumerate(args)}, **kwargs}
        columns = {name: mapped(value) for name, value in given.items()}
        lengths = {n: len(c) for n, c in columns.items() if isinstance(c, list)}
        if not lengths:
            given_text = ", ".join(map(safe_repr, (*args, *kwargs.values())))
            raise MappingMissingIterable(self.name, given_text or "nothing")
        if len(set(lengths.values())) > 1:
            raise MappingLengthMismatch(self.name, lengths)
        handles: HandleList[Any] = HandleList()
        for i in range(next(iter(lengths.values()))):
            row = [c[i] if isinstance(c, list) else c.value for c in columns.values()]
            positional = tuple(row[: len(args)])
            keywords = dict(zip(kwargs, row[len(args) :], strict=True))
            handles.append(submit_here(self, positional, keywords, wait_for, "map"))
        return handles

    @overload
    def stream(
        self: Task[..., Coroutine[Any, Any, T]],
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        limit: int = 100,
        on_error: Literal["cancel", "continue"] = "cancel",
        **kwargs: Any,
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        limit: int = 100,
        on_error: Literal["cancel", "continue"] = "cancel",
        **kwargs: Any,
    ) -> Stream[R_co]: ...
    def stream(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        limit: int = 100,
        on_error: Literal["cancel", "continue"] = "cancel",
        **kwargs: Any,
    ) -> Any:
        """Run the task over *items*, at most *limit* at a time, in bounded memory.

        Args:
            items: Any iterable, or async iterable, of first arguments; also endless.
            limit: How many runs there may be that were not yet read, >= 1.
            on_error: ``"cancel"`` stops at the first run that does not complete: its
                siblings are cancelled with cause ``sibling``, and its error is raised.
                ``"continue"`` gives its handle like any other.
            **kwargs: Keyword arguments for every run, with ``wait_for``.

        Returns:
            An iterator over handles, in the order in which the runs end, for ``async
            for``, or ``for`` in sync code.

        Raises:
            ValueError: *limit* or *on_error* is out of its range.
            ReturnStateError: ``return_state=True`` is for calls.
        """
        wait_for = take_wait_for(self, "stream", kwargs)
        return Stream(
            lambda item: submit_here(self, (item,), dict(kwargs), wait_for, "stream"),
            items,
            limit=limit,
            on_error=on_error,
            here=loop_and_run_here,
        )

    def on_commit(self, fn: TH) -> TH:
        """Register a hook for what is committed; usable as a decorator.

        It is called with the run's `engine.transactions.Transaction`.
        """
        return self._add_transaction_hook("on_commit", fn)

    def on_rollback(self, fn: TH) -> TH:
        """Register a hook that undoes a run that completed; usable as a decorator.

        It is called with the run's `engine.transactions.Transaction`.
        """
        return self._add_transaction_hook("on_rollback", fn)

    def _add_transaction_hook(self, kind: TransactionHookKind, fn: TH) -> TH:
        self.hooks.add(kind, fn)
        self._note_transactional()
        return fn

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type | None = None) -> Self: ...
        @overload
        def __get__(
            self: Task[Concatenate[Any, P2], R2],
            instance: object,
            owner: type | None = None,
        ) -> Task[P2, R2]: ...
        def __get__(self, instance: Any, owner: type | None = None) -> Any: ...

        # Narrower than the definition's: each kind names its own options.
        def with_options(  # type: ignore[override]  # noqa: D102
            self, **options: Unpack[TaskOptions]
        ) -> Self: ...


def mapped(value: Any) -> list[Any] | unmapped[Any]:
    """Return the items that ``map`` takes from an argument, or that it is constant."""
    if isinstance(value, unmapped):
        return value
    if isinstance(value, quote):
        return [quote(item) for item in value.value]
    if isinstance(value, RunHandle):
        value._wait(None, "map()")
        value = result_of(value)
    elif isinstance(value, State):
        value = result_of(value)
    if isinstance(value, str | bytes | bytearray | Mapping):
        return unmapped(value)
    return list(value) if isinstance(value, Iterable) else unmapped(value)


class TaskDecorator(Protocol):
    """What ``task(**options)`` returns."""

    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]:
        """Make a task of *fn*."""
        ...


@overload
def task(fn: Callable[P, R], /, **options: Unpack[TaskOptions]) -> Task[P, R]: ...
@overload
def task(**options: Unpack[TaskOptions]) -> TaskDecorator: ...
def task(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a task of a function; with options, or without parentheses.

    Args:
        fn: The function, sync or async.
        **options: Those of `engine.flow`, with ``task_run_name`` for ``flow_run_name``,
            and without ``version`` and ``validate_parameters``. Results are used again
            with ``cache_policy`` (what makes two runs the same, see
            `engine.cache_policies`) or ``cache_key_fn`` (called with a `CacheContext`
            and the parameters, gives the key; None is not cached); for as long as
            ``cache_expiration``, a timedelta, says; ``refresh_cache=True`` makes them
            anew. They are in the memory of the process, or with
            ``persist_result=True`` in files below ``ENGINE_HOME``: as JSON, or with
            ``result_serializer="pickle"`` as signed pickles. ``on_commit`` and
            ``on_rollback`` are lists of hooks of the run's transaction, see
            `engine.transactions`.

    Raises:
        TypeError: An option does not exist or is of a wrong type; a hook cannot be
            called as one.
        ValueError: An option is out of its range.
    """
    Task._refuse_unknown(options)
    if fn is None:
        return lambda fn: Task(fn, **options)
    return Task(fn, **options)
