"""The settings that are in force here and now."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from engine.settings.model import GROUPS, PREFIX, Settings
from engine.settings.sources import (
    Given,
    conceal,
    find_spec,
    from_environment,
    from_file,
    given,
)

if TYPE_CHECKING:
    from engine.settings.names import Setting

TEMPORARY: Final = "temporary_settings()"

_temporary: ContextVar[Mapping[str, Given]] = ContextVar(
    "engine_settings", default=MappingProxyType({})
)


def get_current_settings() -> Settings:
    """Return the settings that are in force where this is called.

    Each value comes from the strongest source that has it: `temporary_settings`, else
    an ``ENGINE_…`` environment variable, else ``engine.toml`` or ``pyproject.toml``
    (see `engine.settings.sources`), else the default. The sources are looked at anew
    each time, about 50 microseconds, so that a change is seen; nothing is created.

    Returns:
        A frozen value, for example ``get_current_settings().api.url``.

    Raises:
        UnknownSettingError: A source names a setting that does not exist.
        IllTypedSettingError: A source has a value that its setting cannot take.
        SettingsFileError: The file cannot be read.
        NoHomeError: There is no ``ENGINE_HOME`` and the user has no home directory.
    """
    return build(collect())


@contextmanager
def temporary_settings(
    settings: Mapping[Setting[Any] | str, Any] | None = None, /, **named: Any
) -> Generator[Settings, None, None]:
    """Set settings for the length of a ``with`` block, above every other source.

    In force in the current context only: in this task or thread and in those that it
    starts with a copy of its context. Concurrent blocks do not see each other; nested
    ones add up, the inner one wins.

    Args:
        settings: Values by setting, as in ``{ENGINE_API_URL: "https://example.com"}``;
            the variable's name stands for the setting too.
        **named: Values by name, as in ``api_url="https://example.com"``. None takes
            away the value of a setting that may be None.

    Yields:
        The settings inside of the block.

    Raises:
        UnknownSettingError: There is no such setting.
        IllTypedSettingError: A setting cannot take its value.
    """
    named |= {_name_of(key): value for key, value in (settings or {}).items()}
    named = {name: conceal(name, raw) for name, raw in named.items()}
    del settings  # the last of the plain text that a traceback would show
    ours = {name: _temporarily(name, raw) for name, raw in named.items()}
    token = _temporary.set({**_temporary.get(), **ours})
    try:
        yield get_current_settings()
    finally:
        _temporary.reset(token)


def collect() -> dict[str, Given]:
    """Return by name what the sources give, each from the strongest one that has it."""
    found = {one.spec.name: one for one in from_file()}
    found |= {one.spec.name: one for one in from_environment()}
    return {**found, **_temporary.get()}


def build(found: Mapping[str, Given]) -> Settings:
    """Make the settings of what the sources give, and of the defaults."""
    top: dict[str, Any] = {}
    grouped: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for one in found.values():
        *group, name = one.spec.path
        values = grouped[group[0]] if group else top
        values[name] = one.value
    return Settings(**top, **{name: GROUPS[name](**grouped[name]) for name in GROUPS})


def _name_of(key: Setting[Any] | str) -> str:
    variable = key if isinstance(key, str) else key.name
    return variable.removeprefix(PREFIX).lower()


def _temporarily(name: str, raw: Any) -> Given:
    spec = find_spec(name, PREFIX + name.upper(), TEMPORARY)
    return given(spec, raw, TEMPORARY, Path())
