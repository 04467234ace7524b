"""Settings: from defaults, a file, the environment and tests, in rising strength."""

from engine.settings.current import get_current_settings, temporary_settings
from engine.settings.describe import SettingRow, describe_settings
from engine.settings.exceptions import (
    IllTypedSettingError,
    NoHomeError,
    SettingsError,
    SettingsFileError,
    UnknownSettingError,
)
from engine.settings.model import ApiSettings, Settings
from engine.settings.names import (
    ENGINE_ALLOW_LOOPBACK_WEBHOOKS,
    ENGINE_API_URL,
    ENGINE_HOME,
    ENGINE_SECRET_KEY,
    Setting,
)
from engine.settings.secret import SecretStr

__all__ = [
    "ENGINE_ALLOW_LOOPBACK_WEBHOOKS",
    "ENGINE_API_URL",
    "ENGINE_HOME",
    "ENGINE_SECRET_KEY",
    "ApiSettings",
    "IllTypedSettingError",
    "NoHomeError",
    "SecretStr",
    "Setting",
    "SettingRow",
    "Settings",
    "SettingsError",
    "SettingsFileError",
    "UnknownSettingError",
    "describe_settings",
    "get_current_settings",
    "temporary_settings",
]
