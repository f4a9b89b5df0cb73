"""A web server on loopback that keeps what is posted to it, for tests of the webhook."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path


class WebServer(http.server.ThreadingHTTPServer):
    """A web server that keeps what it took. `answers`: the next statuses, 200 when they are used up; 0: none at all."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.port = self.server_address[1]
        self.answers: list[int] = []
        self.asked: list[dict] = []  # all
        self.taken: list[dict] = []  # with 200
        self.headers: dict[str, str] = {}
        self.over = threading.Event()

    def handle_error(self, *_: object) -> None:
        """Callers that were given no answer have gone."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: WebServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.headers = dict(self.headers)
        self.server.asked.append(body)
        status = self.server.answers.pop(0) if self.server.answers else 200
        if not status:
            self.server.over.wait(20)
            return
        if status == 200:
            self.server.taken.append(body)
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@contextlib.contextmanager
def web_server(port: int = 0, certificate: Path | None = None) -> Iterator[WebServer]:
    server = WebServer(port)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()


def numbers(taken: list[dict]) -> list[int]:
    """The ids of the events among what was posted."""
    return [posted["id"] for posted in taken if posted["kind"] == "event"]
