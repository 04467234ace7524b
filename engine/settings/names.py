"""Each setting as an object: ``ENGINE_API_URL.value()``, or in an f-string."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from engine.settings.current import get_current_settings
from engine.settings.model import SPECS, Spec
from engine.settings.secret import SecretStr

T = TypeVar("T")


class Setting(Generic[T]):
    """One setting, whose value is looked up whenever it is asked for.

    In text it stands for its current value, masked if it is a secret.
    """

    __slots__ = ("spec",)

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    @property
    def name(self) -> str:
        """The environment variable that sets it."""
        return self.spec.variable

    def value(self) -> T:
        """Return the value that is in force; see `get_current_settings`."""
        value: Any = get_current_settings()
        for part in self.spec.path:
            value = getattr(value, part)
        return value  # type: ignore[no-any-return]  # SPECS has no static types

    def __str__(self) -> str:
        return str(self.value())

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __repr__(self) -> str:
        return f"<Setting {self.name}>"


ENGINE_API_URL: Final[Setting[str | None]] = Setting(SPECS["api_url"])
ENGINE_HOME: Final[Setting[Path]] = Setting(SPECS["home"])
ENGINE_ALLOW_LOOPBACK_WEBHOOKS: Final[Setting[bool]] = Setting(
    SPECS["allow_loopback_webhooks"]
)
ENGINE_SECRET_KEY: Final[Setting[SecretStr | None]] = Setting(SPECS["secret_key"])
