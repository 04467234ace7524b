"""What can go wrong in a benchmark."""

from __future__ import annotations

import attrs

from engine.exceptions import EngineError


@attrs.define(eq=False)
class BenchError(EngineError):
    """A benchmark cannot be made, or what it measured was not what it should be."""

    subject: str
    problem: str

    def __str__(self) -> str:
        return f"{self.subject} {self.problem}"
