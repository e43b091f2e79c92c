"""A clock for tests of waiting: nobody waits."""

from __future__ import annotations


class Clock:
    """Stands in for ``time``: it passes only while somebody sleeps, or the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
