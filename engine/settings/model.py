"""Which settings there are: their names, types, defaults and meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from engine.settings import parse
from engine.settings.home import default_home
from engine.settings.secret import SecretStr

PREFIX: Final = "ENGINE_"

Parser = Callable[[object, Path], Any]


def takes(parser: Parser, expected: str, *, secret: bool = False) -> dict[str, Any]:
    """Return the metadata of a setting's field.

    Args:
        parser: Makes the value, or raises ValueError.
        expected: What the value has to be, in words that follow "must be".
        secret: Whether it is masked wherever it would be shown.
    """
    return {"parser": parser, "expected": expected, "secret": secret}


@attrs.frozen(kw_only=True)
class ApiSettings:
    """How other programs reach the engine's pages.

    Attributes:
        url: What links in notifications begin with; None if there is no server.
    """

    url: str | None = attrs.field(
        default=None, metadata=takes(parse.parse_text, "one line of text")
    )


@attrs.frozen(kw_only=True)
class Settings:
    """All settings, as they were when they were asked for.

    Attributes:
        api: See `ApiSettings`.
        home: The folder for everything that is ever stored. It is made when the first
            file is put there, not before.
        allow_loopback_webhooks: Whether a webhook may be sent to this very machine.
            Other private addresses are the block's own decision.
        secret_key: Fernet keys that encrypt secrets at rest, between commas: the first
            encrypts, all of them decrypt. None takes them from a file in *home*.
    """

    api: ApiSettings = attrs.field(factory=ApiSettings)
    home: Path = attrs.field(
        factory=default_home, metadata=takes(parse.parse_path, "the path of a folder")
    )
    allow_loopback_webhooks: bool = attrs.field(
        default=True, metadata=takes(parse.parse_truth, "true or false")
    )
    secret_key: SecretStr | None = attrs.field(
        default=None,
        metadata=takes(
            parse.parse_keys,
            "Fernet keys (URL-safe base64 of 32 bytes each) between commas",
            secret=True,
        ),
    )


GROUPS: Final[Mapping[str, type]] = {"api": ApiSettings}


@attrs.frozen(kw_only=True)
class Spec:
    """One setting: where it is, and what it takes.

    Attributes:
        path: Its place in `Settings` and in files, such as ``("api", "url")``.
        parser: Makes its value.
        expected: What its value has to be.
        is_secret: Whether it is masked.
        is_optional: Whether it may be None.
    """

    path: tuple[str, ...]
    parser: Parser
    expected: str
    is_secret: bool
    is_optional: bool

    @property
    def name(self) -> str:
        """Its name in one word, such as ``api_url``."""
        return "_".join(self.path)

    @property
    def variable(self) -> str:
        """The environment variable that sets it, such as ``ENGINE_API_URL``."""
        return PREFIX + self.name.upper()


def _specs(cls: type, prefix: tuple[str, ...] = ()) -> dict[str, Spec]:
    specs: dict[str, Spec] = {}
    for field in attrs.fields(cls):
        path = (*prefix, field.name)
        if field.name in GROUPS:
            specs |= _specs(GROUPS[field.name], path)
            continue
        spec = Spec(
            path=path,
            parser=field.metadata["parser"],
            expected=field.metadata["expected"],
            is_secret=field.metadata["secret"],
            is_optional=field.default is None,
        )
        specs[spec.name] = spec
    return specs


SPECS: Final[Mapping[str, Spec]] = _specs(Settings)
"""Every setting by its name in one word."""
