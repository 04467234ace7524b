"""A line on the terminal that says what is being measured."""

from __future__ import annotations

import sys
from typing import Final

CLEAR: Final = "\r\x1b[K"


class ProgressLine:
    """Rewrites one line of stderr; silent where that is no terminal."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        """Show *text* in the place of what was shown."""
        if self._is_shown:
            print(f"{CLEAR}{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave an empty line to what follows."""
        self("")
