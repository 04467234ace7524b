"""What can be wrong with the settings, always with the place it came from."""

from __future__ import annotations

from pathlib import Path

import attrs

from engine.exceptions import EngineError


@attrs.define(eq=False)
class SettingsError(EngineError, ValueError):
    """Base of every error about settings."""


@attrs.define(eq=False)
class UnknownSettingError(SettingsError):
    """A source names a setting that does not exist.

    Its value is not kept: a mistyped name may well be that of a secret.
    """

    name: str
    source: str
    similar: str | None = None

    def __str__(self) -> str:
        hint = f", did you mean {self.similar}?" if self.similar else ""
        return f"there is no setting {self.name} (from {self.source}){hint}"


@attrs.define(eq=False)
class IllTypedSettingError(SettingsError):
    """A setting has a value that it cannot take.

    Attributes:
        name: The setting, as its environment variable is called.
        expected: What its value has to be.
        value: The ``repr`` of what it was; masked where the setting is a secret.
        source: Where the value came from.
    """

    name: str
    expected: str
    value: str
    source: str

    def __str__(self) -> str:
        return (
            f"{self.name} must be {self.expected}, got {self.value}"
            f" (from {self.source})"
        )


@attrs.define(eq=False)
class SettingsFileError(SettingsError):
    """A file with settings cannot be read."""

    path: Path
    problem: str

    def __str__(self) -> str:
        return f"the settings in {self.path} cannot be read: {self.problem}"


@attrs.define(eq=False)
class NoHomeError(SettingsError):
    """The platform does not say where this user's files belong."""

    def __str__(self) -> str:
        return "no home directory is known for this user: set ENGINE_HOME to a folder"
