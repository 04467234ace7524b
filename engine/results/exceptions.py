"""What can go wrong with keeping a result."""

from __future__ import annotations

import attrs

from engine.exceptions import EngineError


@attrs.define(eq=False)
class UnstorableResultError(EngineError, TypeError):
    """A task was to keep its result, which cannot be kept in the way it asks for.

    Attributes:
        task: The task's name.
        path: Where in the result the trouble is; empty is the result itself.
        problem: What is there.
        way_out: What would help, in words that follow a semicolon.
    """

    task: str
    path: str
    problem: str
    way_out: str

    def __str__(self) -> str:
        where = f"{self.path} of the result" if self.path else "the result"
        return (
            f"the result of task {self.task!r} cannot be kept: {where} is"
            f" {self.problem}; {self.way_out}"
        )


@attrs.define(eq=False)
class ResultKeyError(EngineError):
    """The key that pickled results are signed with cannot be had."""

    problem: str

    def __str__(self) -> str:
        return f"pickled results cannot be signed or checked: {self.problem}"


@attrs.define(eq=False)
class UnreadableResultError(EngineError, ValueError):
    """A kept result cannot be read; for the stores, which turn it into a miss."""

    problem: str

    def __str__(self) -> str:
        return self.problem
