"""Checks of what users give: each complaint names subject, value and way out."""

from __future__ import annotations

import inspect
import math
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from engine.exceptions import InvalidOptionError, InvalidOptionType

MOST_DELAYS: Final = 50
"""How many retry delays there may be."""


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
        least = ">= 0 seconds" if zero else "> 0 seconds"
        return self._number(option, value, "a number of seconds", least, zero=zero)

    def factor(self, option: str, value: Any) -> float:
        """Check a factor that is not negative."""
        return self._number(option, value, "a number", ">= 0", zero=True)

    def _number(
        self, option: str, value: Any, kind: str, least: str, *, zero: bool
    ) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.bad_type(f"{option} must be {kind}, got {value!r}")
        if not math.isfinite(value):
            least += " and finite"
        elif value > 0 or (value == 0 and zero):
            return float(value)
        raise self.bad_value(f"{option} must be {least}, got {value!r}")

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
        tags: list[Any] = list(value)
        for tag in tags:
            if not isinstance(tag, str):
                raise self.bad_type(f"tags must be strings, got {tag!r}")
        return frozenset(tags)

    def text(self, option: str, value: Any) -> str | None:
        """Check an optional text."""
        if value is not None and not isinstance(value, str):
            raise self.bad_type(f"{option} must be a string, got {value!r}")
        return value

    def flag(self, option: str, value: Any) -> bool:
        """Check a switch; text such as ``"no"`` would be taken for True."""
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.bad_type(f"{option} must be True or False, got {value!r}")
        return value

    def name(self, value: Any) -> str:
        """Check a name: any non-empty text without control characters."""
        if not isinstance(value, str):
            raise self.bad_type(f"name must be a string, got {value!r}")
        if not value.strip() or not value.isprintable():
            raise self.bad_value(f"name must be printable and not empty, got {value!r}")
        return value

    def template(
        self, option: str, value: Any, parameters: Sequence[str], *, extra: bool
    ) -> str | Callable[..., str] | None:
        """Check that a template only names parameters of the function.

        A method's may name what it is bound to besides, whatever the function calls it.
        """
        if value is None:
            return None
        if callable(value):
            maker: Callable[..., Any] = value
            return self._name_maker(option, maker)
        if not isinstance(value, str):
            text = f"{option} must be a template string or a callable"
            raise self.bad_type(f"{text}, got {value!r}")
        for root in self._template_names(option, value, value):
            if extra and root.isidentifier():
                continue
            if root not in (*parameters, "self", "cls"):
                known = ", ".join(parameters) or "no parameters"
                text = f"{option} {value!r} uses the unknown name {root!r}"
                raise self.bad_value(f"{text}; the function has {known}")
        return value

    def _template_names(self, option: str, whole: str, part: str) -> Iterator[str]:
        try:
            fields = list(string.Formatter().parse(part))
        except ValueError as error:
            raise self.bad_value(f"{option} {whole!r} is malformed: {error}") from None
        for _, field, spec, _ in fields:
            if field is not None:
                yield field.partition(".")[0].partition("[")[0]
            if spec:  # a template of its own
                yield from self._template_names(option, whole, spec)

    def _name_maker(self, option: str, fn: Callable[..., str]) -> Callable[..., str]:
        try:
            signature = inspect.signature(fn)
            takes_parameters = "parameters" in signature.parameters
            signature.bind(**({"parameters": {}} if takes_parameters else {}))
        except ValueError:
            return fn  # a builtin without a signature
        except TypeError as error:
            form = "it is called as fn(), or fn(parameters={...})"
            raise self.bad_type(f"{option} cannot be called: {error}; {form}") from None
        return fn


def with_article(noun: str) -> str:
    """Return *noun* after its indefinite article."""
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"
