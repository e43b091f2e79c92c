"""The one protocol through which fedcore reaches objects, whoever stores them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol


class Versioned(NamedTuple):
    """An object's bytes and the version (ETag) that ``replace`` compares with."""

    data: bytes
    version: str


class Store(Protocol):
    """A flat namespace of objects: keys are ``/``-separated, without a leading slash.

    Every method raises ``StoreUnavailable`` when the service does not answer or is full (after
    its own short retries) and ``AccessDenied`` when the credential may not do this. A write is
    atomic: readers see the old object or the new one, never a part.
    """

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """The object's bytes. Raises NotFound; BlobError if larger than ``max_bytes`` (unread)."""

    def get_versioned(self, key: str) -> Versioned:
        """The object's bytes and version. Raises NotFound."""

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""

    def put(self, key: str, data: bytes) -> None:
        """Write, replacing what was there."""

    def create(self, key: str, data: bytes) -> bool:
        """Write if absent. False, and nothing written, if the key is there already."""

    def replace(self, key: str, data: bytes, version: str) -> bool:
        """Write if the object still has ``version``. False, and nothing written, otherwise."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """The keys that start with ``prefix``, sorted."""

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""
