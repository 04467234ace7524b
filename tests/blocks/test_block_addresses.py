"""Where notifications may go: after the name is resolved, and to that very address."""

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpcore2
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from webhook_receiver import Receiver

from engine.blocks import addresses
from engine.blocks.addresses import AddressPolicy
from engine.blocks.exceptions import AddressRefusedError, NotificationError
from engine.blocks.guarded import Deadline, GuardedBackend
from engine.blocks.notifications import SlackWebhook
from engine.settings import temporary_settings

STRICT = AddressPolicy(allow_private=False, allow_loopback=False)

PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"]
PUBLIC += ["64:ff9b::8.8.8.8", "2002:808:808::1"]
LOOPBACK = ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"]
LOOPBACK += ["2002:7f00:1::1"]
PRIVATE = [
    "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "203.0.113.1", "224.0.0.1",
    "239.1.1.1", "240.0.0.1", "255.255.255.255", "0.0.0.0", "0.1.2.3",
    "::", "fe80::1", "fe80::1%2", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
    "2001:db8::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a00:1",
    "2002:a00:1::", "2001:0:4136:e378:8000:63bf:f5ff:fffe", "100::1", "::10.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_permitted(address: str) -> None:
    assert STRICT.permits(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_permitted_only_to_blocks_that_say_so(
    address: str,
) -> None:
    assert not STRICT.permits(address)
    assert not AddressPolicy(allow_private=False, allow_loopback=True).permits(address)
    assert AddressPolicy(allow_private=True, allow_loopback=False).permits(address)


@pytest.mark.parametrize("address", LOOPBACK)
def test_a_loopback_address_is_permitted_where_the_setting_is(address: str) -> None:
    assert not STRICT.permits(address)
    assert AddressPolicy(allow_private=False, allow_loopback=True).permits(address)
    assert AddressPolicy(allow_private=True, allow_loopback=False).permits(address)


@given(st.ip_addresses(v=4))
def test_no_notation_of_ipv6_hides_an_ipv4_address(
    address: ipaddress.IPv4Address,
) -> None:
    number = int(address)
    high, low = number >> 16, number & 0xFFFF
    for notation in (
        f"::ffff:{address}", f"64:ff9b::{address}", f"2002:{high:x}:{low:x}::1",
    ):  # fmt: skip
        assert STRICT.permits(notation) == STRICT.permits(str(address))


# resolving

Answers = dict[str, list[list[str]]]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """What a name server says of a name, the first time and then."""
    said: Answers = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        if host not in said:
            return real(host, port, *args, **kwargs)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in said[host].pop(0)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return said


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Where connections were made to; none is really made."""
    made: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], *_args: Any, **_more: Any) -> Any:
        made.append(address)
        raise ConnectionRefusedError("not in this test")

    monkeypatch.setattr(socket, "create_connection", connect)
    return made


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254", "10.0.0.1", "[fe80::1]", "[::ffff:10.0.0.1]", "0.0.0.0",
        "0xa000001", "167772161",
    ],
)  # fmt: skip
def test_a_private_address_is_refused_in_every_notation(
    host: str, connections: list[Any]
) -> None:
    with pytest.raises(AddressRefusedError, match="allow_private=True"):
        SlackWebhook(url=f"http://{host}/x").notify("b")
    assert connections == []


def test_a_block_may_allow_private_addresses(connections: list[Any]) -> None:
    with pytest.raises(NotificationError, match="not in this test"):
        SlackWebhook(url="http://10.0.0.1/x", allow_private=True).notify("b")
    assert connections == [("10.0.0.1", 80)]


def test_loopback_is_refused_where_the_setting_says_so(
    receiver: Receiver,
) -> None:
    with temporary_settings(allow_loopback_webhooks=False):
        with pytest.raises(AddressRefusedError) as caught:
            SlackWebhook(url=receiver.url).notify("b")
        assert caught.value.address == "127.0.0.1"
        assert not receiver.requests
        SlackWebhook(url=receiver.url, allow_private=True).notify("b")
    assert len(receiver.requests) == 1


def test_one_private_address_among_public_ones_is_refused(
    answers: Answers, connections: list[Any]
) -> None:
    answers["hooks.example"] = [["93.184.216.34", "10.0.0.1"]]
    with pytest.raises(AddressRefusedError) as caught:
        SlackWebhook(url="https://hooks.example/x").notify("b")
    assert caught.value.address == "10.0.0.1"
    assert connections == []


def test_a_name_that_changes_its_address_is_asked_only_once(
    answers: Answers, receiver: Receiver
) -> None:
    """DNS rebinding: checked is the first answer, and connected to is that one."""
    answers["hooks.example"] = [["127.0.0.1"], ["10.0.0.1"]]
    SlackWebhook(url=f"http://hooks.example:{receiver.port}/x").notify("b")
    assert receiver.requests[0].headers["Host"] == f"hooks.example:{receiver.port}"
    assert answers["hooks.example"] == [["10.0.0.1"]], "the second was never given"


def test_the_next_address_is_tried_where_one_does_not_answer(
    answers: Answers, connections: list[Any]
) -> None:
    answers["hooks.example"] = [["93.184.216.34", "93.184.216.34", "93.184.216.35"]]
    with pytest.raises(NotificationError, match="not in this test"):
        SlackWebhook(url="https://hooks.example/x").notify("b")
    assert connections == [("93.184.216.34", 443), ("93.184.216.35", 443)]


def test_a_name_without_addresses_is_an_error(answers: Answers) -> None:
    answers["hooks.example"] = [[]]
    with pytest.raises(NotificationError, match="its name stands for no address"):
        SlackWebhook(url="https://hooks.example/x").notify("b")


def test_an_unknown_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: Any, **_kwargs: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(NotificationError, match="no address found") as caught:
        SlackWebhook(url="https://hooks.example/x").notify("b")
    assert caught.value.target == "https://hooks.example"


def test_a_name_that_is_none_is_an_error() -> None:
    with pytest.raises(OSError, match="the name is not valid"):
        addresses.resolve(f"{'x' * 64}.example", 80)


# time


def test_nothing_is_begun_after_the_deadline(connections: list[Any]) -> None:
    backend = GuardedBackend(AddressPolicy(True, True), Deadline(-1))
    with pytest.raises(httpcore2.TimeoutException):
        backend.connect_tcp("127.0.0.1", 1)
    assert connections == []


# TLS


@pytest.fixture
def secured(
    receiver: Receiver, tmp_path: Path
) -> Iterator[tuple[ThreadingHTTPServer, Path]]:
    """The receiver by https, with a certificate for hooks.example."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("hooks.example")]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = tmp_path / "certificate.pem"
    path.write_bytes(
        certificate.public_bytes(pem)
        + key.private_bytes(
            pem,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), receiver.server.RequestHandlerClass, bind_and_activate=False
    )
    # Handshakes are made by the thread of each connection, not by the one that accepts.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.handle_error = lambda *_args: None  # type: ignore[method-assign]
    server.server_bind()
    server.server_activate()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server, path
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Trust one certificate."""

    def trust(path: Path) -> None:
        context = ssl.create_default_context(cafile=str(path))
        monkeypatch.setattr(httpx2, "create_ssl_context", lambda: context)

    return trust


def test_the_certificate_is_checked_against_the_name_in_the_url(
    secured: tuple[ThreadingHTTPServer, Path],
    trusting: Callable[[Path], None],
    receiver: Receiver,
    answers: Answers,
) -> None:
    server, path = secured
    trusting(path)
    answers["hooks.example"] = [["127.0.0.1"]]
    answers["other.example"] = [["127.0.0.1"]]
    SlackWebhook(url=f"https://hooks.example:{server.server_port}/x").notify("b")
    assert [request.path for request in receiver.requests] == ["/x"]
    with pytest.raises(NotificationError, match="certificate"):
        SlackWebhook(url=f"https://other.example:{server.server_port}/x").notify("b")
    assert len(receiver.requests) == 1


def test_a_certificate_that_nobody_vouches_for_is_refused(
    secured: tuple[ThreadingHTTPServer, Path], receiver: Receiver, answers: Answers
) -> None:
    server, _ = secured
    answers["hooks.example"] = [["127.0.0.1"]]
    with pytest.raises(NotificationError, match="certificate"):
        SlackWebhook(url=f"https://hooks.example:{server.server_port}/x").notify("b")
    assert not receiver.requests
