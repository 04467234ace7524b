"""What makes two runs of a task the same, so that one may use the other's result.

A policy names what the key is made of: `INPUTS` the arguments, `TASK_SOURCE` the code,
`RUN_ID` the flow run. They add up, as in ``INPUTS + TASK_SOURCE``; `DEFAULT` is all
three. Whatever the policy, two tasks never share a key; a ``cache_key_fn``, which gives
the whole key itself, may have them share one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from functools import lru_cache
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

import attrs

from engine.exceptions import EngineError
from engine.fingerprint import NoFingerprintError, fingerprint, has_kind

if TYPE_CHECKING:
    from engine.runs import TaskRun
    from engine.tasks import Task

__all__ = [
    "DEFAULT",
    "INPUTS",
    "NO_CACHE",
    "RUN_ID",
    "TASK_SOURCE",
    "CacheContext",
    "CacheKeyError",
    "CachePolicy",
    "task_input_hash",
]


@attrs.define(eq=False)
class CacheKeyError(EngineError, TypeError):
    """The key of a task's result cannot be made of its arguments.

    Attributes:
        task: The task's name.
        parameter: The parameter that stands in the way.
        problem: What is wrong with its value.
    """

    task: str
    parameter: str
    problem: str

    def __str__(self) -> str:
        return (
            f"task {self.task!r} cannot be cached by its inputs: parameter"
            f" {self.parameter!r} holds {self.problem}, which has no lasting form;"
            f" leave it out with cache_policy=INPUTS - {self.parameter!r}, or make the"
            " key yourself with cache_key_fn"
        )


@attrs.frozen(kw_only=True)
class CacheContext:
    """What a key can be made of.

    Attributes:
        task: The task.
        task_run: Its run.
        parameters: The run's arguments by parameter name, defaults included; also what
            a method, a partial or a callable object is bound to.
        flow_run_id: The nearest flow run around it; None outside of flows.
    """

    task: Task[..., Any]
    task_run: TaskRun
    parameters: dict[str, Any]
    flow_run_id: str | None


class CachePolicy:
    """Makes the keys of a task's results: one of the constants, or a class of yours."""

    def compute_key(self, context: CacheContext) -> str | None:
        """Return what tells this run from others of the task; None is not cached.

        Raises:
            CacheKeyError: It cannot be made of these arguments.
        """
        raise NotImplementedError

    def exclusions(self) -> frozenset[str]:
        """Return the names of the parameters that are left out of the key."""
        return frozenset()

    def __add__(self, other: CachePolicy) -> CachePolicy:
        if not has_kind(other, CachePolicy):
            return NotImplemented
        return Together((*parts_of(self), *parts_of(other)))

    def __sub__(self, parameters: str | Iterable[str]) -> CachePolicy:
        """Leave parameters out of the key, as in ``INPUTS - "session"``.

        Raises:
            TypeError: The policy does not look at the arguments.
        """
        names = (parameters,) if isinstance(parameters, str) else tuple(parameters)
        parts = parts_of(self)
        if not any(isinstance(part, Inputs) for part in parts):
            raise TypeError(
                f"{self!r} has no parameters that {names!r} could be out of"
            )
        left = tuple(
            Inputs(part.excluded | frozenset(names))
            if isinstance(part, Inputs)
            else part
            for part in parts
        )
        return left[0] if len(left) == 1 else Together(left)


@attrs.frozen(repr=False)
class Inputs(CachePolicy):
    """The arguments, but for some."""

    excluded: frozenset[str] = frozenset()

    def compute_key(self, context: CacheContext) -> str:
        """Return a fingerprint of the arguments."""
        marks: dict[str, str] = {}
        for name, value in context.parameters.items():
            if name in self.excluded:
                continue
            try:
                marks[name] = fingerprint(value)
            except NoFingerprintError as error:
                where = f" (at {name}{error.path})" if error.path else ""
                problem = f"{error.problem}{where}"
            else:
                continue
            raise CacheKeyError(context.task.name, name, problem)
        return fingerprint(marks)

    def exclusions(self) -> frozenset[str]:
        """Return the names of the parameters that are left out of the key."""
        return self.excluded

    def __repr__(self) -> str:
        return "".join(["INPUTS", *(f" - {name!r}" for name in sorted(self.excluded))])


@attrs.frozen(repr=False)
class TaskSource(CachePolicy):
    """The task's own code; not what it calls."""

    def compute_key(self, context: CacheContext) -> str:
        """Return a fingerprint of the code."""
        return code_mark(code_of(context.task.fn))

    def __repr__(self) -> str:
        return "TASK_SOURCE"


@attrs.frozen(repr=False)
class RunId(CachePolicy):
    """The flow run, or the task run itself outside of flows."""

    def compute_key(self, context: CacheContext) -> str:
        """Return the run's identity."""
        return context.flow_run_id or context.task_run.id

    def __repr__(self) -> str:
        return "RUN_ID"


@attrs.frozen(repr=False)
class NoCache(CachePolicy):
    """Nothing: no run is like another."""

    def compute_key(self, context: CacheContext) -> None:
        """Return no key."""
        return

    def __repr__(self) -> str:
        return "NO_CACHE"


@attrs.frozen(repr=False)
class Together(CachePolicy):
    """Several policies: all of what they look at has to be the same."""

    parts: tuple[CachePolicy, ...]

    def compute_key(self, context: CacheContext) -> str | None:
        """Return a fingerprint of the parts' keys; parts without one add nothing."""
        keys = [part.compute_key(context) for part in self.parts]
        given = [key for key in keys if key is not None]
        return fingerprint(given) if given else None

    def exclusions(self) -> frozenset[str]:
        """Return the names of the parameters that are left out of the key."""
        return INPUTS.excluded.union(*(part.exclusions() for part in self.parts))

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.parts))


def parts_of(policy: CachePolicy) -> tuple[CachePolicy, ...]:
    """Return the policies that one is the sum of."""
    return policy.parts if isinstance(policy, Together) else (policy,)


INPUTS: Final = Inputs()
"""Same arguments, same result. What the function takes from elsewhere (globals, the
variables around it) is not looked at."""

TASK_SOURCE: Final = TaskSource()
"""Same code, same result: a change of the function's text makes a new key."""

RUN_ID: Final = RunId()
"""Same flow run, same result: no other finds it. Without a ``cache_expiration`` it is
dropped after a week."""

NO_CACHE: Final = NoCache()
"""Every run is executed."""

DEFAULT: Final[CachePolicy] = INPUTS + TASK_SOURCE + RUN_ID
"""What ``persist_result=True`` alone takes."""


def task_input_hash(context: CacheContext, parameters: dict[str, Any]) -> str:
    """Make a key of the code and the arguments; for ``cache_key_fn``.

    Raises:
        CacheKeyError: It cannot be made of these arguments.
    """
    named = attrs.evolve(context, parameters=parameters)
    key = (INPUTS + TASK_SOURCE).compute_key(named)
    return fingerprint([identity(context.task), key])


def identity(task: Task[..., Any]) -> list[str]:
    """Return what tells a task from all others, in every process."""
    fn = innermost(task.fn)
    named = fn if hasattr(fn, "__qualname__") else fn.__class__
    return [named.__module__, named.__qualname__, task.name]


def innermost(fn: Any) -> Any:
    """Return the function inside of wrappers and partials."""
    while True:
        fn = inspect.unwrap(fn)
        if not isinstance(fn, functools.partial):
            return fn
        fn = fn.func


def bound_to(fn: Any) -> dict[str, Any]:
    """Return by name what a callable brings along beside its code.

    Two tasks may be made of one function, or of two objects of one class.
    """
    found: dict[str, Any] = {}
    fn = inspect.unwrap(fn)
    while isinstance(fn, functools.partial):
        found[f"partial {len(found)}"] = fn.args, fn.keywords
        fn = inspect.unwrap(fn.func)
    if not inspect.isroutine(fn):
        found["self"] = fn
    elif inspect.ismethod(fn):
        found["self"] = fn.__self__
    return found


def code_of(fn: Any) -> CodeType | None:
    """Return the code of a callable; None if it is not written in Python."""
    fn = innermost(fn)
    if not inspect.isroutine(fn):
        fn = type(fn).__call__
    code = getattr(fn, "__code__", None)
    return code if isinstance(code, CodeType) else None


@lru_cache(maxsize=1024)
def code_mark(code: CodeType | None) -> str:
    """Return a fingerprint of a function's text, or of its bytecode where it has none.

    Kept, because finding the text takes longer than many a task.
    """
    if code is None:
        return ""
    try:
        text = inspect.getsource(code)
    except (OSError, TypeError, SyntaxError):
        parts = [
            code_mark(constant) if isinstance(constant, CodeType) else constant
            for constant in code.co_consts
        ]
        return fingerprint([code.co_code, parts, code.co_names])
    return fingerprint(inspect.cleandoc(text))
