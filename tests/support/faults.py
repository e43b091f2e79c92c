"""Stores that fail on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fedcore.store.api import Store, Versioned


class Killed(BaseException):
    """The process died here: nothing catches this, as nothing catches ``kill -9``."""


def deaths(operations: Sequence[str], *, before: bool, every: int = 1) -> list[int]:
    """The operations to die at: before each ``every``-th, or after every one that writes. To die
    after a read leaves what dying before it does, and is not worth a run of its own."""
    if before:
        return list(range(0, len(operations), every))
    reads = ("get ", "exists ", "list ")
    return [at for at, name in enumerate(operations) if not name.startswith(reads)]


class FaultyStore:
    """Counts the operations on a store and raises at one of them.

    ``at``: the number of the operation, from 0. ``before``: raise instead of doing it, or after
    having done it (the answer was lost).
    """

    def __init__(
        self,
        store: Store,
        at: int,
        *,
        before: bool = True,
        fault: Callable[[str], BaseException] = Killed,
        forever: bool = False,
    ) -> None:
        self._store, self._at, self._before = store, at, before
        self._fault, self._forever = fault, forever
        self.operations: list[str] = []

    def _do(self, name: str, key: str, act: Callable[[], Any]) -> Any:
        number = len(self.operations)
        self.operations.append(f"{name} {key}")
        due = number == self._at or (self._forever and number > self._at)
        if due and self._before:
            raise self._fault(f"{name} {key}")
        try:
            return act()
        finally:
            if due:
                raise self._fault(f"{name} {key}")

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        return self._do("get", key, lambda: self._store.get(key, max_bytes=max_bytes))

    def get_versioned(self, key: str) -> Versioned:
        return self._do("get", key, lambda: self._store.get_versioned(key))

    def exists(self, key: str) -> bool:
        return self._do("exists", key, lambda: self._store.exists(key))

    def put(self, key: str, data: bytes) -> None:
        self._do("put", key, lambda: self._store.put(key, data))

    def create(self, key: str, data: bytes) -> bool:
        return self._do("create", key, lambda: self._store.create(key, data))

    def replace(self, key: str, data: bytes, version: str) -> bool:
        return self._do("replace", key, lambda: self._store.replace(key, data, version))

    def list(self, prefix: str = "") -> Iterator[str]:
        return self._do("list", prefix, lambda: self._store.list(prefix))

    def delete(self, key: str) -> None:
        self._do("delete", key, lambda: self._store.delete(key))
