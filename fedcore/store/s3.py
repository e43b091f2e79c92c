"""A Store in a bucket of any S3 service: AWS, MinIO, Ceph, SeaweedFS."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from fedcore.errors import (
    AccessDenied,
    BlobError,
    ConfigError,
    FedcoreError,
    NotFound,
    StoreUnavailable,
)
from fedcore.store.api import Versioned

_CONNECTIONS = 32
_BAD_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken",
             "TokenRefreshRequired", "RequestTimeTooSkewed"}  # fmt: skip
_WRONG_PLACE = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed",
                "IllegalLocationConstraintException"}  # fmt: skip
_BUSY = {"RequestTimeout", "OperationAborted"}
_FULL = {"XMinioStorageFull", "QuotaExceeded"}
_ABSENT = {"NoSuchKey", "404", "NotFound"}
_LOST = {"PreconditionFailed", "412"}
_COLLISION = "ConditionalRequestConflict"


class S3Store:
    """Objects of one bucket whose keys begin with ``prefix``. Threads may share one.

    One request writes one object, so an object has at most 5 GB, S3's own limit for that.

    A conditional write whose answer got lost is sent again by boto3, and then finds the object
    that it wrote itself: ``create`` and ``replace`` can say False although the bytes there are
    this writer's. They never say True for another's.
    """

    def __init__(self, bucket: str, client: Any, prefix: str = "") -> None:
        self._bucket = bucket
        self._client = client
        self._prefix = prefix

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        return self._get(key, max_bytes).data

    def get_versioned(self, key: str) -> Versioned:
        return self._get(key, None)

    def exists(self, key: str) -> bool:
        try:
            with self._speaking_of(key):
                self._client.head_object(**self._place(key))
        except NotFound:
            return False
        return True

    def put(self, key: str, data: bytes) -> None:
        with self._speaking_of(key):
            self._client.put_object(**self._place(key), Body=data)

    def create(self, key: str, data: bytes) -> bool:
        with self._speaking_of(key):
            try:
                self._client.put_object(**self._place(key), Body=data, IfNoneMatch="*")
            except ClientError as error:
                if _code(error) == _COLLISION:  # another write is under way, and may yet fail
                    return self._lost_collision(key)
                if _code(error) in _LOST:
                    return False
                raise
        return True

    def replace(self, key: str, data: bytes, version: str) -> bool:
        with self._speaking_of(key):
            try:
                self._client.put_object(**self._place(key), Body=data, IfMatch=version)
            except ClientError as error:
                if _code(error) in _LOST | _ABSENT | {_COLLISION}:
                    return False
                raise
        return True

    def list(self, prefix: str = "") -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2")
        with self._speaking_of(prefix):
            found = [
                entry["Key"].removeprefix(self._prefix)
                for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
                for entry in page.get("Contents", ())
            ]
        return iter(sorted(found))  # SeaweedFS lists folder by folder, in another order than S3

    def delete(self, key: str) -> None:
        with self._speaking_of(key):
            self._client.delete_object(**self._place(key))

    def on(self, bucket: str) -> S3Store:
        """Another bucket, with the same credential and connections."""
        return S3Store(bucket, self._client, self._prefix)

    def create_bucket(self) -> None:
        """Make the bucket, if the credential may and it is not there yet."""
        with self._speaking_of(""):
            try:
                self._client.create_bucket(Bucket=self._bucket)
            except ClientError as error:
                if _code(error) not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _get(self, key: str, max_bytes: int | None) -> Versioned:
        with self._speaking_of(key):
            answer = self._client.get_object(**self._place(key))
            size = answer["ContentLength"]
            with closing(answer["Body"]) as body:
                if max_bytes is not None and size > max_bytes:
                    raise BlobError(f"{key} has {size} bytes; at most {max_bytes} are accepted")
                return Versioned(body.read(), answer["ETag"])

    def _lost_collision(self, key: str) -> bool:
        if self.exists(key):
            return False
        raise StoreUnavailable(f"two writers of {key!r} collided and neither won; try again")

    @contextmanager
    def _speaking_of(self, key: str) -> Iterator[None]:
        """Whatever boto3 raises in this block, as an error of fedcore that names the object."""
        where = f"{self._client.meta.endpoint_url}, bucket {self._bucket}, key {self._prefix + key}"
        try:
            yield
        except ClientError as error:
            raise _refused(error, where) from error
        except (BotoCoreError, ResponseParserError) as error:
            raise _unanswered(error, where) from error


def connect(
    *,
    bucket: str,
    endpoint: str | None = None,
    region: str = "us-east-1",
    access_key: str | None = None,
    secret_key: str | None = None,
    profile: str | None = None,
    path_style: bool = True,
    ca_bundle: Path | None = None,
    prefix: str = "",
) -> S3Store:
    """A store on ``bucket`` at ``endpoint`` (None = AWS); nothing is sent yet.

    Without keys, boto3's own chain serves: ``profile``, environment, instance or web identity.
    Raises ConfigError if the endpoint is no URL or there is no such profile.
    """
    try:
        session = boto3.Session(profile_name=profile)
        client = session.client(
            "s3",
            endpoint_url=endpoint,
            region_name=region,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            verify=str(ca_bundle) if ca_bundle is not None else None,
            config=_config(endpoint, path_style),
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"S3 endpoint {endpoint}, profile {profile}: {error}") from error
    return S3Store(bucket, client, prefix)


def _config(endpoint: str | None, path_style: bool) -> Any:
    """A dead service is noticed in seconds; checksums stay at what every S3 service knows."""
    host = urllib.parse.urlsplit(endpoint or "").hostname
    return Config(
        connect_timeout=5,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=_CONNECTIONS,
        s3={"addressing_style": "path" if path_style else "virtual"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        proxies={} if host in ("127.0.0.1", "localhost", "::1") else None,
    )


def _code(error: ClientError) -> str:
    return str(error.response["Error"].get("Code", ""))


def _refused(error: ClientError, where: str) -> FedcoreError:
    """What an answer of the service means, and the way out."""
    status = int(error.response["ResponseMetadata"]["HTTPStatusCode"])
    code = _code(error)
    meanings: tuple[tuple[bool, type[FedcoreError], str], ...] = (
        (code == "NoSuchBucket", ConfigError, "create the bucket, or correct its name"),
        (code in _WRONG_PLACE or status in (301, 307, 308), ConfigError,
         "correct the region or the endpoint"),
        (status == 507 or code in _FULL, StoreUnavailable,
         "the service has no room left; free some and try again"),
        (code in _BAD_KEYS or status == 401, AccessDenied,
         "correct the credential, or this machine's clock"),
        (status == 403, AccessDenied,
         "the credential may not do this (without the right to list, some services say so of an "
         "object that is not there)"),
        (status == 404, NotFound, "there is no such object"),
        (status == 501, ConfigError, "fedcore needs a service with conditional writes"),
        (status in (408, 429, 503) or code in _BUSY, StoreUnavailable, "try again"),
        (status >= 500, StoreUnavailable,
         "the service has a fault, or its disk full; see its log, and try again"),
    )  # fmt: skip
    for applies, kind, way_out in meanings:
        if applies:
            return kind(f"{where}: {error}; {way_out}")
    return ConfigError(f"{where}: {error}")


def _unanswered(error: Exception, where: str) -> FedcoreError:
    """What it means that there was no answer, or none that S3 would give."""
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)):
        return AccessDenied(f"{where}: {error}; give keys or a profile")
    if isinstance(error, SSLError):
        return ConfigError(f"{where}: {error}; name the service's authority as ca_bundle")
    if isinstance(error, (ConnectionError, HTTPClientError, IncompleteReadError)):
        return StoreUnavailable(f"{where}: {error}; is the service up, and the endpoint right?")
    return ConfigError(f"{where}: {error}; is there an S3 service at this endpoint?")
