"""The round's deadline, with a clock that the test winds."""

from __future__ import annotations

import pytest
import toy
from clock import Clock

from fedcore.records import ClientStatus
from fedcore.server import orders, replies
from fedcore.store.memory import MemoryStore

PLAN = toy.plan(timeouts={"round": 20, "idle": 5, "poll": 1})


class SlowStore(MemoryStore):
    """The first look for a reply takes ``seconds``; replies come ``late`` seconds after it."""

    def __init__(self, clock: Clock, seconds: float, late: float) -> None:
        super().__init__()
        self._clock, self._seconds, self._late = clock, seconds, late
        self._back: float | None = None

    def exists(self, key: str) -> bool:
        if not key.startswith("replies/"):
            return super().exists(key)
        if self._back is None:
            self._clock.now += self._seconds
            self._back = self._clock.now
        return self._clock.now >= self._back + self._late


@pytest.mark.parametrize(("away", "late", "dropped"), [(60, 15, False), (60, 25, True),
                                                       (0, 15, False), (0, 25, True)])  # fmt: skip
def test_an_outage_is_not_counted_against_the_sites(
    monkeypatch: pytest.MonkeyPatch, away: float, late: float, dropped: bool
) -> None:
    clock = Clock()
    monkeypatch.setattr(replies, "time", clock)
    run = toy.open_toy(SlowStore(clock, away, late), PLAN)
    asked = orders.train_orders(run, 0)
    absent = frozenset(toy.SITES)  # nobody answers but the store
    launcher = toy.InlineLauncher(MemoryStore(), toy.site_stores(), absent=absent)
    monkeypatch.setattr(launcher, "poll", lambda site: ClientStatus("running"))
    told = replies.await_replies(run, asked, launcher)
    assert set(told.values()) == ({"no reply within 20 s"} if dropped else set())
    assert clock.now <= away + 22
