"""Work for several processes, and how many fit: what this one may use, not what the machine has."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from fedcore.errors import ServiceUnavailable

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class Call(Protocol):
    """``call(f, *args)`` is ``f(*args)``, wherever that is worked out."""

    def __call__(self, act: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> T: ...


class Workers:
    """Calls functions in ``number`` processes; with 1 in the caller's own. Of any thread.

    They are handed values and hand back values: no credential, no store. A process starts with the
    first call. ``otherwise``: what to do where one is killed, for the message.
    """

    def __init__(self, number: int, otherwise: str) -> None:
        self.number, self._otherwise = number, otherwise
        self._pool: ProcessPoolExecutor | None = None
        self._starting = threading.Lock()

    def __call__(self, act: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> T:
        """Raises what ``act`` raises, and ServiceUnavailable where a process was killed."""
        if self.number == 1:
            return act(*args, **named)
        with self._starting:
            if self._pool is None:
                self._pool = ProcessPoolExecutor(self.number, mp_context=get_context("spawn"))
        try:
            return self._pool.submit(act, *args, **named).result()
        except BrokenProcessPool as error:
            raise ServiceUnavailable(
                f"a worker process was killed, most likely for memory: {self._otherwise}"
            ) from error

    def each(self, act: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """``act`` of every item, in their order, in threads that keep the processes busy."""
        if self.number == 1:
            yield from map(act, items)
            return
        with ThreadPoolExecutor(self.number + 1) as threads:
            yield from threads.map(act, items)

    def close(self, *, cancel: bool = False) -> None:
        """Wait for what is being worked on; ``cancel``: and drop what waits."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=cancel)


def cpus(quota: Path = _QUOTA) -> int:
    """Whole CPUs that this process may use, at least 1: its affinity, and its pod's limit.

    A Job with ``cpu: 2`` on a node of 64 sees 64; what it may use is in the cgroup (version 2).
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        most, period = quota.read_text(encoding="ascii").split()
        limit = int(most) // int(period)
    except (OSError, ValueError):  # no cgroup of version 2, or "max"
        return allowed or 1
    return max(1, min(allowed or 1, limit))
