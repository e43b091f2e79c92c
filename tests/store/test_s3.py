import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import NoCredentialsError, SSLError
from botocore.parsers import ResponseParserError
from botocore.response import StreamingBody
from botocore.stub import Stubber

from fedcore.errors import (
    AccessDenied,
    BlobError,
    ConfigError,
    FedcoreError,
    NotFound,
    StoreUnavailable,
)
from fedcore.local.ports import choose
from fedcore.store.s3 import S3Store, connect

KEYS = {"access_key": "key", "secret_key": "secret"}


@pytest.fixture
def stubbed() -> Iterator[tuple[S3Store, Stubber]]:
    client = boto3.client(
        "s3", region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
    with Stubber(client) as stubber:
        yield S3Store("exchange", client), stubber


@contextmanager
def serving(status: int, body: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server that always answers so; its URL, and the requests that it got."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            requests.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = answer

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "expected", "way_out"),
    [
        (404, "NoSuchKey", NotFound, "no such object"),
        (404, "NoSuchBucket", ConfigError, "create the bucket"),
        (403, "AccessDenied", AccessDenied, "may not do this"),
        (403, "InvalidAccessKeyId", AccessDenied, "correct the credential"),
        (403, "SignatureDoesNotMatch", AccessDenied, "correct the credential"),
        (403, "RequestTimeTooSkewed", AccessDenied, "clock"),
        (400, "ExpiredToken", AccessDenied, "correct the credential"),
        (301, "PermanentRedirect", ConfigError, "region"),
        (400, "AuthorizationHeaderMalformed", ConfigError, "region"),
        (400, "RequestTimeout", StoreUnavailable, "try again"),
        (429, "TooManyRequests", StoreUnavailable, "try again"),
        (500, "InternalError", StoreUnavailable, "its disk full; see its log, and try again"),
        (501, "NotImplemented", ConfigError, "conditional writes"),
        (503, "SlowDown", StoreUnavailable, "try again"),
        (507, "XMinioStorageFull", StoreUnavailable, "no room left; free some and try again"),
        (403, "QuotaExceeded", StoreUnavailable, "no room left; free some and try again"),
        (400, "EntityTooLarge", ConfigError, "EntityTooLarge"),
    ],
)
@pytest.mark.parametrize("action", ["get", "put", "create", "replace", "list", "delete"])
def test_each_refusal_has_its_meaning(
    stubbed: tuple[S3Store, Stubber],
    action: str,
    status: int,
    code: str,
    expected: type[FedcoreError],
    way_out: str,
) -> None:
    store, stubber = stubbed
    operations = {"get": "get_object", "list": "list_objects_v2", "delete": "delete_object"}
    stubber.add_client_error(operations.get(action, "put_object"), code, "so", status)
    attempts = {
        "get": lambda: store.get("orders/north/1"),
        "put": lambda: store.put("orders/north/1", b""),
        "create": lambda: store.create("orders/north/1", b""),
        "replace": lambda: store.replace("orders/north/1", b"", "version"),
        "list": lambda: list(store.list("orders/north/1")),
        "delete": lambda: store.delete("orders/north/1"),
    }
    if (action, code) == ("replace", "NoSuchKey"):
        assert attempts[action]() is False
        return
    with pytest.raises(expected, match=way_out) as caught:
        attempts[action]()
    assert type(caught.value) is expected
    assert "bucket exchange, key orders/north/1" in str(caught.value)


def test_a_lost_condition_is_no_error(stubbed: tuple[S3Store, Stubber]) -> None:
    store, stubber = stubbed
    stubber.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
    stubber.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
    stubber.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)
    assert not store.create("key", b"")
    assert not store.replace("key", b"", "version")
    assert not store.replace("key", b"", "version")


def test_a_collision_without_a_winner_can_be_tried_again(
    stubbed: tuple[S3Store, Stubber],
) -> None:
    store, stubber = stubbed
    stubber.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)
    stubber.add_response("head_object", {})
    assert not store.create("key", b"")
    stubber.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)
    stubber.add_client_error("head_object", "404", http_status_code=404)
    with pytest.raises(StoreUnavailable, match="try again"):
        store.create("key", b"")


def test_too_large_is_not_read(stubbed: tuple[S3Store, Stubber]) -> None:
    store, stubber = stubbed
    raw = io.BytesIO(bytes(100))
    body = StreamingBody(raw, 100)
    stubber.add_response("get_object", {"Body": body, "ContentLength": 100, "ETag": "e"})
    with pytest.raises(BlobError, match="100 bytes; at most 99"):
        store.get("key", max_bytes=99)
    assert raw.closed


def test_a_body_that_breaks_off_is_temporary(stubbed: tuple[S3Store, Stubber]) -> None:
    store, stubber = stubbed
    body = StreamingBody(io.BytesIO(bytes(50)), 100)
    stubber.add_response("get_object", {"Body": body, "ContentLength": 100, "ETag": "e"})
    with pytest.raises(StoreUnavailable, match="key key"):
        store.get("key")


@pytest.mark.parametrize(
    ("error", "expected", "way_out"),
    [
        (NoCredentialsError(), AccessDenied, "give keys or a profile"),
        (SSLError(endpoint_url="https://s3", error="self-signed"), ConfigError, "ca_bundle"),
        (ResponseParserError("not XML"), ConfigError, "is there an S3 service"),
    ],
)
def test_each_failure_to_connect_has_its_way_out(
    monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[FedcoreError], way_out: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    store = connect(bucket="b", endpoint="https://s3.test", **KEYS)
    monkeypatch.setattr("botocore.endpoint.Endpoint.make_request", fail)
    with pytest.raises(expected, match=way_out):
        store.get("key")


@pytest.mark.parametrize("action", ["get", "put", "create", "replace", "exists", "list", "delete"])
def test_a_closed_port_is_temporary_and_noticed_soon(action: str) -> None:
    store = connect(bucket="b", endpoint=f"http://127.0.0.1:{choose(1)[0]}", **KEYS)
    data = {"put": (b"",), "create": (b"",), "replace": (b"", "version")}
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="is the service up"):
        getattr(store, action)("key", *data.get(action, ()))
    assert time.monotonic() - began < 10


def test_a_server_in_trouble_is_asked_a_few_times() -> None:
    with serving(500, b"") as (url, requests):
        store = connect(bucket="b", endpoint=url, **KEYS)
        with pytest.raises(StoreUnavailable):
            store.put("key", b"data")
    assert requests == ["/b/key"] * 3


@pytest.mark.parametrize("wrong", [{"endpoint": "s3.hospital"}, {"profile": "no-such-profile"}])
def test_what_cannot_be_connected_to_is_named(
    wrong: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=next(iter(wrong.values()))):
        connect(bucket="b", **wrong)


def test_an_impossible_bucket_is_named() -> None:
    store = connect(bucket="No Bucket!", endpoint="http://127.0.0.1:9", **KEYS)
    with pytest.raises(ConfigError, match="No Bucket!"):
        store.get("key")


def test_loopback_is_not_asked_of_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{choose(1)[0]}")
    with serving(404, b"") as (url, requests):
        assert not connect(bucket="b", endpoint=url, **KEYS).exists("key")
    assert requests == ["/b/key"]


def test_addresses_are_path_or_host_style() -> None:
    def url(path_style: bool) -> str:
        store = connect(bucket="buck", endpoint="http://s3.test", path_style=path_style, **KEYS)
        return store._client.generate_presigned_url(
            "get_object", Params={"Bucket": "buck", "Key": "key"}
        )

    assert url(path_style=True).startswith("http://s3.test/buck/key?")
    assert url(path_style=False).startswith("http://buck.s3.test/key?")
