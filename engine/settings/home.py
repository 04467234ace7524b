"""Where files go unless ENGINE_HOME says otherwise, by each platform's convention."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from engine.settings.exceptions import NoHomeError

FOLDER: Final = "actor-engine"
"""The name of the distribution: ``engine`` alone would be anybody's."""


def default_home() -> Path:
    """Return this user's folder for what the engine stores; it need not exist.

    Windows: ``%LOCALAPPDATA%``, else ``~/AppData/Local``. macOS:
    ``~/Library/Application Support``. Elsewhere the XDG convention:
    ``$XDG_DATA_HOME``, else ``~/.local/share``.

    Raises:
        NoHomeError: The user has no home directory.
    """
    variable, below = _convention()
    told = os.environ.get(variable, "")
    # XDG says that a relative path is invalid and to be ignored; it would also make the
    # place depend on the working directory.
    if told and Path(told).is_absolute():
        return Path(told) / FOLDER
    try:
        return Path.home().joinpath(*below, FOLDER)
    except RuntimeError:
        raise NoHomeError from None


def _convention() -> tuple[str, tuple[str, ...]]:
    """Return the variable that names the place, and where it is without it."""
    if sys.platform == "win32":
        return "LOCALAPPDATA", ("AppData", "Local")
    if sys.platform == "darwin":
        return "", ("Library", "Application Support")
    return "XDG_DATA_HOME", (".local", "share")
