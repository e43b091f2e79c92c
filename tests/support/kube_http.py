"""The wire: HTTP requests in, JSON, logs and watch streams out, with faults in between."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import select
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kube_access import Access
from kube_api import Api, Query, Reply, wanted
from kube_faults import Fault, Faults, Request, Requests
from kube_status import RESOURCES, ApiError, bad_request, failure, of_code
from kube_store import Errors, Object, Store, Subscription

_ROUTE = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/v1(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<subresource>[a-z]+))?"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_LOOK = 1.0
"""Seconds between two looks at whether an idle watch's client is still there."""


class Cut(Exception):
    """The connection breaks: in mid-stream, or instead of an answer."""


class Server(ThreadingHTTPServer):
    """What all connections share, and the connections themselves, so that they can be cut."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(
        self, port: int, store: Store, api: Api, access: Access, faults: Faults,
        requests: Requests, bookmarks: float, errors: Errors,
    ) -> None:  # fmt: skip
        super().__init__(("127.0.0.1", port), _Connection)
        self.store, self.api, self.access = store, api, access
        self.faults, self.requests, self.bookmarks = faults, requests, bookmarks
        self.closing = threading.Event()
        self.errors = errors
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._watches: dict[Subscription, Request] = {}
        threading.Thread(
            target=self.serve_forever, args=(0.05,), daemon=True, name="kube-api"
        ).start()

    def watches(self, namespace: str | None = None, resource: str | None = None) -> list[
        Subscription
    ]:  # fmt: skip
        """The streams that are open now."""
        with self._lock:
            return [
                reader
                for reader, request in self._watches.items()
                if namespace in (None, request.namespace) and resource in (None, request.path)
            ]

    @contextlib.contextmanager
    def watching(self, reader: Subscription, request: Request) -> Iterator[None]:
        """Count a stream as open."""
        with self._lock:
            self._watches[reader] = request
        try:
            yield
        finally:
            with self._lock:
                del self._watches[reader]

    def stop(self) -> None:
        """Refuse new connections and cut those there are."""
        self.closing.set()
        self.shutdown()
        self.server_close()
        for reader in self.watches():
            reader.events.put(Cut())
        with self._lock:
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is a client's or a test's will."""


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        try:
            self._route(url.path, query, raw)
        except ApiError as error:
            self._refuse(error)
        except (Cut, OSError):  # by a fault, or the client has gone
            self._cut()
        except Exception as error:
            self.server.errors.append(error)
            self._refuse(failure(500, "InternalError", f"the stand-in is wrong: {error!r}"))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _route(self, path: str, query: Query, raw: bytes) -> None:
        if path in ("/livez", "/readyz", "/healthz", "/version"):
            version = {"major": "1", "minor": "36", "gitVersion": "v1.36.2"}
            return self._send(Reply(version if path == "/version" else b"ok"))
        match = _ROUTE.fullmatch(path)
        resource = RESOURCES.get(match["plural"]) if match else None
        if match is None or resource is None or (match["group"] or "") != resource.group:
            message = "the server could not find the requested resource"
            raise failure(404, "NotFound", message, {})
        named = match["name"] or ""
        verb = _VERBS.get(self.command) or _read_verb(self.command, named, query)
        request = Request(
            verb, resource, match["subresource"] or "", match["namespace"] or "", named
        )
        self.server.requests.add(request)
        fault = self.server.faults.take(request)
        if fault is not None and fault.kind in ("status", "hang", "reset"):
            self._suffer(fault)
        user = self.server.access.user(self.headers.get("Authorization"))
        self.server.access.check(user, request)
        if verb == "watch":
            return self._watch(request, query, fault)
        body: Object = json.loads(raw) if raw else {}
        reply = self.server.api.answer(user, request, query, body)
        if fault is not None and fault.kind == "lost":
            raise Cut
        return self._send(reply)

    def _suffer(self, fault: Fault) -> None:
        if fault.kind == "status":
            raise of_code(fault.code, fault.retry_after)
        if fault.kind == "reset":
            raise Cut
        while not (fault.over.is_set() or self.server.closing.is_set()):
            if self._client_left(0.05):
                raise Cut

    def _client_left(self, seconds: float = 0.0) -> bool:
        poll = select.poll()  # select() cannot watch the 1025th descriptor
        poll.register(self.connection, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _send(self, reply: Reply) -> None:
        text = isinstance(reply.body, bytes)
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self._head(reply.code, "text/plain" if text else "application/json", reply.headers)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, error: ApiError) -> None:
        if error.code == 429:  # API Priority and Fairness answers in plain text
            text = f"{error}\n".encode()
            return self._send(Reply(text, 429, error.headers))
        return self._send(Reply(error.status, error.code, error.headers))

    def _head(self, code: int, content_type: str, headers: dict[str, str]) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        for name, value in headers.items():
            self.send_header(name, value)

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _watch(self, request: Request, query: Query, fault: Fault | None) -> None:
        given = query.get("resourceVersion") or "0"
        if not given.isdigit():
            raise bad_request(f"invalid resource version: resourceVersion: {given}")
        since = int(given) or None
        self._head(200, "application/json", {"Transfer-Encoding": "chunked"})
        self.end_headers()
        try:
            reader = self.server.store.watch(request.resource, request.namespace, since)
        except ApiError as error:  # as the real one: the stream begins, and is this one event
            self._chunk([{"type": "ERROR", "object": error.status}])
            return self._chunk([])
        if fault is not None and fault.kind == "gone":
            reader.events.put(of_code(410))
        drop_after = fault.after if fault is not None and fault.kind == "drop" else None
        try:
            with self.server.watching(reader, request):
                self._stream(reader, query, drop_after)
        finally:
            self.server.store.unwatch(reader)
        return self._chunk([])

    def _stream(self, reader: Subscription, query: Query, drop_after: int | None) -> None:
        end = time.monotonic() + (float(query.get("timeoutSeconds") or 0) or 3600.0)
        marks = self.server.bookmarks if query.get("allowWatchBookmarks") == "true" else 1e9
        marked, sent = time.monotonic(), 0
        while (left := end - time.monotonic()) > 0:
            if drop_after is not None and sent >= drop_after:
                self._half_an_event()
            if time.monotonic() >= marked + marks:
                mark = self._bookmark(reader)
                if reader.events.empty():  # it must not run ahead of what is still to be sent
                    marked = time.monotonic()
                    self._chunk([mark])
            try:
                event = reader.events.get(timeout=max(0.0, min(left, marks, _LOOK)))
            except queue.Empty:
                if self._client_left():
                    raise Cut from None
                continue
            if event is None:
                return
            if isinstance(event, ApiError):
                self._chunk([{"type": "ERROR", "object": event.status}])
                return
            if isinstance(event, BaseException):
                self._half_an_event()
            elif wanted(event.object, query):
                self._chunk([{"type": event.kind, "object": event.object}])
                sent += 1

    def _bookmark(self, reader: Subscription) -> Object:
        resource = reader.resource
        kind = {"kind": resource.kind, "apiVersion": resource.api_version}
        meta = {"resourceVersion": str(self.server.store.version)}
        return {"type": "BOOKMARK", "object": {**kind, "metadata": meta}}

    def _half_an_event(self) -> None:
        self.wfile.write(b'400\r\n{"type":"MODIFIED","object":{"kind"')
        raise Cut

    def _chunk(self, events: Iterable[Object]) -> None:
        """One chunk of the stream; no events: its end."""
        data = b"".join(json.dumps(event).encode() + b"\n" for event in events)
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


def _read_verb(method: str, name: str, query: Query) -> str:
    if method == "DELETE":
        return "delete" if name else "deletecollection"
    if name:
        return "get"
    return "watch" if query.get("watch") in ("true", "1", "True") else "list"
