"""Connections that go to checked addresses only, and end in time.

The check is made where the connection is: the name is resolved once, every address is
checked, and one of these very addresses is connected to. A name server that answers
differently the second time (DNS rebinding) is never asked a second time. The name in
the URL still decides about the ``Host`` header and the certificate.

Imported only when a request is made: httpcore2 comes with the extra ``http``.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable
from typing import Any, Final

import httpcore2

from engine.blocks.addresses import AddressPolicy, resolve

CHUNK: Final = 65_536
"""How many bytes are written at a time; between them the deadline is looked at."""


class RefusedAddress(Exception):
    """An address that the policy does not permit; never leaves `engine.blocks`."""


class Deadline:
    """The end of the time that all steps of a request have together.

    A time limit for each step alone would let a receiver that sends one byte at a time
    keep its thread for hours.

    Args:
        timeout: Seconds from now.
    """

    def __init__(self, timeout: float) -> None:
        self._ends_at = time.monotonic() + timeout

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            httpcore2.ReadTimeout: None are.
        """
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout
        return left


class GuardedBackend(httpcore2.NetworkBackend):
    """Opens connections to what the policy permits.

    Args:
        policy: Which addresses may be connected to.
        deadline: When everything ends.
    """

    def __init__(self, policy: AddressPolicy, deadline: Deadline) -> None:
        self._policy = policy
        self._deadline = deadline
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first checked address of *host* that answers.

        Raises:
            RefusedAddress: One of its addresses is not permitted.
            httpcore2.ConnectError: It has none, or none answers.
        """
        failure: Exception = httpcore2.ConnectError("its name stands for no address")
        for address in self._checked(host, port):
            try:
                stream = self._inner.connect_tcp(
                    address, port, self._deadline.left(), local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return GuardedStream(stream, self._deadline)
        raise failure

    def _checked(self, host: str, port: int) -> list[str]:
        try:
            addresses = resolve(host, port)
        except OSError as error:
            raise httpcore2.ConnectError(f"no address found: {error}") from error
        # One bad address is enough: a name that stands for public and private ones
        # together is how rebinding looks from here.
        for address in addresses:
            if not self._policy.permits(address):
                raise RefusedAddress(address)
        return addresses


class GuardedStream(httpcore2.NetworkStream):
    """A connection whose every step ends by the deadline.

    Args:
        inner: The connection.
        deadline: When everything ends.
    """

    def __init__(self, inner: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has come, at least one byte unless the connection is closed."""
        return self._inner.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of *buffer*."""
        for start in range(0, len(buffer), CHUNK):
            self._inner.write(buffer[start : start + CHUNK], self._deadline.left())

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        """Return the same connection, encrypted and with the name verified."""
        left = self._deadline.left()
        secure = self._inner.start_tls(ssl_context, server_hostname, left)
        return GuardedStream(secure, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """Return what the connection knows about itself."""
        return self._inner.get_extra_info(info)
