"""Flows: the functions that make up an application's work, and their decorator."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
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

from engine.calls import call
from engine.definition import Definition
from engine.options import FlowOptions
from engine.states import State

if TYPE_CHECKING:
    from typing import Self

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
P2 = ParamSpec("P2")
R2 = TypeVar("R2")


class Flow(Definition[P, R_co]):
    """A function whose calls are flow runs.

    Made by `flow`. Calling it runs it: a sync one in the calling thread, an async one
    in the calling task. Use ``engine.start(flow, …)`` to run it elsewhere.
    """

    kind: ClassVar[Literal["flow", "task"]] = "flow"
    _known_options = frozenset(
        FlowOptions.__required_keys__ | FlowOptions.__optional_keys__
    )

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(
        self: Flow[..., Coroutine[Any, Any, T]],
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
        """Run the flow and give its value, or raise what it raised.

        Args:
            *args: Positional arguments of the function.
            **kwargs: Its keyword arguments, and two of the call's own:
                ``return_state=True`` gives the terminal state instead of the value,
                ``wait_for=[…]`` names runs that have to complete first.

        Returns:
            The value; for an async flow a coroutine that gives it. A flow that returns
            states or handles is judged by them.

        Raises:
            Exception: What the body raised, the same object.
            CancelledRun: The run was cancelled.
            TimeoutError: ``timeout_seconds`` passed.
        """
        return call(self, args, kwargs)

    def _default_name(self) -> str:
        return super()._default_name().replace("_", "-")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Say where to go to who looks for a task's methods on a flow."""
            if name in ("submit", "map", "stream"):
                raise AttributeError(
                    f"flow {self.name!r} has no {name}(): flows are called, or started"
                    " with engine.start(flow, ...)"
                )
            raise AttributeError(f"flow has no attribute {name!r}")

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type | None = None) -> Self: ...
        @overload
        def __get__(
            self: Flow[Concatenate[Any, P2], R2],
            instance: object,
            owner: type | None = None,
        ) -> Flow[P2, R2]: ...
        def __get__(self, instance: Any, owner: type | None = None) -> Any: ...

        # Narrower than the definition's: each kind names its own options.
        def with_options(  # type: ignore[override]  # noqa: D102
            self, **options: Unpack[FlowOptions]
        ) -> Self: ...


class FlowDecorator(Protocol):
    """What ``flow(**options)`` returns."""

    def __call__(self, fn: Callable[P, R], /) -> Flow[P, R]:
        """Make a flow of *fn*."""
        ...


@overload
def flow(fn: Callable[P, R], /, **options: Unpack[FlowOptions]) -> Flow[P, R]: ...
@overload
def flow(**options: Unpack[FlowOptions]) -> FlowDecorator: ...
def flow(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a flow of a function; with options, or without parentheses.

    Args:
        fn: The function, sync or async.
        **options: ``name``, ``description``, ``version``, ``tags``; ``retries`` (how
            many, default 0), ``retry_delay_seconds`` (a number, one for each retry, or
            a callable given their number), ``retry_jitter_factor`` (a delay grows by up
            to this factor), ``retry_condition_fn`` (called with the flow, the run and
            the Failed state; false stops retrying); ``timeout_seconds`` (for each
            attempt; None is no limit); ``flow_run_name`` (a template over the
            parameters, or a callable); ``validate_parameters`` (check and coerce the
            arguments with pydantic; default False); ``log_prints``; and lists of hooks
            ``on_running``, ``on_completion``, ``on_failure``, ``on_cancellation``,
            ``on_crashed``, ``on_retry``.

    A sync body cannot be interrupted: when its deadline passes or it is cancelled, the
    run ends all the same, without further retries, and what the body returns later is
    dropped.

    Raises:
        TypeError: An option does not exist or is of a wrong type; a hook cannot be
            called as one.
        ValueError: An option is out of its range.
    """
    Flow._refuse_unknown(options)
    if fn is None:
        return lambda fn: Flow(fn, **options)
    return Flow(fn, **options)
