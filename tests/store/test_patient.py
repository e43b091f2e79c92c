"""Waiting for a store, with a clock that the test winds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from clock import Clock
from faults import FaultyStore

from fedcore.errors import NotFound, StoreUnavailable
from fedcore.store import patient
from fedcore.store.api import Store, Versioned
from fedcore.store.memory import MemoryStore
from fedcore.store.patient import PatientStore


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(patient, "time", made)
    return made


class Away:
    """A store that is away until the clock says ``until``."""

    def __init__(self, clock: Clock, until: float) -> None:
        self._store, self._clock, self._until = MemoryStore(), clock, until
        self._store.put("key", b"1")

    def __getattr__(self, name: str) -> Any:
        if self._clock.now < self._until:
            raise StoreUnavailable("it is away")
        return getattr(self._store, name)


CALLS: dict[str, Callable[[Store], Any]] = {
    "get": lambda store: store.get("key"),
    "get_versioned": lambda store: store.get_versioned("key").data,
    "exists": lambda store: store.exists("key"),
    "put": lambda store: store.put("key", b"2"),
    "create": lambda store: store.create("new", b"2"),
    "replace": lambda store: store.replace("key", b"2", "another version"),
    "list": lambda store: list(store.list()),
    "delete": lambda store: store.delete("key"),
}
ANSWERS = {"get": b"1", "get_versioned": b"1", "exists": True, "put": None, "create": True,
           "replace": False, "list": ["key"], "delete": None}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_an_outage_costs_its_own_time_and_no_more(clock: Clock, name: str) -> None:
    store = PatientStore(Away(clock, until=60), trusted=True)
    assert CALLS[name](store) == ANSWERS[name]
    assert 60 <= clock.now < 62


@pytest.mark.parametrize("name", CALLS)
def test_patience_ends(clock: Clock, name: str) -> None:
    store = PatientStore(Away(clock, until=1000), trusted=True, patience=20)
    with pytest.raises(StoreUnavailable, match=r"it is away \(waited 20 s\)"):
        CALLS[name](store)
    assert 20 <= clock.now < 22


def test_what_never_answered_is_not_waited_for(clock: Clock) -> None:
    with pytest.raises(StoreUnavailable, match="it is away"):
        PatientStore(Away(clock, until=1)).get("key")
    assert clock.now == 0


@pytest.mark.parametrize("key", ["key", "absent"])
def test_once_it_answered_it_is_waited_for(clock: Clock, key: str) -> None:
    """Even if the answer was no."""
    away = Away(clock, until=-1)
    store = PatientStore(away)
    try:
        store.get(key)
    except NotFound:
        assert key == "absent"
    away._until = 5.0
    assert store.get("key") == b"1"
    assert clock.now >= 5


def test_what_is_no_outage_is_raised_while_waiting(clock: Clock) -> None:
    store = PatientStore(Away(clock, until=5), trusted=True)
    with pytest.raises(NotFound):
        store.get("absent")
    assert 5 <= clock.now < 7


def test_the_wait_and_its_end_are_in_the_log(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fedcore.store"):
        PatientStore(Away(clock, until=3), trusted=True).exists("key")
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "waiting up to 120 s for a store that is away: it is away",
        "the store answered after 3.0 s",
    ]


@pytest.mark.parametrize("name", ["create", "replace"])
def test_a_write_whose_answer_was_lost_finds_itself(clock: Clock, name: str) -> None:
    inner = MemoryStore()
    inner.put("old", b"1")
    faulty = FaultyStore(inner, at=0, before=False, fault=StoreUnavailable)
    store = PatientStore(faulty, trusted=True)
    found: Versioned = inner.get_versioned("old")
    if name == "create":
        assert not store.create("new", b"2")
        assert inner.get("new") == b"2"
    else:
        assert not store.replace("old", b"2", found.version)
        assert inner.get("old") == b"2"
