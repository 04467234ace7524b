"""Binding of call arguments to parameters.

The full `inspect.Signature.bind` costs as much as the rest of a run, so the common call
(positional arguments, of a fitting number) is only counted, and names are looked up
when somebody asks for them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from engine.exceptions import MissingExtraError, ParameterTypeError

POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Binder:
    """Knows the parameters of one function."""

    __slots__ = ("extra", "fn", "least", "most", "names", "signature", "validator")

    def __init__(self, fn: Callable[..., Any], *, validate: bool = False) -> None:
        self.fn = fn
        self.signature = signature_of(fn)
        parameters = self.signature.parameters.values()
        self.names = tuple(self.signature.parameters)
        # The name of the parameter that takes any keyword argument, or None.
        self.extra = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
        positional = [p for p in parameters if p.kind in POSITIONAL]
        self.least = sum(p.default is p.empty for p in positional)
        self.most: float = len(positional)
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            self.most = float("inf")
        if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
            self.most = -1  # no call without keywords can fit
        self.validator = make_validator(fn) if validate else None

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise the TypeError that calling the function would raise, if any."""
        if kwargs or not self.least <= len(args) <= self.most:
            self._bind(args, kwargs)

    def validate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Return the arguments as the annotations want them.

        Raises:
            ParameterTypeError: They cannot be made to fit.
        """
        if self.validator is None:
            return args, kwargs
        bound = self._bind(args, kwargs)
        bound.apply_defaults()
        return self.validator(*bound.args, **bound.kwargs)

    def parameters(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Return every parameter with its value, defaults included."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError:
            bound = self.signature.bind_partial()  # the run failed for just this
        bound.apply_defaults()
        return dict(bound.arguments)

    def _bind(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> inspect.BoundArguments:
        try:
            return self.signature.bind(*args, **kwargs)
        except TypeError as error:
            problem = str(error)
        # Not in the handler: a run that was refused would keep the frames of both.
        name = getattr(self.fn, "__name__", type(self.fn).__name__)
        raise TypeError(f"{name}() {problem}")


def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of *fn*; of a builtin that has none, one that takes all."""
    try:
        return inspect.signature(fn)
    except ValueError:
        return inspect.signature(lambda *args, **kwargs: None)


def make_validator(fn: Callable[..., Any]) -> Callable[..., Arguments]:
    """Make a function that coerces arguments to the annotations of *fn*.

    Raises:
        MissingExtraError: pydantic is not installed.
    """
    try:
        from pydantic import ConfigDict, ValidationError, validate_call
    except ImportError:
        raise MissingExtraError("validate_parameters=True", "validate") from None

    def collect(*args: Any, **kwargs: Any) -> Arguments:
        return args, kwargs

    # pydantic reads the annotations from the function that it wraps, so what it wraps
    # has the user's signature and only hands the coerced arguments back.
    functools.update_wrapper(collect, fn)
    config = ConfigDict(arbitrary_types_allowed=True)
    validated = validate_call(config=config)(collect)
    name = getattr(fn, "__name__", type(fn).__name__)
    names = tuple(signature_of(fn).parameters)

    def where(location: tuple[int | str, ...]) -> str:
        # A positional argument is located by its number.
        first, *rest = location
        if isinstance(first, int):
            first = names[first] if first < len(names) else f"{names[-1]}[{first}]"
        return ".".join(map(str, (first, *rest)))

    def validator(*args: Any, **kwargs: Any) -> Arguments:
        try:
            result: Arguments = validated(*args, **kwargs)
        except ValidationError as error:
            problems = "; ".join(
                f"{where(problem['loc'])}: {problem['msg']}"
                for problem in error.errors()
            )
            raise ParameterTypeError(name, problems) from error
        return result

    return validator
