"""What goes wrong between a client and the API server, and the count of what was asked."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from kube_status import Resource

Kind = Literal["status", "hang", "reset", "lost", "drop", "gone"]


@dataclass(frozen=True)
class Request:
    """A request as authorisation sees it."""

    verb: str
    resource: Resource
    subresource: str
    namespace: str
    name: str

    @property
    def path(self) -> str:
        """``jobs``, ``pods/log``: how rules and counts name it."""
        plural = self.resource.plural
        return f"{plural}/{self.subresource}" if self.subresource else plural


@dataclass(eq=False)
class Fault:
    """Meets the requests that fit ``verb``, ``resource`` and ``namespace`` (None: any).

    ``times``: how many; None: all, until ``seconds`` have passed or ``lift``. Used as a context
    manager it ends with the block. ``after``: events that a watch still gets before it drops.
    """

    kind: Kind
    code: int = 0
    retry_after: int | None = None
    verb: str | None = None
    resource: str | None = None
    namespace: str | None = None
    times: int | None = None
    seconds: float | None = None
    after: int = 0
    hits: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    _begun: float = field(default_factory=time.monotonic)

    def meets(self, request: Request) -> bool:
        """Whether it is this request's turn."""
        if self.over.is_set() or (self.times is not None and self.hits >= self.times):
            return False
        if self.seconds is not None and time.monotonic() > self._begun + self.seconds:
            return False
        return (
            self.verb in (None, request.verb)
            and self.resource in (None, request.path)
            and self.namespace in (None, request.namespace)
        )

    def lift(self) -> None:
        """End it; whoever hangs goes on."""
        self.over.set()

    def __enter__(self) -> Fault:
        return self

    def __exit__(self, *_: object) -> None:
        self.lift()


class Faults:
    """Those that are set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Set one; the first one set that fits a request meets it."""
        with self._lock:
            self._set = [other for other in self._set if not other.over.is_set()] + [fault]
        return fault

    def take(self, request: Request) -> Fault | None:
        """The fault that this request meets, if any."""
        with self._lock:
            for fault in self._set:
                if fault.meets(request):
                    fault.hits += 1
                    return fault
        return None

    def clear(self) -> None:
        """Lift all."""
        with self._lock:
            for fault in self._set:
                fault.lift()


class Requests:
    """How often what was asked, answered or not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def add(self, request: Request) -> None:
        """One more."""
        with self._lock:
            self._counts[request.verb, request.path, request.namespace] += 1

    def count(
        self,
        verb: str | None = None,
        resource: str | None = None,
        namespace: str | None = None,
    ) -> int:
        """How many fit (None: any); ``resource`` as in rules: ``jobs``, ``pods/log``."""
        wanted = (verb, resource, namespace)
        return sum(
            number
            for asked, number in self.by().items()
            if all(want in (None, have) for want, have in zip(wanted, asked, strict=True))
        )

    def by(self) -> Counter[tuple[str, str, str]]:
        """Requests by (verb, resource, namespace)."""
        with self._lock:
            return Counter(self._counts)

    def reset(self) -> None:
        """Begin anew."""
        with self._lock:
            self._counts.clear()
