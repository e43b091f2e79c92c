"""The in-memory twin of a Store, for tests and notebooks."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator

from fedcore.errors import BlobError, NotFound
from fedcore.store.api import Versioned


class MemoryStore:
    """A Store in a dictionary. Safe to use from several threads."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        data = self.get_versioned(key).data
        if max_bytes is not None and len(data) > max_bytes:
            raise BlobError(f"{key} has {len(data)} bytes; at most {max_bytes} are accepted")
        return data

    def get_versioned(self, key: str) -> Versioned:
        try:
            data = self._objects[key]
        except KeyError:
            raise NotFound(f"there is no object {key!r}") from None
        return Versioned(data, _version(data))

    def exists(self, key: str) -> bool:
        return key in self._objects

    def put(self, key: str, data: bytes) -> None:
        with self._lock:
            self._objects[key] = bytes(data)

    def create(self, key: str, data: bytes) -> bool:
        with self._lock:
            if key in self._objects:
                return False
            self._objects[key] = bytes(data)
            return True

    def replace(self, key: str, data: bytes, version: str) -> bool:
        with self._lock:
            if key not in self._objects or _version(self._objects[key]) != version:
                return False
            self._objects[key] = bytes(data)
            return True

    def list(self, prefix: str = "") -> Iterator[str]:
        return iter(sorted(key for key in self._objects if key.startswith(prefix)))

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(key, None)


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
