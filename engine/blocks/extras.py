"""Libraries that come with an extra."""

from __future__ import annotations

import importlib

from engine.exceptions import MissingExtraError


def require(library: str, feature: str, extra: str) -> None:
    """Import a library that *feature* needs.

    Raises:
        MissingExtraError: It is not installed; the error says how to.
    """
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise MissingExtraError(feature, extra) from error
