"""Sending a notification by the apprise library."""

from __future__ import annotations

from typing import Any, Final

from engine.blocks.exceptions import NotificationError
from engine.blocks.extras import require
from engine.blocks.redaction import Redactor
from engine.settings.secret import SecretStr

LOGGERS: Final = ("apprise", "urllib3.connectionpool")
"""They write requests' URLs, tokens and all, at their lower levels."""


def send_with_apprise(
    block: str, url: SecretStr, body: str, subject: str | None
) -> None:
    """Send a message to the service of an apprise URL; blocks its thread.

    Raises:
        MissingExtraError: The extra ``notify`` is not installed.
        NotificationError: The URL is none of apprise's, or the service did not take the
            message. The log of apprise says more.
    """
    require("apprise", f"sending with {block}", "notify")
    problem = _attempt(url, body, subject)
    if problem is not None:
        raise NotificationError(block, _target_of(url), problem)


def _attempt(url: SecretStr, body: str, subject: str | None) -> str | None:
    """Return what went wrong, None if nothing did."""
    import apprise

    redact = Redactor((url,))
    with redact.over_logs(*LOGGERS):
        sender: Any = apprise.Apprise()
        try:
            if not sender.add(url.get_secret_value()):
                return "apprise knows no service of such a URL"
            # A bool in apprise 1, in apprise 2 a result that is true or false like one.
            if sender.notify(body=body, title=subject or ""):
                return None
        except Exception as error:  # its plugins, over a hundred, raise what they like
            return redact(f"apprise failed with {type(error).__name__}: {error}")
    return "the service did not take the message, see the log of 'apprise'"


def _target_of(url: SecretStr) -> str:
    """Return the URL's scheme, which names the service; the rest is secret."""
    scheme, mark, _ = url.get_secret_value().partition("://")
    return f"{scheme}://" if mark and scheme.isalnum() else "its URL"
