"""Runs as arguments of other runs: found, waited for, and replaced by their results.

Handles and states may stand anywhere in the arguments, also inside of lists, tuples,
sets, dicts, dataclasses and attrs classes. A run whose upstream did not complete does
not start, unless the argument is wrapped in `allow_failure`.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import operator
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import attrs

from engine.exceptions import UpstreamNotCompleted
from engine.handles import RunHandle
from engine.states import COMPLETED, TERMINAL, State, failure

T = TypeVar("T")

ATOMS: Final = frozenset(
    (int, str, float, bool, bytes, type(None), complex, range, bytearray)
)
"""Types that cannot hold a run: arguments of no other type are not looked into."""


class Annotation(Generic[T]):
    """A wrapper that says how an argument is to be taken."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


class unmapped(Annotation[T]):
    """Pass the same value to every run of a ``map``, also when it is iterable."""

    __slots__ = ()


class allow_failure(Annotation[T]):
    """Run although this upstream did not complete; its exception is passed instead."""

    __slots__ = ()


class quote(Annotation[T]):
    """Pass the value as it is, without looking for runs in it."""

    __slots__ = ()


class opaque(Annotation[T]):
    """Resolve the run itself, without looking for runs in its result."""

    __slots__ = ()


DEPTH: Final = 100
"""How deep arguments are looked into."""


def may_hold_runs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether any argument is of a type that has to be looked into."""
    for value in args:
        if value.__class__ not in ATOMS:  # any() would cost twice as much
            return True
    return bool(kwargs) and may_hold_runs(tuple(kwargs.values()), {})


class Walker:
    """Visits every run in a value, and rebuilds the value around what changed.

    A collection in which nothing changed is returned as the same object. What is nested
    deeper than `DEPTH` is not looked into.
    """

    def __init__(self) -> None:
        self._depth = 0
        # What became of each collection: one that stands in several places is walked
        # once, and one that holds itself is, while it is being walked, itself.
        self._walked: dict[int, Any] = {}

    def visit_run(self, item: RunHandle[Any] | State[Any]) -> Any:
        """Return what stands for a handle or state."""
        raise NotImplementedError

    def visit_annotation(self, wrapper: Annotation[Any]) -> Any:
        """Return what stands for a wrapped value."""
        raise NotImplementedError

    def walk(self, value: Any) -> Any:
        """Return *value* with every run in it visited."""
        if value.__class__ in ATOMS:
            return value
        if isinstance(value, RunHandle | State):
            return self.visit_run(value)
        if isinstance(value, Annotation):
            return self.visit_annotation(value)
        key = id(value)
        if key not in self._walked:
            self._walked[key] = value
            if self._depth < DEPTH:
                self._depth += 1
                self._walked[key] = self._walk_collection(value)
                self._depth -= 1
        return self._walked[key]

    def _walk_collection(self, value: Any) -> Any:
        if isinstance(value, list | tuple | set | frozenset):
            items = [self.walk(item) for item in value]
            return value if all(map(operator.is_, value, items)) else like(value, items)
        if isinstance(value, dict):
            pairs = [(self.walk(k), self.walk(v)) for k, v in value.items()]
            before = itertools.chain.from_iterable(value.items())
            after = itertools.chain.from_iterable(pairs)
            return (
                value if all(map(operator.is_, before, after)) else like(value, pairs)
            )
        if isinstance(value, type):
            return value
        if attrs.has(type(value)) or dataclasses.is_dataclass(value):
            return self._walk_fields(value)
        return value

    def _walk_fields(self, value: Any) -> Any:
        if attrs.has(type(value)):
            fields = attrs.fields(type(value))
            aliases = {f.name: f.alias or f.name for f in fields if f.init}
            replace: Callable[..., Any] = attrs.evolve
        else:
            aliases = {f.name: f.name for f in dataclasses.fields(value) if f.init}
            replace = dataclasses.replace
        changes = {}
        for name, alias in aliases.items():
            old = getattr(value, name, None)
            new = self.walk(old)
            if new is not old:
                changes[alias] = new
        return replace(value, **changes) if changes else value


def like(original: Any, items: list[Any]) -> Any:
    """Return a collection of the kind of *original* with other items."""
    if hasattr(original, "_make"):  # a named tuple
        return original._make(items)
    if type(original) in (list, tuple, set, frozenset, dict):
        return type(original)(items)
    if isinstance(original, list | set | dict):
        copied = copy.copy(original)  # a subclass, with whatever else it carries
        copied.clear()
        (copied.extend if isinstance(copied, list) else copied.update)(items)
        return copied
    return original  # how to make another of these only its class knows


class Search(Walker):
    """Finds the handles in a value, and whether it has anything to resolve."""

    def __init__(self) -> None:
        super().__init__()
        self.handles: list[RunHandle[Any]] = []
        self.is_plain = True

    def visit_run(self, item: RunHandle[Any] | State[Any]) -> Any:
        """Note a run."""
        self.is_plain = False
        if isinstance(item, RunHandle):
            self.handles.append(item)
        return item

    def visit_annotation(self, wrapper: Annotation[Any]) -> Any:
        """Note a wrapper, and what is in it unless it is quoted."""
        self.is_plain = False
        if not isinstance(wrapper, quote):
            self.walk(wrapper.value)
        return wrapper


class Resolve(Walker):
    """Replaces ended runs by their results, and takes the wrappers off."""

    def visit_run(self, item: RunHandle[Any] | State[Any]) -> Any:
        """Return the run's result."""
        return result_of(item)

    def visit_annotation(self, wrapper: Annotation[Any]) -> Any:
        """Return the wrapped value, taken as its wrapper says."""
        if isinstance(wrapper, quote):
            return wrapper.value
        if isinstance(wrapper, opaque):
            return result_of(wrapper.value)
        if isinstance(wrapper, allow_failure):
            return Tolerate().walk(wrapper.value)
        return self.walk(wrapper.value)


class Tolerate(Resolve):
    """Replaces ended runs by their results, or by their exceptions."""

    def visit_run(self, item: RunHandle[Any] | State[Any]) -> Any:
        """Return the run's result, or why it has none."""
        try:
            return result_of(item)
        except UpstreamNotCompleted as error:
            return error.__cause__ if error.__cause__ is not None else error


class Judge(Walker):
    """Replaces handles by their states, for what a flow returns."""

    def visit_run(self, item: RunHandle[Any] | State[Any]) -> Any:
        """Return the run's state."""
        if isinstance(item, RunHandle):
            item.observe()
            return item.state
        return item

    def visit_annotation(self, wrapper: Annotation[Any]) -> Any:
        """Return a quoted value as it is; the other wrappers mean nothing here."""
        return wrapper.value if isinstance(wrapper, quote) else wrapper


def result_of(item: Any) -> Any:
    """Return the result of a run's handle or state; other values as they are.

    Raises:
        UpstreamNotCompleted: The run did not complete.
    """
    if isinstance(item, RunHandle):
        item.observe()
        name, state = item.name, item.state
    elif isinstance(item, State):
        name, state = item.run_id or item.name, item
    else:
        return item
    if state.type is not COMPLETED:
        is_unfinished = state.type not in TERMINAL
        error = UpstreamNotCompleted(name, state.name, is_unfinished)
        error.__cause__ = None if is_unfinished else failure(state)
        raise error
    return state.data
