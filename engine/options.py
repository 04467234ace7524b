"""The options of flows and tasks: declared once, validated once, at the decoration."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

import attrs

from engine.checks import MOST_DELAYS, Checker
from engine.hooks import Hook

if TYPE_CHECKING:
    from datetime import timedelta

    from engine.cache_policies import CacheContext, CachePolicy

RunName = str | Callable[..., str]
HookList = Iterable[Callable[[Any, Any, Any], Any] | Hook]
TransactionHookList = Iterable[Callable[[Any], Any] | Hook]


CACHING_OPTIONS: Final = (
    "persist_result",
    "result_serializer",
    "cache_policy",
    "cache_key_fn",
    "cache_expiration",
    "refresh_cache",
)
"""The options of a task that say how its results are kept."""


class HookOptions(TypedDict, total=False):
    """Lists of hooks, by the transition they follow."""

    on_running: HookList
    on_completion: HookList
    on_failure: HookList
    on_cancellation: HookList
    on_crashed: HookList
    on_retry: HookList


class CommonOptions(HookOptions, total=False):
    """What flows and tasks take alike."""

    name: str | None
    description: str | None
    tags: Iterable[str] | None
    retries: int
    retry_delay_seconds: float | Sequence[float] | Callable[[int], Sequence[float]]
    retry_jitter_factor: float | None
    retry_condition_fn: Callable[[Any, Any, Any], Any] | None
    timeout_seconds: float | None
    log_prints: bool


class FlowOptions(CommonOptions, total=False):
    """The options of ``@flow``."""

    version: str | None
    flow_run_name: RunName | None
    validate_parameters: bool


class TaskOptions(CommonOptions, total=False):
    """The options of ``@task``."""

    task_run_name: RunName | None
    persist_result: bool | None
    result_serializer: Literal["json", "pickle"] | None
    cache_policy: CachePolicy | None
    cache_key_fn: Callable[[CacheContext, dict[str, Any]], str | None] | None
    cache_expiration: timedelta | None
    refresh_cache: bool | None
    on_commit: TransactionHookList
    on_rollback: TransactionHookList


@attrs.frozen(kw_only=True)
class Options:
    """The validated options of one flow or task.

    Attributes:
        name: What it is called; never empty.
        description: A sentence for people, or None.
        version: The flow's version, or None.
        tags: Tags of every run.
        retries: How many further attempts a failure gets.
        delays: Seconds before each retry; the last one repeats; empty is none.
        jitter: How much a delay may grow at random, as a factor; 0 is not at all.
        condition: Asked before each retry whether to retry; None is always.
        timeout: Seconds one attempt may take; None is no limit.
        run_name: Template or callable for the names of runs; None is the default.
        log_prints: Whether ``print`` in the body becomes log lines.
        validate: Whether pydantic checks and coerces the arguments.
    """

    name: str
    description: str | None = None
    version: str | None = None
    tags: frozenset[str] = frozenset()
    retries: int = 0
    delays: tuple[float, ...] = ()
    jitter: float = 0.0
    condition: Callable[..., Any] | None = None
    timeout: float | None = None
    run_name: RunName | None = None
    log_prints: bool = False
    validate: bool = False

    def retry_delay(self, attempt: int) -> float:
        """Return the seconds to wait after the failed *attempt*, counted from 1."""
        if not self.delays:
            return 0.0
        delay = self.delays[min(attempt, len(self.delays)) - 1]
        return delay * (1 + random.random() * self.jitter)


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Make a ``retry_delay_seconds`` that doubles after each attempt.

    Args:
        backoff_factor: Seconds before the first retry; > 0.

    Returns:
        A function from the number of retries to their delays:
        ``backoff_factor * 2**i`` for the i-th, at most 50 of them.
    """
    factor = Checker("function", "exponential_backoff").seconds(
        "backoff_factor", backoff_factor, zero=False
    )

    def delays(retries: int) -> list[float]:
        return [factor * 2**i for i in range(min(retries, MOST_DELAYS))]

    return delays
