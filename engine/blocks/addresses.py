"""Which addresses a notification may be sent to.

A URL that a user or a document supplies must not become a way into the network that the
process runs in, to a cloud's metadata service for example.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

import attrs

Address = IPv4Address | IPv6Address

NAT64: Final = IPv6Network("64:ff9b::/96")
"""IPv6 addresses that stand for the IPv4 address in their last four bytes."""

PROTOCOLS: Final = IPv4Network("192.0.0.0/24")
"""Reserved as a whole; before 3.11.10 Python takes most of it for public."""


@attrs.frozen
class AddressPolicy:
    """Which addresses are permitted.

    Attributes:
        allow_private: Whether every address is.
        allow_loopback: Whether those of this very machine are.
    """

    allow_private: bool
    allow_loopback: bool

    def permits(self, text: str) -> bool:
        """Whether *text*, an IPv4 or IPv6 address, may be connected to.

        Without an exception only those of the public internet are: no private,
        link-local, shared, reserved, multicast or unspecified ones, in whichever way
        they are written.
        """
        if self.allow_private:
            return True
        address = unwrap(ip_address(text))
        if address.is_loopback:
            return self.allow_loopback
        return is_public(address)


def unwrap(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address only transports, else itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo or address


def is_public(address: Address) -> bool:
    """Whether an address belongs to a single host of the public internet."""
    # is_global alone lets multicast pass, and the site-local addresses of old.
    special = address.is_multicast or address.is_reserved or address in PROTOCOLS
    if isinstance(address, IPv6Address):
        special = special or address.is_site_local
    return address.is_global and not special


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses that a name stands for; blocks, as long as DNS does.

    Raises:
        OSError: There are none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # of a name with a label that is empty or too long
        raise socket.gaierror("the name is not valid") from None
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
