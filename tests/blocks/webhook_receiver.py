"""A real HTTP server on this machine, for what notifications send."""

import threading
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs


@attrs.frozen
class Received:
    """One request as it arrived."""

    method: str
    path: str
    headers: Message
    body: bytes


class Receiver:
    """A real HTTP server on this machine that answers as it is told.

    Attributes:
        requests: What has arrived.
        status: What it answers with.
        headers: Further headers of the answer.
        body: The answer.
        closing: Set at the end; an answer that never comes waits for it.
    """

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b"ok"
        self.closing = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = self.server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Send the answer; replaced by tests that want a strange one."""
        handler.send_response(self.status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(self.body)))
        handler.end_headers()
        handler.wfile.write(self.body)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def _take(self) -> None:
                size = int(self.headers.get("Content-Length", "0"))
                body = self.rfile.read(size)
                receiver.requests.append(
                    Received(self.command, self.path, self.headers, body)
                )
                receiver.answer(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _take

            def log_message(self, *_args: Any) -> None:
                """Keep standard error clean."""

        return Handler
