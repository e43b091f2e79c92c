"""The egress record: what is in it cannot be changed unnoticed, whoever writes to it and when."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from faults import FaultyStore, Killed

from fedcore.errors import OrderRefused
from fedcore.store.egress import Departure, Egress, check
from fedcore.store.envelope import public_text
from fedcore.store.memory import MemoryStore

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
FOLDER = "derivatives/fedcore/egress/"


def departure(place: str = "a", content: str = "said") -> Departure:
    return Departure("run-1", 0, "ClientUpdate", place, 3, f"sha of {content}", content)


def place(number: int) -> str:
    return f"{FOLDER}{number:010d}.json"


@pytest.fixture
def store() -> MemoryStore:
    """A record with four entries, signed."""
    store = MemoryStore()
    egress = Egress(store, KEY, "the board")
    for name in "abcd":
        egress.note(departure(name))
    return store


def test_what_was_noted_is_there_in_order(store: MemoryStore) -> None:
    checked = check(store)
    assert checked.fault is None
    assert [entry.destination for entry in checked.entries] == list("abcd")
    assert [entry.number for entry in checked.entries] == [1, 2, 3, 4]
    assert {entry.approver for entry in checked.entries} == {"the board"}
    assert checked.signers == {public_text(KEY)}
    assert check(MemoryStore()).entries == []


@pytest.mark.parametrize("field", ["bytes", "destination", "approver", "epsilon"])
def test_a_changed_entry_is_named(store: MemoryStore, field: str) -> None:
    file = json.loads(store.get(place(2)))
    entry = json.loads(file["entry"])
    file["entry"] = json.dumps({**entry, field: 1 if field in ("bytes", "epsilon") else "x"})
    store.put(place(2), json.dumps(file).encode())
    checked = check(store)
    assert checked.fault == "entry 2: it was changed after it was signed"
    assert len(checked.entries) == 1, "what is sound before it is told"


def test_a_change_without_signatures_breaks_the_chain() -> None:
    store = MemoryStore()
    egress = Egress(store)
    for name in "abc":
        egress.note(departure(name))
    file = json.loads(store.get(place(2)))
    file["entry"] = file["entry"].replace('"bytes": 3', '"bytes": 2')
    store.put(place(2), json.dumps(file).encode())
    assert check(store).fault == "entry 3: it does not follow from the one before"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_removed_entry_is_named(store: MemoryStore, number: int) -> None:
    store.delete(place(number))
    assert check(store).fault == f"entry {number}: it was removed"


def test_removed_and_closed_up(store: MemoryStore) -> None:
    store.put(place(2), store.get(place(3)))
    store.put(place(3), store.get(place(4)))
    store.delete(place(4))
    assert check(store).fault == "entry 2: it is entry 3, moved"


def test_exchanged(store: MemoryStore) -> None:
    second, third = store.get(place(2)), store.get(place(3))
    store.put(place(2), third)
    store.put(place(3), second)
    assert check(store).fault == "entry 2: it is entry 3, moved"


def test_replaced_by_one_of_another_record_of_the_same_key(store: MemoryStore) -> None:
    other = MemoryStore()
    egress = Egress(other, KEY)
    for name in "xyz":
        egress.note(departure(name))
    store.put(place(2), other.get(place(2)))
    assert check(store).fault == "entry 2: it does not follow from the one before"


def test_rewritten_from_some_entry_on_without_the_key(store: MemoryStore) -> None:
    for number in (3, 4):
        store.delete(place(number))
    Egress(store).note(departure("other"))
    assert check(store).fault == "entry 3: it is not signed"


def test_rewritten_whole_with_another_key_or_none() -> None:
    for key in (Ed25519PrivateKey.generate(), None):
        forged = MemoryStore()
        Egress(forged, key).note(departure())
        assert check(forged).fault is None, "by itself it is a record"
        fault = check(forged, [public_text(KEY)]).fault
        assert fault is not None
        assert "not signed" in fault or "no identity of the site" in fault


def test_a_cut_off_end_shows_in_what_the_replies_bear_witness_of(store: MemoryStore) -> None:
    """By itself a shorter record is sound: that is why replies carry its head."""
    witness = Egress(store, KEY).head.hex()
    assert witness in check(store).heads
    store.delete(place(4))
    assert check(store).fault is None
    assert witness not in check(store).heads


@pytest.mark.parametrize("data", [b"", b"\x80", b"[]", b'{"entry": 1}', b"{" * 9999])
def test_rubbish_is_named(store: MemoryStore, data: bytes) -> None:
    store.put(place(2), data)
    assert check(store).fault == "entry 2: it is no entry of such a record"


def test_one_thing_in_one_place(store: MemoryStore) -> None:
    egress = Egress(store, KEY)
    egress.recall(1)
    with pytest.raises(OrderRefused, match="one thing in one place"):
        egress.note(departure("b", "something else"))
    assert len(check(store).entries) == 4
    egress.note(replace(departure("b", "no, because"), kind="Refusal"))
    with pytest.raises(OrderRefused, match="entry 2"):
        egress.note(departure("b", "something else"))


def test_a_refusal_hides_nothing_that_was_said_before_it(store: MemoryStore) -> None:
    Egress(store, KEY).note(replace(departure("b", "no"), kind="Refusal"))
    egress = Egress(store, KEY)
    egress.recall(5)
    egress.recall(1)
    with pytest.raises(OrderRefused, match="entry 2"):
        egress.note(departure("b", "something else"))


def test_two_clients_at_once(store: MemoryStore) -> None:
    """Both go on at the same number: one chain, and neither misses what the other said."""
    first, second = Egress(store, KEY), Egress(store, KEY)
    assert first.end() == second.end() == 5
    first.note(departure("e"))
    second.note(departure("f"))
    first.note(departure("g"))
    checked = check(store)
    assert checked.fault is None
    assert [entry.destination for entry in checked.entries] == list("abcdefg")
    second.end()
    with pytest.raises(OrderRefused):
        second.note(departure("g", "other"))


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_every_operation(before: bool) -> None:
    at = 0
    while True:
        store = MemoryStore()
        faulty = FaultyStore(store, at, before=before)
        try:
            egress = Egress(faulty, KEY)
            for name in "ab":
                egress.note(departure(name))
        except Killed:
            again = Egress(store, KEY)
            again.recall(1)
            for name in "ab":
                if again.noted(name) is None:
                    again.note(departure(name))
            checked = check(store)
            assert (checked.fault, len(checked.entries)) == (None, 2)
            at += 1
            continue
        break
    assert at == 3, "one look for the end, and one write an entry"


def test_a_warm_client_lists_nothing(store: MemoryStore) -> None:
    counting = FaultyStore(store, at=-1)
    egress = Egress(counting, KEY)
    for name in "efgh":
        egress.recall(egress.end())
        egress.note(departure(name))
    kinds = [operation.split()[0] for operation in counting.operations]
    assert kinds == ["list", "get", "create", "create", "create", "create"]


def test_a_broken_end_stops_the_client_that_must_read_it(store: MemoryStore) -> None:
    store.put(place(3), b"rubbish")
    with pytest.raises(OrderRefused, match="fedcore ledger egress"):
        Egress(store, KEY).recall(2)
