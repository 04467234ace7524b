"""The options of flows and tasks: declared once, validated once, at the decoration."""

from __future__ import annotations

import math
import random
import string
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypedDict

import attrs

from engine.exceptions import EngineError
from engine.hooks import Hook

RunName = str | Callable[..., str]
HookList = Iterable[Callable[..., Any] | Hook]

MOST_DELAYS: Final = 50


class InvalidOptionError(EngineError, ValueError):
    """An option of a flow or task is out of its range."""


class InvalidOptionType(EngineError, TypeError):
    """An option of a flow or task is of a wrong type."""


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
    retry_condition_fn: Callable[..., Any] | None
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


class Checker:
    """Checks one decoration's options, naming the function in every complaint."""

    def __init__(self, kind: str, function: str) -> None:
        self.subject = f"({kind} {function!r})"

    def bad_value(self, text: str) -> InvalidOptionError:
        """Return the error for a value out of range."""
        return InvalidOptionError(f"{text} {self.subject}")

    def bad_type(self, text: str) -> InvalidOptionType:
        """Return the error for a value of a wrong type."""
        return InvalidOptionType(f"{text} {self.subject}")

    def seconds(self, option: str, value: Any, *, zero: bool) -> float:
        """Check a duration in seconds."""
        least = ">= 0" if zero else "> 0"
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.bad_type(f"{option} must be a number of seconds, got {value!r}")
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            raise self.bad_value(f"{option} must be {least} seconds, got {value!r}")
        return float(value)

    def count(self, option: str, value: Any, least: int) -> int:
        """Check a whole number."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.bad_type(f"{option} must be a whole number, got {value!r}")
        if value < least:
            raise self.bad_value(f"{option} must be >= {least}, got {value}")
        return value

    def delays(self, value: Any, retries: int) -> tuple[float, ...]:
        """Check a delay, a list of them, or a function that gives one."""
        if callable(value):
            value = value(retries)
        if isinstance(value, int | float):
            value = (value,)
        if isinstance(value, str) or not isinstance(value, Iterable):
            text = "retry_delay_seconds must be a number, a list of them or a callable"
            raise self.bad_type(f"{text}, got {value!r}")
        delays = tuple(self.seconds("retry_delay_seconds", v, zero=True) for v in value)
        if len(delays) > MOST_DELAYS:
            text = f"retry_delay_seconds can hold {MOST_DELAYS} delays at most"
            raise self.bad_value(f"{text}, got {len(delays)}")
        return delays if any(delays) else ()

    def callable(self, option: str, value: Any) -> Callable[..., Any] | None:
        """Check an optional callable."""
        if value is None:
            return None
        if not callable(value):
            raise self.bad_type(f"{option} must be callable, got {value!r}")
        checked: Callable[..., Any] = value
        return checked

    def tags(self, value: Any) -> frozenset[str]:
        """Check tags; a lone string is more likely a mistake than five tags."""
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise self.bad_type(f"tags must be a list of strings, got {value!r}")
        tags = frozenset(value)
        for tag in tags:
            if not isinstance(tag, str):
                raise self.bad_type(f"tags must be strings, got {tag!r}")
        return tags

    def name(self, value: Any) -> str:
        """Check a name: any non-empty text without control characters."""
        if not isinstance(value, str):
            raise self.bad_type(f"name must be a string, got {value!r}")
        if not value.strip() or not value.isprintable():
            raise self.bad_value(f"name must be printable and not empty, got {value!r}")
        return value

    def template(
        self, option: str, value: Any, parameters: Sequence[str], *, extra: bool
    ) -> RunName | None:
        """Check that a template only names parameters of the function."""
        if value is None:
            return None
        if callable(value):
            return self.callable(option, value)
        if not isinstance(value, str):
            text = f"{option} must be a template string or a callable"
            raise self.bad_type(f"{text}, got {value!r}")
        try:
            fields = [field for _, field, _, _ in string.Formatter().parse(value)]
        except ValueError as error:
            raise self.bad_value(f"{option} {value!r} is malformed: {error}") from None
        for field in fields:
            if field is None:
                continue
            root = field.partition(".")[0].partition("[")[0]
            if root not in parameters and not (extra and root.isidentifier()):
                known = ", ".join(parameters) or "no parameters"
                text = f"{option} {value!r} uses the unknown name {root!r}"
                raise self.bad_value(f"{text}; the function has {known}")
        return value


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Make a ``retry_delay_seconds`` that doubles after each attempt.

    Args:
        backoff_factor: Seconds before the first retry; > 0.

    Returns:
        A function from the number of retries to their delays:
        ``backoff_factor * 2**i`` for the i-th, at most 50 of them.
    """
    if not (backoff_factor > 0 and math.isfinite(backoff_factor)):
        raise InvalidOptionError(f"backoff_factor must be > 0, got {backoff_factor!r}")

    def delays(retries: int) -> list[float]:
        return [backoff_factor * 2**i for i in range(min(retries, MOST_DELAYS))]

    return delays
