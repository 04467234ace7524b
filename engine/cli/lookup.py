"""Finding the run that somebody means."""

from __future__ import annotations

from typing import Final

import attrs

from engine.exceptions import EngineError
from engine.journal.reader import Reader

SHOWN: Final = 5
"""How many runs are named where one was meant."""


@attrs.define(eq=False)
class NoSuchRunError(EngineError):
    """A journal has no run that is called so, or more than one."""

    journal: str
    called: str
    ids: list[str]

    def __str__(self) -> str:
        if not self.ids:
            return f"{self.journal} has no run {self.called!r}"
        some = ", ".join(self.ids[:SHOWN])
        more = ", …" if len(self.ids) > SHOWN else ""
        return f"{self.called!r} may be any of {some}{more}: give the whole id"


def run_id_of(reader: Reader, called: str) -> str:
    """Return the id of the one run that *called* means: an id, its beginning, a name.

    Raises:
        NoSuchRunError: There is none, or more than one.
    """
    ids = reader.ids(called, SHOWN + 1)
    if len(ids) != 1:
        raise NoSuchRunError(reader.path, called, ids)
    return ids[0]
