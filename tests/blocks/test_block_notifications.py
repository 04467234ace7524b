"""Notifications: what is really sent, and what is said when it is not taken."""

import base64
import json
import logging
import math
import pickle
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import anyio
import apprise
import pytest
from webhook_receiver import Receiver

from engine.blocks import Block, SecretStr
from engine.blocks.exceptions import (
    AddressRefusedError,
    BlockFieldError,
    NotificationError,
    NotificationRejected,
    NotificationTimeout,
)
from engine.blocks.notifications import (
    AppriseNotification,
    NotificationBlock,
    SlackWebhook,
    Webhook,
)
from engine.blocks.redaction import Redactor

CANARY = "canary4711"


# what is sent


def test_slack_gets_the_text(receiver: Receiver) -> None:
    SlackWebhook(url=f"{receiver.url}/services/T/B/x").notify("hällo <http://x|y>")
    (request,) = receiver.requests
    assert (request.method, request.path) == ("POST", "/services/T/B/x")
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.body) == {"text": "hällo <http://x|y>"}


def test_slack_gets_the_subject_as_a_heading(receiver: Receiver) -> None:
    SlackWebhook(url=receiver.url).notify("body", subject="subject")
    assert json.loads(receiver.requests[0].body) == {"text": "*subject*\n\nbody"}


async def test_notify_can_be_awaited(receiver: Receiver) -> None:
    assert await SlackWebhook(url=receiver.url).notify("body") is None
    assert len(receiver.requests) == 1


async def test_a_cancelled_notify_ends_at_once(receiver: Receiver) -> None:
    def never(_handler: BaseHTTPRequestHandler) -> None:
        receiver.closing.wait(5)

    receiver.answer = never  # type: ignore[method-assign]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(SlackWebhook(url=receiver.url).notify, "body")
        while not receiver.requests:
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert not receiver.closing.is_set(), "it was not waited for"


def test_a_saved_webhook_can_be_used(receiver: Receiver) -> None:
    block = SlackWebhook(url=f"{receiver.url}/{CANARY}")
    block.save("alerts")
    loaded = Block.load("slack-webhook/alerts")
    assert loaded == block
    loaded.notify("body")  # type: ignore[attr-defined]
    assert receiver.requests[0].path == f"/{CANARY}"


def test_a_webhook_sends_subject_and_body(receiver: Receiver) -> None:
    block = Webhook(url=receiver.url)
    block.notify("b", subject="s")
    block.notify("b")
    assert [json.loads(one.body) for one in receiver.requests] == [
        {"subject": "s", "body": "b"},
        {"subject": None, "body": "b"},
    ]


def test_a_webhook_sends_its_template_headers_and_method(receiver: Receiver) -> None:
    block = Webhook(
        url=f"{receiver.url}/x?y=%C3%A4&z",
        method="PUT",
        headers={"Authorization": f"Bearer {CANARY}", "content-type": "text/x"},
        template={
            "key": SecretStr(CANARY),
            "list": ["<{subject}> {body} {other}", 1, None],
            "{body}": True,
        },
    )
    block.save("x")
    block = Webhook.load("x")
    assert CANARY not in repr(block)
    block.notify("{subject}", subject="s")
    (request,) = receiver.requests
    assert (request.method, request.path) == ("PUT", "/x?y=%C3%A4&z")
    assert request.headers["Authorization"] == f"Bearer {CANARY}"
    assert request.headers.get_all("Content-Type") == ["text/x"]
    assert json.loads(request.body) == {
        "key": CANARY,
        "list": ["<s> {subject} {other}", 1, None],
        "{body}": True,
    }


def test_a_place_for_a_missing_subject_stays_empty(receiver: Receiver) -> None:
    Webhook(url=receiver.url, template=["[{subject}]", "{subject}"]).notify("b")
    assert json.loads(receiver.requests[0].body) == ["[]", None]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_some_methods_send_no_body(receiver: Receiver, method: Any) -> None:
    Webhook(url=receiver.url, method=method).notify("b")
    (request,) = receiver.requests
    assert (request.method, request.body) == (method, b"")
    assert "Content-Type" not in request.headers


def test_call_sends_a_payload_of_ones_own(receiver: Receiver) -> None:
    block = Webhook(url=receiver.url)
    block.call({"a": [1]})
    block.call()
    assert [one.body for one in receiver.requests] == [b'{"a": [1]}', b"null"]


def test_a_user_in_the_url_is_sent_as_basic_authentication(receiver: Receiver) -> None:
    Webhook(url=f"http://user:p%40ss@127.0.0.1:{receiver.port}/").notify("b")
    sent = receiver.requests[0].headers["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent) == b"user:p@ss"


def test_the_environments_proxies_are_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    SlackWebhook(url=receiver.url).notify("b")
    assert len(receiver.requests) == 1


# what is said


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_any_2xx_is_a_success(receiver: Receiver, status: int) -> None:
    receiver.status = status
    receiver.body = b""
    SlackWebhook(url=receiver.url).notify("b")


def test_another_status_is_an_error_with_the_beginning_of_the_body(
    receiver: Receiver,
) -> None:
    receiver.status = 403
    receiver.body = b"invalid_token \r\n\x1b[31m" + b"x" * 5000
    block = SlackWebhook(url=f"{receiver.url}/services/{CANARY}")
    block.save("alerts")
    with pytest.raises(NotificationRejected) as caught:
        block.notify("b")
    assert str(caught.value).startswith(
        "SlackWebhook slack-webhook/alerts could not notify http://127.0.0.1: the"
        " answer was 403: invalid_token [31mxxx"
    )
    assert str(caught.value).endswith("x…")
    assert len(str(caught.value)) < 350
    assert caught.value.status == 403


def test_an_error_without_a_body_says_the_status(receiver: Receiver) -> None:
    receiver.status, receiver.body = 500, b""
    with pytest.raises(NotificationRejected, match=r"the answer was 500$"):
        SlackWebhook(url=receiver.url).notify("b")


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.status = 307
    receiver.headers = {"Location": f"{receiver.url}/elsewhere"}
    with pytest.raises(NotificationRejected, match="307, and redirects are not"):
        SlackWebhook(url=f"{receiver.url}/here").notify("b")
    assert [request.path for request in receiver.requests] == ["/here"]


def test_a_body_that_repeats_the_secrets_is_redacted(receiver: Receiver) -> None:
    receiver.status = 404
    block = Webhook(
        url=f"http://user:{CANARY}1@127.0.0.1:{receiver.port}/a/{CANARY}2?t={CANARY}3",
        headers={"X-Key": f"{CANARY}4"},
        template={"key": SecretStr(f"{CANARY}5")},
    )
    credentials = base64.b64encode(f"user:{CANARY}1".encode()).decode()
    receiver.body = (
        f"no {CANARY}2 {CANARY}3 {CANARY}4 {CANARY}5 {CANARY}1 Basic {credentials}"
    ).encode()
    with pytest.raises(NotificationRejected) as caught:
        block.notify("b")
    assert CANARY not in str(caught.value)
    assert credentials not in str(caught.value)
    assert caught.value.body == " ".join(["no", *["*" * 10] * 6])


def test_no_answer_in_time_is_a_timeout(receiver: Receiver) -> None:
    def never(_handler: BaseHTTPRequestHandler) -> None:
        receiver.closing.wait(5)

    receiver.answer = never  # type: ignore[method-assign]
    with pytest.raises(NotificationTimeout, match=r"no answer within 0\.1 s") as caught:
        SlackWebhook(url=receiver.url, timeout=0.1).notify("b")
    assert isinstance(caught.value, TimeoutError)


def test_an_answer_that_drips_is_a_timeout(receiver: Receiver) -> None:
    """Each byte comes in time, but not all of them together do."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        try:
            while not receiver.closing.wait(0.02):
                handler.wfile.write(b"x")
        except OSError:
            dripped.set()

    dripped = threading.Event()
    receiver.answer = drip  # type: ignore[method-assign]
    with pytest.raises(NotificationTimeout):
        SlackWebhook(url=receiver.url, timeout=0.5).notify("b")
    assert dripped.wait(5), "the connection was closed"


def test_nobody_there_is_an_error_without_the_urls_secret() -> None:
    with pytest.raises(NotificationError, match="refused") as caught:
        SlackWebhook(url=f"http://127.0.0.1:9/{CANARY}").notify("b")
    assert str(caught.value).startswith(
        "SlackWebhook could not notify http://127.0.0.1: "
    )
    assert CANARY not in str(caught.value)


def test_an_answer_that_is_not_http_is_an_error(receiver: Receiver) -> None:
    def nonsense(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(f"nonsense {CANARY}\r\n\r\n".encode())

    receiver.answer = nonsense  # type: ignore[method-assign]
    with pytest.raises(NotificationError) as caught:
        SlackWebhook(url=f"{receiver.url}/{CANARY}").notify("b")
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("payload", [object(), math.nan, {1j: 2}, {"a": {1}}])
def test_a_payload_that_is_not_json_is_an_error(
    receiver: Receiver, payload: Any
) -> None:
    with pytest.raises(NotificationError, match="what it should send is not JSON"):
        Webhook(url=receiver.url).call(payload)
    assert not receiver.requests


def test_a_long_body_is_written_in_pieces(receiver: Receiver) -> None:
    Webhook(url=receiver.url, timeout=10).call("x" * 300_000)
    assert len(receiver.requests[0].body) == 300_002


def test_a_successful_notification_logs_no_secret(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        Webhook(
            url=f"{receiver.url}/{CANARY}", headers={"Authorization": CANARY}
        ).notify("b")
    assert CANARY not in caplog.text


# what blocks accept


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "ftp://x", "//x", "http://", "https:///x", "http://x:port/", "http://[",
        "http://x y/", "http://x/\n", " http://x", "http://x/\ud800", 3, None,
    ],
)  # fmt: skip
def test_a_webhooks_url_is_http_with_a_host(url: Any) -> None:
    for make in (SlackWebhook, Webhook):
        with pytest.raises(BlockFieldError, match="url of a notification block must"):
            make(url=url)


def test_an_assigned_url_is_checked_and_masked_too() -> None:
    block = SlackWebhook(url="http://x")
    block.url = "http://y"  # type: ignore[assignment]
    assert block.url == SecretStr("http://y")
    with pytest.raises(BlockFieldError):
        block.url = "y"  # type: ignore[assignment]


def test_a_url_that_only_the_http_library_refuses_is_an_error() -> None:
    block = Webhook(url=f"http://012.0.0.1/{CANARY}")
    with pytest.raises(NotificationError, match="its URL is not valid") as caught:
        block.notify("b")
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "timeout", [0, -1, math.inf, math.nan, 3601, "1", True, None, 1 << 2000], ids=str
)
def test_a_timeout_is_some_seconds(timeout: Any) -> None:
    with pytest.raises(
        BlockFieldError, match="timeout of SlackWebhook must be seconds"
    ):
        SlackWebhook(url="http://x", timeout=timeout)


def test_a_method_is_one_of_those_there_are() -> None:
    with pytest.raises(BlockFieldError, match="must be one of GET, POST"):
        Webhook(url="http://x", method="post")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (["a"], "a mapping"),
        ({1: "a"}, "names that are valid"),
        ({"a b": "c"}, "names that are valid"),
        ({"Host": "x"}, "cannot set Host"),
        ({"content-length": "1"}, "cannot set content-length"),
        ({"X": f"{CANARY}\r\nY: z"}, "which that of X is not"),
        ({"X": f"{CANARY}ä"}, "printable ASCII"),
        ({"X": 4711}, "printable ASCII"),
    ],
)
def test_headers_are_valid_in_http(headers: Any, said: str) -> None:
    with pytest.raises(BlockFieldError, match=said) as caught:
        Webhook(url="http://x", headers=headers)
    assert "4711" not in str(caught.value)


def test_ones_own_notification_block_gives_its_sender() -> None:
    sent: list[tuple[str, str | None]] = []

    class Own(NotificationBlock):
        def _sender(self, body: str, subject: str | None) -> Any:
            return lambda: sent.append((body, subject))

    Own().notify("b", "s")
    assert sent == [("b", "s")]
    with pytest.raises(NotImplementedError):
        NotificationBlock().notify("b")


# apprise

# One of its plugins imports a module of Python that is deprecated.
of_apprise = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")


@of_apprise
def test_apprise_sends(receiver: Receiver) -> None:
    url = f"json://127.0.0.1:{receiver.port}/{CANARY}/"
    block = AppriseNotification(url=url)
    assert CANARY not in repr(block)
    block.save("x")
    AppriseNotification.load("x").notify("b", subject="s")
    (request,) = receiver.requests
    assert request.path.startswith(f"/{CANARY}")
    sent = json.loads(request.body)
    assert (sent["title"], sent["message"]) == ("s", "b")


@of_apprise
async def test_apprise_can_be_awaited(receiver: Receiver) -> None:
    await AppriseNotification(url=f"json://127.0.0.1:{receiver.port}/").notify("b")
    assert len(receiver.requests) == 1


@of_apprise
def test_what_apprise_cannot_deliver_is_an_error(receiver: Receiver) -> None:
    receiver.status = 500
    block = AppriseNotification(url=f"json://127.0.0.1:{receiver.port}/{CANARY}")
    with pytest.raises(NotificationError, match="did not take the message") as caught:
        block.notify("b")
    assert caught.value.target == "json://"
    assert CANARY not in str(caught.value)


@of_apprise
@pytest.mark.parametrize("url", ["", CANARY, f"nosuchthing://{CANARY}"])
def test_a_url_that_apprise_does_not_know_is_an_error(url: str) -> None:
    with pytest.raises(NotificationError, match="apprise knows no service") as caught:
        AppriseNotification(url=url).notify("b")
    assert CANARY not in str(caught.value)


def test_an_error_inside_of_apprise_is_told_without_the_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_self: object, url: str) -> None:
        raise LookupError(f"in {url}")

    monkeypatch.setattr(apprise.Apprise, "add", fail)
    with pytest.raises(NotificationError, match="apprise failed with LookupError: in"):
        AppriseNotification(url=f"json://{CANARY}").notify("b")


@of_apprise
def test_apprise_logs_no_secret(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"json://user:{CANARY}1@127.0.0.1:{receiver.port}/{CANARY}2"
    with caplog.at_level(1):
        AppriseNotification(url=url).notify("b")
        with pytest.raises(NotificationError):
            AppriseNotification(url=f"nosuchthing://{CANARY}").notify("b")
    assert "JSON POST URL" in caplog.text, "there was something to redact"
    assert CANARY not in caplog.text
    logging.getLogger("apprise").error(CANARY)
    assert CANARY in caplog.text, "the user's own lines are left alone afterwards"


# redaction


def test_a_redactor_without_secrets_changes_nothing() -> None:
    assert Redactor([])("text") == Redactor([SecretStr("")])("text") == "text"


def test_a_redactor_hides_the_parts_of_a_url_but_not_its_host() -> None:
    redact = Redactor([SecretStr("https://hooks.example.com:443/api/t0k%65n%20x?q=1")])
    text = "hooks.example.com 443 api t0k%65n%20x t0ken x q 1"
    assert redact(text) == "hooks.example.com 443 api ********** ********** q 1"


def test_a_redactor_takes_what_is_not_quite_a_url() -> None:
    assert Redactor([SecretStr("x://[secret1")])("secret1") == "secret1"
    assert "secret2" not in Redactor([SecretStr("x://[/secret2")])("a secret2")


def test_importing_the_blocks_imports_no_extra() -> None:
    code = (
        "import sys, engine.blocks, engine.blocks.system, engine.blocks.rotation;"
        "import engine.blocks.notifications, engine.blocks.document;"
        "print([n for n in ('httpx2', 'httpcore2', 'cryptography', 'apprise', 'ssl')"
        " if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout.strip() in ("[]", "['ssl']"), "which Python may import itself"


def test_errors_survive_pickling() -> None:
    for error in (
        NotificationError("a", "b", "c"),
        NotificationTimeout("a", "b", "c"),
        NotificationRejected("a", "b", "c", 500, "d"),
        AddressRefusedError("a", "b", "c", "d"),
    ):
        copied = pickle.loads(pickle.dumps(error))
        assert str(copied) == str(error) == "a could not notify b: c"
