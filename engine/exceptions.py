"""Errors this library raises; every one of them is an `EngineError`.

Errors keep their facts as attrs fields and make their text in ``__str__``, so they
survive pickling and a test can match a field instead of a sentence.
"""

from __future__ import annotations

import attrs


class EngineError(Exception):
    """Base of every error raised by this library itself.

    What user code raises is never wrapped in it.
    """


@attrs.define(eq=False)
class UnfinishedRun(EngineError):
    """A result was asked for before the run had one."""

    state: str

    def __str__(self) -> str:
        return f"the run is {self.state}, its result is not available yet"


@attrs.define(eq=False)
class FailedRun(EngineError):
    """A run failed without an exception of its own, only with a message."""

    message: str

    def __str__(self) -> str:
        return self.message


@attrs.define(eq=False)
class CrashedRun(EngineError):
    """A run died without reporting; the original error is the ``__cause__``."""

    message: str

    def __str__(self) -> str:
        return self.message


@attrs.define(eq=False)
class CancelledRun(EngineError):
    """A run was asked to stop, and stopped."""

    message: str
    cause: str | None = None

    def __str__(self) -> str:
        return self.message


@attrs.define(eq=False)
class UpstreamNotCompleted(EngineError):
    """A run did not start because a run it depends on did not complete.

    The upstream's own error is the ``__cause__``.
    """

    upstream: str
    state: str
    is_unfinished: bool = False

    def __str__(self) -> str:
        way_out = "wrap it in allow_failure() to run all the same"
        if self.is_unfinished:
            way_out = "pass its handle, which is waited for"
        return (
            f"the body did not run: upstream run {self.upstream!r} is {self.state};"
            f" {way_out}"
        )


class Terminated(SystemExit):
    """The process was sent SIGTERM; raised only where an engine handles signals.

    A `SystemExit` with the exit code 143 that shells give to a terminated process.
    """

    def __init__(self, code: int = 143) -> None:
        super().__init__(code)


@attrs.define(eq=False)
class NoEngineError(EngineError, RuntimeError):
    """A call needs an engine and there is none to be found."""

    call: str

    def __str__(self) -> str:
        return (
            f"{self.call} needs a running engine: use 'async with Engine()', or call"
            " it from inside of a flow"
        )


@attrs.define(eq=False)
class EngineNotRunningError(EngineError, RuntimeError):
    """An engine was used before it was entered or after it stopped taking work."""

    condition: str

    def __str__(self) -> str:
        return (
            f"the engine {self.condition}: start runs inside of its"
            " 'async with Engine()' block"
        )


@attrs.define(eq=False)
class EngineLoopError(EngineError, RuntimeError):
    """An engine was used where its event loop does not run."""

    call: str
    problem: str = (
        "was called on another event loop than the engine's: use one engine for each"
        " loop, or start() from a plain thread"
    )

    def __str__(self) -> str:
        return f"{self.call} {self.problem}"


@attrs.define(eq=False)
class EngineForkedError(EngineError, RuntimeError):
    """An engine was used in a forked child of the process that entered it."""

    def __str__(self) -> str:
        return (
            "this engine belongs to the parent process: a forked child has neither its"
            " loop nor its threads; enter a new Engine() in the child"
        )


@attrs.define(eq=False)
class EngineFailedError(EngineError):
    """One of the engine's own actors kept dying and was given up."""

    actor: str
    restarts: int
    period: float

    def __str__(self) -> str:
        return (
            f"the engine gave up on its {self.actor}: it died more than"
            f" {self.restarts} times in {self.period:g} s"
        )


@attrs.define(eq=False)
class BlockingCallError(EngineError, RuntimeError):
    """A blocking call would have stopped the event loop that has to make it end."""

    call: str

    def __str__(self) -> str:
        return (
            f"{self.call} would block the event loop that this run needs to end:"
            " 'await' the handle instead"
        )


@attrs.define(eq=False)
class ReturnStateError(EngineError, TypeError):
    """A submission was asked for a state, which its run does not have yet."""

    call: str

    def __str__(self) -> str:
        return (
            f"{self.call} takes no return_state, because it does not wait for a run:"
            " 'await handle.join()' gives the state, handle.wait() in sync code"
        )


@attrs.define(eq=False)
class DeadlockError(EngineError, ValueError):
    """A run was told to wait for one that is waiting for it."""

    run: str
    upstream: str

    def __str__(self) -> str:
        return (
            f"{self.run} cannot wait for {self.upstream}: that run is one of its own"
            " parents and waits for it, which is a deadlock"
        )


@attrs.define(eq=False)
class ParameterTypeError(EngineError, TypeError):
    """Arguments were refused by the validation of the parameters' annotations."""

    function: str
    problems: str

    def __str__(self) -> str:
        return f"{self.function}() was called with bad arguments: {self.problems}"


@attrs.define(eq=False)
class MappingLengthMismatch(EngineError, ValueError):
    """``map`` was given iterables of unequal lengths."""

    function: str
    lengths: dict[str, int]

    def __str__(self) -> str:
        found = ", ".join(f"{name}: {size}" for name, size in self.lengths.items())
        return (
            f"{self.function}.map() needs iterables of one length, got {found};"
            " wrap a value for every call in unmapped()"
        )


@attrs.define(eq=False)
class MappingMissingIterable(EngineError, ValueError):
    """``map`` was given nothing to iterate over."""

    function: str
    given: str

    def __str__(self) -> str:
        return (
            f"{self.function}.map() needs at least one iterable argument, got"
            f" {self.given}; use submit() for a single run"
        )


@attrs.define(eq=False)
class MissingContextError(EngineError, RuntimeError):
    """Something that belongs to a run was asked for outside of any run."""

    call: str

    def __str__(self) -> str:
        return f"{self.call} works inside of a flow, a task or their hooks only"


@attrs.define(eq=False)
class MissingExtraError(EngineError, ImportError):
    """An optional dependency is needed and not installed."""

    feature: str
    extra: str

    def __str__(self) -> str:
        return f"{self.feature} needs: pip install 'actor-engine[{self.extra}]'"


@attrs.define(eq=False)
class HookDefinitionError(EngineError, TypeError):
    """Something that cannot be a hook was given as one."""

    hook: str
    kind: str
    problem: str
    form: str

    def __str__(self) -> str:
        return f"{self.kind} cannot take {self.hook}: {self.problem}\n\n{self.form}"


class InvalidOptionError(EngineError, ValueError):
    """An option, or an argument of a call, is out of its range."""


class InvalidOptionType(EngineError, TypeError):
    """An option, or an argument of a call, is of a wrong type."""


@attrs.define(eq=False)
class ReservedArgumentError(EngineError, TypeError):
    """A flow's or task's function has a parameter whose name the call needs itself."""

    function: str
    parameter: str

    def __str__(self) -> str:
        return (
            f"{self.function}() has a parameter {self.parameter!r}, which is an option"
            " of the call itself: rename it"
        )


@attrs.define(eq=False)
class HookTimeout(EngineError, TimeoutError):
    """A hook did not end within its time."""

    hook: str
    timeout: float

    def __str__(self) -> str:
        return f"hook {self.hook} did not end within {self.timeout:g} s"


@attrs.define(eq=False)
class SubscriberOverflow(EngineError):
    """A subscriber with ``overflow="fail"`` read too slowly and was cut off."""

    buffer: int

    def __str__(self) -> str:
        return (
            f"the subscriber fell more than {self.buffer} transitions behind; use a"
            " larger buffer, or overflow='drop_oldest' or 'block'"
        )
