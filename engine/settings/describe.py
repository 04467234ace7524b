"""Telling what every setting is and where it came from."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import NamedTuple

from engine.settings.current import build, collect
from engine.settings.model import SPECS


class SettingRow(NamedTuple):
    """One setting as it is shown.

    Attributes:
        name: The environment variable that sets it.
        value: Its value as text, masked if it is a secret, ``None`` if it has none.
        source: ``default``, a variable, the path of a file, or `temporary_settings`.
    """

    name: str
    value: str
    source: str


def describe_settings() -> Iterator[SettingRow]:
    """Yield every setting with its value and its source, secrets masked.

    Raises:
        SettingsError: As `get_current_settings` does, before the first row.
    """
    given = collect()
    current = build(given)
    for name, spec in SPECS.items():
        value = str(attrgetter(".".join(spec.path))(current))
        # A path may hold what would move a terminal's cursor.
        shown = value if value.isprintable() else repr(value)
        source = given[name].source if name in given else "default"
        yield SettingRow(spec.variable, shown, source)
