"""Blocks that send a message to people or programs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Literal

import attrs

from engine.blocks import checks
from engine.blocks._bridge import do
from engine.blocks.apprising import send_with_apprise
from engine.blocks.core import Block
from engine.blocks.delivery import Delivery, deliver
from engine.settings.secret import SecretStr
from engine.settings.shapes import is_dict, is_list, is_tuple

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

TIMEOUT: Final = 10.0
_PLACE: Final = re.compile(r"\{(body|subject)\}")


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

    Requests go to it directly, as those of `Webhook` do.

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

    Requests go to it directly, whatever the environment says about proxies: a proxy
    looks names up by itself, so that nobody could tell which address it connects to.

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
        payload = fill(self.template, body=body, subject=subject)
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

    apprise makes the connections itself, by a dozen libraries, with time limits of its
    own and through the environment's proxies. So no address is checked here: whoever
    gives the URL decides what this process connects to, its private network included.

    Attributes:
        url: An apprise URL such as ``mailto://user:password@example.com``, a secret.
    """

    url: SecretStr = attrs.field(converter=checks.to_secret_url)

    def _sender(self, body: str, subject: str | None) -> Callable[[], None]:
        return partial(send_with_apprise, self._shown_as, self.url, body, subject)


def fill(template: Any, *, body: str, subject: str | None) -> Any:
    """Return *template* with ``{body}`` and ``{subject}`` replaced in its strings.

    In one pass: a message that contains ``{subject}`` itself stays as it is. Not by
    ``str.format``: a template could read attributes of Python objects with it, and
    would have to double every other brace.

    Args:
        template: A JSON value; its keys stay as they are.
        body: The message.
        subject: Its heading. None leaves the place empty; a string that is nothing but
            the place becomes None.
    """
    if isinstance(template, str):
        if template == "{subject}":
            return subject
        values = {"body": body, "subject": subject or ""}
        return _PLACE.sub(lambda found: values[found[1]], template)
    if is_list(template) or is_tuple(template):
        return [fill(item, body=body, subject=subject) for item in template]
    if is_dict(template):
        return {
            key: fill(item, body=body, subject=subject)
            for key, item in template.items()
        }
    return template
