"""Something between a client and its S3 service that breaks what passes through it."""

from __future__ import annotations

import http.client
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FULL = b"""<?xml version="1.0"?><Error><Code>XMinioStorageFull</Code>
<Message>Storage backend has reached its minimum free drive threshold.</Message></Error>"""


class Proxy(ThreadingHTTPServer):
    """Passes everything on, until told otherwise.

    ``full``: writes are answered as MinIO does when it has no room. ``forgetful``: the first write
    to each key is done, and the connection breaks before the answer.
    """

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urllib.parse.urlsplit(target).netloc
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.full = False
        self.forgetful = False
        self.forgotten: set[str] = set()


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"  # boto3 waits for 100 Continue

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.command == "PUT" and self.server.full:
            self.answer(507, {"Content-Type": "application/xml"}, FULL)
            return
        status, headers, answer = self.ask(body)
        first = self.command == "PUT" and self.path not in self.server.forgotten
        if self.server.forgetful and first:
            self.server.forgotten.add(self.path)
            self.close_connection = True
            return
        self.answer(status, headers, answer)

    def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.target, timeout=30)
        try:
            headers = {k: v for k, v in self.headers.items() if k not in ("Expect", "Connection")}
            connection.request(self.command, self.path, body or None, headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        size = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        dropped = ("Content-Length", "Connection", "Transfer-Encoding")
        for name, value in {k: v for k, v in headers.items() if k not in dropped}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", size)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = pass_on

    def log_message(self, *_: object) -> None: ...


@contextmanager
def before(endpoint: str) -> Iterator[Proxy]:
    """A proxy before the service at ``endpoint``, while the block runs."""
    with Proxy(endpoint) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
