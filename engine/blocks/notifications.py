"""Blocks that send a message to people or programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Literal

import attrs

from engine.blocks import checks, template
from engine.blocks._bridge import do
from engine.blocks.apprising import send_with_apprise
from engine.blocks.core import Block
from engine.blocks.delivery import Delivery, deliver
from engine.settings.secret import SecretStr

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

TIMEOUT: Final = 10.0


class NotificationBlock(Block):
    """Base of the blocks that notify; one of your own gives `_sender`."""

    def notify(self, body: str, subject: str | None = None) -> Any:
        """Send a message.

        In async code the awaitable gives way to a cancellation at once; the message may
        be sent all the same.

        Args:
            body: The message.
            subject: Its heading; None is a message without one.

        Returns:
            None when it was accepted; in async code an awaitable for that.

        Raises:
            NotificationError: It was not accepted; see the kinds of it in
                `engine.blocks.exceptions`. No secret is shown.
            MissingExtraError: The extra that sends it is not installed.
        """
        return self._do("notify", self._sender(body, subject))

    def _sender(self, body: str, subject: str | None) -> Callable[[], None]:
        """Return what sends the message; it may block."""
        raise NotImplementedError

    def _do(self, method: str, work: Callable[[], None]) -> Any:
        return do(f"{type(self).__name__}.{method}(...)", work, abandon=True)

    @property
    def _shown_as(self) -> str:
        name = f" {self._reference}" if self._reference else ""
        return type(self).__name__ + name


@attrs.define(kw_only=True, slots=False)
class SlackWebhook(NotificationBlock):
    """An incoming webhook of Slack, or of what speaks like it (Mattermost for one).

    Attributes:
        url: The webhook's URL, a secret as a whole.
        timeout: Seconds for one message.
        allow_private: Whether it may be inside of a private network.
    """

    url: SecretStr = attrs.field(converter=checks.to_http_url)
    timeout: float = attrs.field(default=TIMEOUT, validator=checks.seconds)
    allow_private: bool = False

    def _sender(self, body: str, subject: str | None) -> Callable[[], None]:
        text = f"*{subject}*\n\n{body}" if subject else body
        delivery = Delivery(
            block=self._shown_as,
            method="POST",
            url=self.url,
            headers={},
            payload={"text": text},
            timeout=self.timeout,
            allow_private=self.allow_private,
        )
        return partial(deliver, delivery)


@attrs.define(kw_only=True, slots=False)
class Webhook(NotificationBlock):
    """Any HTTP endpoint that takes JSON.

    Attributes:
        url: Where requests go, a secret as a whole. A user and password in it are sent
            as basic authentication.
        method: GET and DELETE send no body: they only say that something happened.
        headers: Further headers, their values are secrets.
        template: The JSON value that `notify` sends, with ``{body}`` and ``{subject}``
            in its strings. A string that is only ``{subject}`` becomes null where there
            is none.
        timeout: Seconds for one request.
        allow_private: Whether it may go into a private network.
    """

    url: SecretStr = attrs.field(converter=checks.to_http_url)
    method: Method = attrs.field(default="POST", validator=checks.one_of(Method))
    headers: Mapping[str, SecretStr] = attrs.field(
        factory=dict[str, SecretStr], converter=checks.to_headers
    )
    template: Any = attrs.field(
        factory=lambda: {"subject": "{subject}", "body": "{body}"}
    )
    timeout: float = attrs.field(default=TIMEOUT, validator=checks.seconds)
    allow_private: bool = False

    def call(self, payload: Any = None) -> Any:
        """Send a request with a JSON value of your own; otherwise as `notify`.

        Args:
            payload: What is sent instead of the template.
        """
        return self._do("call", partial(deliver, self._delivery(payload)))

    def _sender(self, body: str, subject: str | None) -> Callable[[], None]:
        payload = template.fill(self.template, body=body, subject=subject)
        return partial(deliver, self._delivery(payload))

    def _delivery(self, payload: Any) -> Delivery:
        return Delivery(
            block=self._shown_as,
            method=self.method,
            url=self.url,
            headers=self.headers,
            payload=payload,
            timeout=self.timeout,
            allow_private=self.allow_private,
        )


@attrs.define(kw_only=True, slots=False)
class AppriseNotification(NotificationBlock):
    """Any of the services that the apprise library knows; extra ``notify``.

    apprise makes the connections itself, with time limits of its own: addresses are not
    checked here.

    Attributes:
        url: An apprise URL such as ``mailto://user:password@example.com``, a secret.
    """

    url: SecretStr = attrs.field(converter=checks.to_secret_url)

    def _sender(self, body: str, subject: str | None) -> Callable[[], None]:
        return partial(send_with_apprise, self._shown_as, self.url, body, subject)
