"""Waiting for a store that has gone away: an outage costs its own time, and no more."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from fedcore.errors import PermanentError, StoreUnavailable
from fedcore.store.api import Store, Versioned

PATIENCE = 120.0
"""Seconds that a run waits for its store: enough for a restart, soon enough for a person."""

_PAUSE = 0.5

log = logging.getLogger("fedcore.store")
T = TypeVar("T")


class PatientStore:
    """Another Store; what it cannot do now is tried again until ``patience`` seconds are over.

    A store that never answered is not waited for, since its address may be wrong; ``trusted``
    says that it is right. Each call that has to wait says so once in the log.

    A write that was done and whose answer got lost is tried again too: ``create`` and ``replace``
    can say False although the bytes there are this writer's. They never say True for another's.
    """

    def __init__(self, store: Store, *, patience: float = PATIENCE, trusted: bool = False) -> None:
        self._store = store
        self._patience = patience
        self._answered = trusted

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        return self._ask(lambda: self._store.get(key, max_bytes=max_bytes))

    def get_versioned(self, key: str) -> Versioned:
        return self._ask(lambda: self._store.get_versioned(key))

    def exists(self, key: str) -> bool:
        return self._ask(lambda: self._store.exists(key))

    def put(self, key: str, data: bytes) -> None:
        self._ask(lambda: self._store.put(key, data))

    def create(self, key: str, data: bytes) -> bool:
        return self._ask(lambda: self._store.create(key, data))

    def replace(self, key: str, data: bytes, version: str) -> bool:
        return self._ask(lambda: self._store.replace(key, data, version))

    def list(self, prefix: str = "") -> Iterator[str]:
        return iter(self._ask(lambda: tuple(self._store.list(prefix))))

    def delete(self, key: str) -> None:
        self._ask(lambda: self._store.delete(key))

    def _ask(self, call: Callable[[], T]) -> T:
        try:
            answer = call()
        except StoreUnavailable as error:
            if not self._answered:
                raise
            return self._wait(call, error)
        except PermanentError:  # that the object is not there, say, is an answer
            self._answered = True
            raise
        self._answered = True
        return answer

    def _wait(self, call: Callable[[], T], error: StoreUnavailable) -> T:
        log.warning("waiting up to %g s for a store that is away: %s", self._patience, error)
        began = time.monotonic()
        while time.monotonic() - began < self._patience:
            time.sleep(_PAUSE)
            try:
                answer = call()
            except StoreUnavailable as again:
                error = again
            else:
                log.warning("the store answered after %.1f s", time.monotonic() - began)
                return answer
        raise StoreUnavailable(f"{error} (waited {self._patience:g} s)") from error
