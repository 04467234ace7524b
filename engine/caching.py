"""How one task's results are kept and found again, made of its options."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import attrs

from engine.cache_policies import (
    DEFAULT,
    NO_CACHE,
    RUN_ID,
    CacheContext,
    CachePolicy,
    bound_to,
    identity,
    parts_of,
)
from engine.fingerprint import fingerprint
from engine.hooks import is_async_callable, signature_problem
from engine.logging import log
from engine.results.current import home_store, memory_store
from engine.results.exceptions import UnreadableResultError
from engine.results.serializers import SERIALIZERS, CopySerializer, Serializer
from engine.results.store import MemoryResultStore, ResultRecord, ResultStore
from engine.runs import view
from engine.states import safe_repr

if TYPE_CHECKING:
    from engine.actors.run import RunActor
    from engine.checks import Checker

RUN_LIFE: Final = timedelta(days=7)
"""How long results are kept that only their own flow run can find, unless the task says
something else: nobody deletes them when that run ends."""

KeyFunction = Callable[[CacheContext, dict[str, Any]], str | None]


class Found(NamedTuple):
    """A kept result that may be used."""

    value: Any
    run_id: str


@attrs.frozen(kw_only=True)
class Caching:
    """The caching options of one task, checked.

    Attributes:
        policy: Makes the keys, unless *key_fn* does.
        key_fn: Makes the whole key itself; None lets *policy* do it.
        expiration: How long a result may be used; None is for ever. Results of one
            flow run, which no other finds, have an end in any case: see `RUN_LIFE`.
        refresh: Whether every run is executed, and its result kept.
        persists: Whether results outlive the process.
        serializer: Of results that do, and of all in a store that others may read.
    """

    policy: CachePolicy
    key_fn: KeyFunction | None
    expiration: timedelta | None
    refresh: bool
    persists: bool
    serializer: Serializer

    def store(self) -> ResultStore:
        """Return where results are kept."""
        return home_store() if self.persists else memory_store()

    def key_of(self, run: RunActor) -> str | None:
        """Return what a run's result is found by; None if it is not kept.

        Raises:
            CacheKeyError: The arguments do not give a key.
            TypeError: The user's function gave something else than a string.
            Exception: What the user's function raised.
        """
        task: Any = run.definition
        context = CacheContext(
            task=task,
            task_run=view(run),  # type: ignore[arg-type]  # only tasks are cached
            parameters={**run.parameters, **bound_to(task.fn)},
            flow_run_id=None if run.lineage is None else run.lineage.flow_run_id,
        )
        if self.key_fn is not None:
            return checked_key(self.key_fn(context, run.parameters), task.name)
        key = checked_key(self.policy.compute_key(context), task.name)
        return None if key is None else fingerprint([identity(task), key])

    def record(
        self, run: RunActor, key: str, value: Any, store: ResultStore
    ) -> ResultRecord:
        """Return what is kept of a result.

        Raises:
            UnstorableResultError: It cannot be kept.
            ResultKeyError: It cannot be signed.
        """
        task, now = run.definition.name, time.time()
        serializer = self._serializer_for(store)
        expires_at = None
        if self.expiration is not None:
            expires_at = now + self.expiration.total_seconds()
        return ResultRecord(
            key=key,
            payload=serializer.dump(value, key, task),
            serializer=serializer.name,
            task=task,
            run_id=run.id,
            created_at=now,
            expires_at=expires_at,
        )

    def found(self, record: ResultRecord, store: ResultStore) -> Found | None:
        """Return the result in a record; None, and a warning, if it cannot be read."""
        serializer = self._serializer_for(store)
        try:
            if record.serializer != serializer.name:
                # The task says what is read, never the record: it may be anybody's.
                wanted = f"written with {record.serializer}, not {serializer.name}"
                raise UnreadableResultError(f"it was {wanted}")
            return Found(serializer.load(record.payload, record.key), record.run_id)
        except UnreadableResultError as error:
            log.warning(
                "result_unreadable",
                store=str(store),
                path=path_in(store, record.key),
                task=record.task,
                problem=str(error),
            )
            return None

    def _serializer_for(self, store: ResultStore) -> Serializer:
        in_memory = not self.persists and isinstance(store, MemoryResultStore)
        return CopySerializer() if in_memory else self.serializer


def checked_key(key: Any, task: str) -> str | None:
    """Return a key that came from the user's code.

    Raises:
        TypeError: It is no string.
        ValueError: It is an empty one.
    """
    if key is None:
        return None
    if not isinstance(key, str):
        got = type(key).__name__
        raise TypeError(
            f"the cache key of task {task!r} must be a string, or None for a run that"
            f" is not cached, got {got}"
        )
    if not key:
        raise ValueError(f"the cache key of task {task!r} must not be empty")
    return key


def path_in(store: ResultStore, key: str) -> str | None:
    """Return the file of a key, for stores that have files."""
    path_of: Any = getattr(store, "path_of", None)
    return None if path_of is None else str(path_of(key))


def check_caching(
    check: Checker, given: Mapping[str, Any], parameters: tuple[str, ...]
) -> Caching | None:
    """Return the caching options of a task; None if it has none.

    Args:
        check: Makes the errors.
        given: All options of the task.
        parameters: The names of its function's parameters.

    Raises:
        InvalidOptionType: An option is of a wrong type.
        InvalidOptionError: Options do not fit together, or are out of range.
    """
    persists = flag(check, given, "persist_result")
    refresh = flag(check, given, "refresh_cache")
    policy, key_fn = given.get("cache_policy"), given.get("cache_key_fn")
    check_policy(check, policy, parameters)
    check_key_function(check, key_fn)
    expiration = check_expiration(check, given.get("cache_expiration"))
    serializer = given.get("result_serializer")
    check_serializer(check, serializer, persists=persists)
    if policy is None and key_fn is None and not persists:
        refuse_alone(check, given)
        return None
    if policy == NO_CACHE and key_fn is None:
        if not persists:
            return None
        text = "persist_result=True keeps results by their key, and NO_CACHE has none"
        raise check.bad_value(text)
    policy = DEFAULT if policy is None else policy
    if expiration is None and key_fn is None and RUN_ID in parts_of(policy):
        expiration = RUN_LIFE
    return Caching(
        policy=policy,
        key_fn=key_fn,
        expiration=expiration,
        refresh=refresh,
        persists=persists,
        serializer=SERIALIZERS[serializer or "json"](),
    )


def refuse_alone(check: Checker, given: Mapping[str, Any]) -> None:
    """Refuse options that mean nothing for a task whose results are not kept."""
    for option in ("cache_expiration", "refresh_cache"):
        if given.get(option):
            need = "cache_policy, cache_key_fn or persist_result=True"
            raise check.bad_value(f"{option} needs {need}")


def check_serializer(check: Checker, value: Any, *, persists: bool) -> None:
    """Check a ``result_serializer``."""
    if value is None:
        return
    if not isinstance(value, str) or value not in SERIALIZERS:
        known = " or ".join(map(repr, SERIALIZERS))
        raise check.bad_value(
            f"result_serializer must be {known}, got {safe_repr(value)}"
        )
    if not persists:
        raise check.bad_value("result_serializer needs persist_result=True")


def flag(check: Checker, given: Mapping[str, Any], option: str) -> bool:
    """Check an option that is true or false; None is false."""
    value = given.get(option)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise check.bad_type(f"{option} must be True or False, got {safe_repr(value)}")


def check_policy(check: Checker, policy: Any, parameters: tuple[str, ...]) -> None:
    """Check a ``cache_policy``."""
    if policy is None:
        return
    if not isinstance(policy, CachePolicy):
        text = "cache_policy must be one of engine.cache_policies"
        raise check.bad_type(f"{text}, got {safe_repr(policy)}")
    for name in sorted(policy.exclusions()):
        if name not in (*parameters, "self", "cls"):
            known = ", ".join(parameters) or "no parameters"
            text = f"cache_policy leaves out {name!r}; the function has {known}"
            raise check.bad_value(text)


def check_key_function(check: Checker, key_fn: Any) -> None:
    """Check a ``cache_key_fn``."""
    if key_fn is None:
        return
    check.callable("cache_key_fn", key_fn)
    problem = signature_problem(key_fn, 2)
    if problem is None and is_async_callable(key_fn):
        problem = "it is async, and its key is needed at once"
    if problem is not None:
        text = f"cache_key_fn takes a function (context, parameters); {problem}"
        raise check.bad_type(text)


def check_expiration(check: Checker, value: Any) -> timedelta | None:
    """Check a ``cache_expiration``."""
    if value is None:
        return None
    if not isinstance(value, timedelta):
        text = "cache_expiration must be a timedelta"
        raise check.bad_type(f"{text}, got {safe_repr(value)}")
    if value <= timedelta():
        raise check.bad_value(f"cache_expiration must be positive, got {value}")
    return value
