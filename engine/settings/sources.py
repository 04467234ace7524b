"""Where settings come from: a file, the environment, a test.

A file is looked for in the working directory and then in those above it, up to the
root of a repository (a folder with ``.git``) or of the file system; the first folder
that has one ends the search. It is ``engine.toml``, or the table ``[tool.engine]`` in
``pyproject.toml``; in the same folder ``engine.toml`` wins and the other is not read.

A variable that is set to nothing counts as not set. Names that begin with ``ENGINE__``
belong to the overrides of `engine.runtime` and are no settings.
"""

from __future__ import annotations

import difflib
import os
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import attrs

from engine.settings.exceptions import (
    IllTypedSettingError,
    SettingsFileError,
    UnknownSettingError,
)
from engine.settings.model import GROUPS, PREFIX, SPECS, Spec
from engine.settings.secret import MASK, SecretStr
from engine.settings.shapes import is_dict
from engine.states import safe_repr

FILE: Final = "engine.toml"
PROJECT_FILE: Final = "pyproject.toml"
RUNTIME_PREFIX: Final = "ENGINE__"
UNSETTLED: Final = 1_000_000_000
"""Nanoseconds in which a file that was written may be written again, and look the same:
the clocks of file systems are coarse."""
MAX_SHOWN: Final = 80
"""How much of a wrong value an error repeats, in characters."""


@attrs.frozen(kw_only=True)
class Given:
    """A setting's value and where it came from."""

    spec: Spec
    value: Any
    source: str


def from_environment() -> Iterator[Given]:
    """Yield what the environment variables set.

    Raises:
        UnknownSettingError: A variable begins with ``ENGINE_`` and is no setting.
        IllTypedSettingError: One has a value that its setting cannot take.
    """
    for variable in os.environ:
        if not variable.startswith(PREFIX) or variable.startswith(RUNTIME_PREFIX):
            continue
        source = f"the environment variable {variable}"
        spec = find_spec(variable.removeprefix(PREFIX).lower(), variable, source)
        raw = conceal(spec.name, os.environ[variable])
        if raw:
            yield given(spec, raw, source, Path())


def from_file() -> Iterator[Given]:
    """Yield what the nearest file sets.

    Raises:
        SettingsFileError: It is not readable, or not TOML.
        UnknownSettingError: It names a setting that does not exist.
        IllTypedSettingError: It has a value that its setting cannot take.
    """
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return  # somebody has removed the directory; a long-lived process runs on
    for folder in (here, *here.parents):
        for path in (folder / FILE, folder / PROJECT_FILE):
            table = _table_in(path)
            if table is not None:
                yield from _from_table(table, path)
                return
        if (folder / ".git").exists():
            return


def find_spec(name: str, shown: str, source: str) -> Spec:
    """Return the setting that is called *name* in one word.

    Raises:
        UnknownSettingError: There is none; the error calls it *shown*.
    """
    if name in SPECS:
        return SPECS[name]
    close = difflib.get_close_matches(name, SPECS, n=1)
    raise UnknownSettingError(
        shown, source, SPECS[close[0]].variable if close else None
    )


def conceal(name: str, raw: Any) -> Any:
    """Mask the value of a secret early, so that no frame holds it as plain text.

    Args:
        name: What is to be set, perhaps no setting at all.
        raw: What the source holds. None stays None, which takes a value away.
    """
    spec = SPECS.get(name)
    if spec is None or not spec.is_secret or raw is None:
        return raw
    with suppress(TypeError):
        return SecretStr(raw)
    return SecretStr(safe_repr(raw))  # its parser refuses it, and nobody sees it


def given(spec: Spec, raw: Any, source: str, folder: Path) -> Given:
    """Make the value of a setting.

    Args:
        spec: Which one.
        raw: What the source holds.
        source: Where that is, in words that follow "from".
        folder: What a relative path starts at.

    Raises:
        IllTypedSettingError: The setting cannot take it.
    """
    if raw is None and spec.is_optional:
        return Given(spec=spec, value=None, source=source)
    try:
        value = spec.parser(raw, folder)
    except (ValueError, TypeError):
        shown = MASK if spec.is_secret else _shorten(raw)
    else:
        return Given(spec=spec, value=value, source=source)
    raise IllTypedSettingError(spec.variable, spec.expected, shown, source)


def _shorten(raw: object) -> str:
    text = safe_repr(raw)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _table_in(path: Path) -> Mapping[str, Any] | None:
    """Return the settings in a file; None if it has none or there is no such file."""
    try:
        found = path.stat()
        if time.time_ns() - found.st_mtime_ns < UNSETTLED:
            return _parse.__wrapped__(path, ())
        return _parse(path, (found.st_ino, found.st_mtime_ns, found.st_size))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        problem = str(error) or type(error).__name__
    raise SettingsFileError(path, problem)


@lru_cache(maxsize=32)
def _parse(path: Path, _version: tuple[int, ...]) -> Mapping[str, Any] | None:
    # Parsing takes as long as fifty looks at the file's version.
    table: Any = tomllib.loads(path.read_text("utf-8"))
    if path.name == PROJECT_FILE:
        tools = table.get("tool")
        table = tools.get("engine") if is_dict(tools) else None
    if table is None:
        return None
    if not is_dict(table):
        raise ValueError("[tool.engine] is not a table")
    return _concealed(table)


def _concealed(table: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    return {
        key: _concealed(raw, f"{key}_")
        if key in GROUPS and is_dict(raw)
        else conceal(f"{group}{key}", raw)
        for key, raw in table.items()
    }


def _from_table(
    table: Mapping[str, Any], path: Path, prefix: tuple[str, ...] = ()
) -> Iterator[Given]:
    for key, raw in table.items():
        where = (*prefix, key)
        shown = ".".join(where)
        if shown in GROUPS and is_dict(raw):
            yield from _from_table(raw, path, where)
            continue
        # A key in one word, as in a variable, is not accepted here: api_url is not
        # api.url, so that a file has one way to say a thing.
        spec = find_spec("_".join(where), shown, str(path))
        if spec.path != where:
            raise UnknownSettingError(shown, str(path), ".".join(spec.path))
        yield given(spec, raw, str(path), path.parent)
