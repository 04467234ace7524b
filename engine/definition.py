"""What a flow and a task have in common: a function, its options and its hooks."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from pickle import PicklingError
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, ParamSpec, TypeVar

from engine.binding import Binder
from engine.checks import Checker
from engine.exceptions import ReservedArgumentError
from engine.hooks import (
    KINDS,
    TRANSACTION_KINDS,
    Hook,
    HookKind,
    Hooks,
    is_async_callable,
    signature_problem,
)
from engine.logging import logging_prints
from engine.options import Options

if TYPE_CHECKING:
    from typing import Self

    from engine.caching import Caching

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
H = TypeVar("H", bound=Callable[[Any, Any, Any], Any] | Hook)

RESERVED = ("return_state", "wait_for")


class Definition(Generic[P, R_co]):
    """A decorated function: shared by all of its runs, so it holds nothing of any."""

    kind: ClassVar[Literal["flow", "task"]]
    caching: Caching | None = None

    def __init__(self, fn: Callable[P, R_co], **options: Any) -> None:
        self._given: Mapping[str, Any] = options
        self._fn: Any = fn
        self.bound_to: Any = None
        self.fn: Any = unwrap_descriptor(fn)
        if not callable(self.fn):
            text = f"@{self.kind} decorates a function, got {type(fn).__name__}"
            raise TypeError(text)
        if isinstance(fn, Definition):
            text = f"@{self.kind} decorates a function, got {fn!r}"
            raise TypeError(f"{text}, which is already a {fn.kind}")
        self.is_async = is_async_callable(self.fn)
        if inspect.isasyncgenfunction(self.fn):
            self.fn, self.is_async = collecting(self.fn), True
        self.binder = Binder(
            self.fn, validate=options.get("validate_parameters") is True
        )
        self.options = self._check_options(options)
        self.name = self.options.name
        self.hooks = Hooks(self.kind)
        for kind in (*KINDS, *TRANSACTION_KINDS):
            if options.get(kind) is not None:
                self.hooks.replace(kind, options[kind])
        self._note_transactional()
        wrapper: Any = self
        functools.update_wrapper(wrapper, self.fn, updated=())
        self._log_prints()
        if self.is_async:
            mark_as_async(self)

    def _note_transactional(self) -> None:
        """Note whether runs are transactions, which each of them has to ask."""
        hooks = any(kind in self.hooks.by_kind for kind in TRANSACTION_KINDS)
        self.is_transactional = hooks or self.caching is not None

    def _log_prints(self) -> None:
        if self.options.log_prints:
            self.fn = logging_prints(self.fn, is_async=self.is_async)

    def _check_options(self, given: Mapping[str, Any]) -> Options:
        fn = self.fn
        function = getattr(fn, "__name__", type(fn).__name__)
        for reserved in RESERVED:
            if reserved in self.binder.names:
                raise ReservedArgumentError(function, reserved)
        check = Checker(self.kind, function)
        retries = check.count("retries", given.get("retries") or 0, 0)
        timeout = given.get("timeout_seconds")
        run_name = given.get(f"{self.kind}_run_name")
        jitter = given.get("retry_jitter_factor") or 0
        name: Any = given.get("name")
        return Options(
            name=self._default_name() if name is None else check.name(name),
            description=check.text("description", given.get("description"))
            or inspect.getdoc(fn),
            version=check.text("version", given.get("version")),
            tags=check.tags(given.get("tags") or ()),
            retries=retries,
            delays=check.delays(given.get("retry_delay_seconds") or 0, retries),
            jitter=check.factor("retry_jitter_factor", jitter),
            condition=self._check_condition(check, given.get("retry_condition_fn")),
            timeout=None
            if timeout is None
            else check.seconds("timeout_seconds", timeout, zero=False),
            run_name=check.template(
                f"{self.kind}_run_name",
                run_name,
                self.binder.names,
                extra=self.binder.extra is not None,
            ),
            log_prints=check.flag("log_prints", given.get("log_prints")),
            validate=check.flag(
                "validate_parameters", given.get("validate_parameters")
            ),
        )

    def _check_condition(self, check: Checker, given: Any) -> Any:
        condition = check.callable("retry_condition_fn", given)
        problem = None if condition is None else signature_problem(condition, 3)
        if problem is not None:
            takes = f"({self.kind}, {self.kind}_run, state)"
            text = f"retry_condition_fn takes a function {takes}; {problem}"
            raise check.bad_type(text)
        return condition

    def _default_name(self) -> str:
        name = getattr(self.fn, "__name__", None) or type(self.fn).__name__
        return "unknown-lambda" if name == "<lambda>" else str(name)

    def with_options(self, **options: Any) -> Self:
        """Return a copy with any of the decorator's options replaced.

        What is not given stays as it is; hook lists that are given replace the old
        ones, an empty one clears them. Hooks added to the copy leave the original
        alone, and the other way round.

        Raises:
            TypeError: An option does not exist, or is of a wrong type.
            ValueError: An option is out of its range.
        """
        self._refuse_unknown(options)
        made = type(self)(self._fn, **{**self._given, **options})
        # The hooks of the original may have grown by decorators since.
        hooks = self.hooks.copy()
        for kind in (*KINDS, *TRANSACTION_KINDS):
            if kind in options:
                hooks.replace(kind, options[kind] or ())
        made.hooks = hooks
        made._note_transactional()
        return made if self.bound_to is None else made._rebound(self.bound_to)

    def _rebound(self, owner: Any) -> Self:
        is_class = isinstance(self._fn, classmethod)
        return self.__get__(None, owner) if is_class else self.__get__(owner)

    @classmethod
    def _refuse_unknown(cls, options: Mapping[str, Any]) -> None:
        for option in options:
            if option not in cls._known_options:
                known = ", ".join(sorted(cls._known_options))
                text = f"@{cls.kind} has no option {option!r}; it has {known}"
                raise TypeError(text)

    _known_options: ClassVar[frozenset[str]] = frozenset()

    def __get__(self, instance: Any, owner: type | None = None) -> Self:
        """Bind a flow or task that is defined as a method."""
        binds_class = isinstance(self._fn, classmethod)
        if isinstance(self._fn, staticmethod) or not (
            binds_class or inspect.isfunction(self._fn)
        ):
            return self
        if instance is None and not binds_class:
            return self
        bound = self.__class__.__new__(self.__class__)
        bound.__dict__.update(self.__dict__)
        bound.fn = self._fn.__get__(instance, owner)
        if inspect.isasyncgenfunction(bound.fn):
            bound.fn = collecting(bound.fn)
        bound.bound_to = owner if binds_class else instance
        bound.binder = Binder(bound.fn, validate=self.options.validate)
        bound._log_prints()
        return bound

    def run_name(self, run: Any) -> str | None:
        """Return the name that the options give to *run*; None is the default.

        Raises:
            TypeError: The callable returned something else than a string.
        """
        template = self.options.run_name
        if template is None:
            return None
        parameters = run.parameters
        if isinstance(template, str):
            bound = {"self": self.bound_to, "cls": self.bound_to}
            extra = parameters.get(self.binder.extra or "", {})
            return template.format(**{**bound, **extra, **parameters})
        takes_parameters = "parameters" in inspect.signature(template).parameters
        name = template(parameters=parameters) if takes_parameters else template()
        if isinstance(name, str):
            return name
        raise TypeError(
            f"{self.kind}_run_name of {self.name!r} returned {type(name).__name__},"
            " but a string is required"
        )

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle as a function does: as the name that leads here.

        Raises:
            PicklingError: None does: it is local to a function, a copy with other
                options, or hidden behind something else of its name.
        """
        module = getattr(self, "__module__", None)
        qualname = getattr(self, "__qualname__", "")
        found: Any = sys.modules.get(module) if isinstance(module, str) else None
        for part in qualname.split("."):
            found = getattr(found, part, None)
        if found is self:
            return qualname
        bound_alike = isinstance(found, Definition) and found.options is self.options
        if self.bound_to is not None and bound_alike:
            return getattr, (self.bound_to, qualname.rpartition(".")[2])
        name = f"{module}.{qualname}" if qualname else "its function's name"
        raise PicklingError(
            f"{self!r} pickles as a name, and {name} does not lead to it: only what is"
            " decorated in a module can be pickled, and no copy with other options"
        )

    def __copy__(self) -> Self:
        return self  # like a function

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        if self.bound_to is None:
            return self
        return self._rebound(copy.deepcopy(self.bound_to, memo))

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name!r}>"

    def on_running(self, fn: H) -> H:
        """Register a hook for each attempt's start; usable as a decorator."""
        return self._add_hook("on_running", fn)

    def on_completion(self, fn: H) -> H:
        """Register a hook for runs that complete; usable as a decorator."""
        return self._add_hook("on_completion", fn)

    def on_failure(self, fn: H) -> H:
        """Register a hook for runs that fail in the end; usable as a decorator."""
        return self._add_hook("on_failure", fn)

    def on_cancellation(self, fn: H) -> H:
        """Register a hook for runs that are asked to stop; usable as a decorator."""
        return self._add_hook("on_cancellation", fn)

    def on_crashed(self, fn: H) -> H:
        """Register a hook for runs that die unreported; usable as a decorator."""
        return self._add_hook("on_crashed", fn)

    def on_retry(self, fn: H) -> H:
        """Register a hook for failures that are retried; usable as a decorator."""
        return self._add_hook("on_retry", fn)

    def _add_hook(self, kind: HookKind, fn: H) -> H:
        self.hooks.add(kind, fn)
        return fn


def collecting(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return an async function that gives the items of an async generator function."""

    @functools.wraps(fn)
    async def collect(*args: Any, **kwargs: Any) -> list[Any]:
        return [item async for item in fn(*args, **kwargs)]

    return collect


def unwrap_descriptor(fn: Any) -> Any:
    """Return the function inside of a ``classmethod`` or ``staticmethod``."""
    return fn.__func__ if isinstance(fn, classmethod | staticmethod) else fn


def mark_as_async(definition: object) -> None:
    """Have *definition* taken for a coroutine function by those who ask.

    Frameworks call what is none in a thread, and drop the coroutine that it gives.
    """
    mark = getattr(inspect, "markcoroutinefunction", None)
    if mark is not None:
        mark(definition)
    else:  # Python 3.11 has only asyncio's own mark, which inspect does not look at
        vars(definition)["_is_coroutine"] = vars(asyncio.coroutines)["_is_coroutine"]
