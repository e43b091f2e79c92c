"""Calls: signed, one object a site, and nothing is lost when two servers write at once."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore.errors import OrderRefused
from fedcore.records import ClientStatus
from fedcore.store.api import Store
from fedcore.store.calls import Calls
from fedcore.store.memory import MemoryStore

KEY = Ed25519PrivateKey.generate()


@pytest.fixture
def store() -> Store:
    return MemoryStore()


def test_called_and_withdrawn(store: Store) -> None:
    calls = Calls(store)
    assert calls.wanted("north", KEY.public_key()) == {}
    calls.call("north", "run-1", 0, KEY)
    calls.call("north", "run-2", 4, KEY)
    calls.call("north", "run-1", 1, KEY)
    assert calls.wanted("north", KEY.public_key()) == {"run-1": 1, "run-2": 4}
    assert calls.wanted("west", KEY.public_key()) == {}
    calls.withdraw("north", "run-1", KEY)
    assert calls.wanted("north", KEY.public_key()) == {"run-2": 4}


def test_writers_do_not_lose_each_others_calls(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: Calls(store).call("north", f"run-{n}", n, KEY), range(40)))
    assert Calls(store).wanted("north", KEY.public_key()) == {f"run-{n}": n for n in range(40)}


def test_forged_and_misplaced_calls_are_refused(store: Store) -> None:
    calls = Calls(store)
    calls.call("north", "run-1", 0, Ed25519PrivateKey.generate())
    with pytest.raises(OrderRefused, match="signature is not the server's"):
        calls.wanted("north", KEY.public_key())
    calls.call("west", "run-1", 0, KEY)
    store.put("orders/north/calls.json", store.get("orders/west/calls.json"))
    with pytest.raises(OrderRefused, match="is no call to site 'north'"):
        calls.wanted("north", KEY.public_key())


def test_what_the_agent_says(store: Store) -> None:
    calls = Calls(store)
    assert calls.said("north", "run-1", 0) is None
    status = ClientStatus("failed", "no node has 1 nvidia.com/gpu", permanent=True)
    calls.say("north", "run-1", 0, status)
    assert calls.said("north", "run-1", 0) == status
    store.put("replies/north/run-1/000001.client.json", json.dumps({"state": "odd"}).encode())
    assert calls.said("north", "run-1", 1) is None, "what cannot be read is not believed"
