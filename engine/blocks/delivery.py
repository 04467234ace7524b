"""Sending a notification by HTTP, or saying why not without giving a secret away.

httpx2 makes the request and httpcore2, its transport, carries it. The client of httpx2
is left out on purpose: it follows proxies and credentials of the environment, which
would bypass the check of addresses, and logs the whole URL.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs

from engine.blocks.addresses import AddressPolicy
from engine.blocks.exceptions import (
    AddressRefusedError,
    NotificationError,
    NotificationRejected,
    NotificationTimeout,
)
from engine.blocks.extras import require
from engine.blocks.redaction import Redactor
from engine.settings.current import get_current_settings
from engine.settings.secret import SecretStr

if TYPE_CHECKING:
    import httpcore2
    import httpx2

EXCERPT: Final = 200
"""How many characters of an answer an error repeats."""
MAX_READ: Final = 4096
"""How many bytes of an answer are read at most."""
BODILESS: Final = frozenset({"GET", "DELETE"})

_CONTROLS: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


class NotJsonError(Exception):
    """A payload cannot be written as JSON; never leaves this module."""


@attrs.frozen(kw_only=True)
class Delivery:
    """One request.

    Attributes:
        block: Which block sends it, for errors.
        method: The HTTP method; those of `BODILESS` send no *payload*.
        url: Where to.
        headers: Further headers.
        payload: A JSON value, in which `SecretStr` stands for its text.
        timeout: Seconds for all of it. Only looking up the name is not counted, it
            cannot be interrupted.
        allow_private: Whether it may go to a private address.
    """

    block: str
    method: str
    url: SecretStr
    headers: Mapping[str, SecretStr]
    payload: Any
    timeout: float
    allow_private: bool

    @property
    def target(self) -> str:
        """The URL without its secret part."""
        url = urlsplit(self.url.get_secret_value())
        return f"{url.scheme}://{url.hostname}"


def deliver(delivery: Delivery) -> None:
    """Send a request and take a 2xx answer for success; blocks its thread.

    Raises:
        MissingExtraError: The extra ``http`` is not installed.
        AddressRefusedError: The address is private.
        NotificationTimeout: It took too long.
        NotificationRejected: The answer was no success, or a redirect: those are not
            followed, as they could lead anywhere.
        NotificationError: It could not be sent.
    """
    require("httpx2", f"sending with {delivery.block}", "http")
    problem = _attempt(delivery)
    if problem is not None:
        # Here, where no frame on the way holds a secret as plain text, and without the
        # library's error as context, which may.
        raise problem


def _attempt(delivery: Delivery) -> NotificationError | None:
    import httpcore2
    import httpx2

    from engine.blocks.guarded import Deadline, GuardedBackend, RefusedAddress

    where = (delivery.block, delivery.target)
    loopback = get_current_settings().allow_loopback_webhooks
    policy = AddressPolicy(delivery.allow_private, loopback)
    redact = Redactor((delivery.url, *delivery.headers.values()))
    try:
        request, redact = _request(delivery)
        context = httpx2.create_ssl_context()
        network = GuardedBackend(policy, Deadline(delivery.timeout))
        with httpcore2.ConnectionPool(context, network_backend=network) as pool:
            return _send(pool, request, where, redact)
    except RefusedAddress as refused:
        return _refused(where, str(refused))
    except httpcore2.TimeoutException:
        return NotificationTimeout(*where, f"no answer within {delivery.timeout:g} s")
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        return NotificationError(*where, redact(str(error) or type(error).__name__))
    except httpx2.InvalidURL:
        return NotificationError(*where, "its URL is not valid")
    except NotJsonError:
        return NotificationError(*where, "what it should send is not JSON")


def _request(delivery: Delivery) -> tuple[httpx2.Request, Redactor]:
    """Make the request, and what redacts everything that is secret in it.

    Raises:
        httpx2.InvalidURL: The URL is none.
        NotJsonError: The payload is not JSON.
    """
    import httpx2

    secrets = [delivery.url, *delivery.headers.values()]
    url = httpx2.URL(delivery.url.get_secret_value())
    # The beginning of an answer has to be legible without the rest of it.
    headers = httpx2.Headers({"Accept-Encoding": "identity"})
    content = None
    if delivery.method not in BODILESS:
        content = _content(delivery.payload, secrets)
        headers["Content-Type"] = "application/json"
    headers.update(
        {name: one.get_secret_value() for name, one in delivery.headers.items()}
    )
    request = httpx2.Request(delivery.method, url, headers=headers, content=content)
    if url.userinfo:
        auth = httpx2.BasicAuth(url.username, url.password)
        request = next(auth.sync_auth_flow(request))
        secrets.append(SecretStr(request.headers["Authorization"]))
    return request, Redactor(secrets)


def _content(payload: Any, secrets: list[SecretStr]) -> bytes:
    """Return JSON in which secrets are plain; note them."""

    def reveal(value: Any) -> str:
        if not isinstance(value, SecretStr):
            raise NotJsonError
        secrets.append(value)
        return value.get_secret_value()

    try:
        return json.dumps(payload, default=reveal, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        raise NotJsonError from None


def _send(
    pool: httpcore2.ConnectionPool,
    request: httpx2.Request,
    where: tuple[str, str],
    redact: Redactor,
) -> NotificationError | None:
    """Exchange request and answer; return what is wrong with the answer."""
    import httpcore2

    url = httpcore2.URL(
        scheme=request.url.raw_scheme,
        host=request.url.raw_host,
        port=request.url.port,
        target=request.url.raw_path,
    )
    with pool.stream(
        request.method, url, headers=request.headers.raw, content=request.read()
    ) as response:
        if 200 <= response.status < 300:
            return None
        said = redact(_beginning(response.iter_stream()))
        return _rejected(where, response.status, said)


def _beginning(stream: Iterable[bytes]) -> str:
    """Read the beginning of an answer as one line of text."""
    read = bytearray()
    for chunk in stream:
        read += chunk
        if len(read) >= MAX_READ:
            break
    return _CONTROLS.sub(" ", read[:MAX_READ].decode("utf-8", "replace")).strip()


def _rejected(where: tuple[str, str], status: int, said: str) -> NotificationRejected:
    said = said if len(said) <= EXCERPT else f"{said[:EXCERPT]}…"
    problem = f"the answer was {status}"
    if 300 <= status < 400:
        problem += ", and redirects are not followed"
    elif said:
        problem += f": {said}"
    return NotificationRejected(*where, problem, status, said)


def _refused(where: tuple[str, str], address: str) -> AddressRefusedError:
    problem = (
        f"{address} is a private address, and the block does not say allow_private=True"
    )
    return AddressRefusedError(*where, problem, address)
