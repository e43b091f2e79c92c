"""Orders that a site must not obey: each is refused with its reason, and nothing is trained."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
import toy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedcore.client.loop import Client
from fedcore.errors import Conflict
from fedcore.records import ClientUpdate, Refusal, TrainOrder
from fedcore.server import orders
from fedcore.server.run import Run
from fedcore.store import envelope
from fedcore.store.exchange import Exchange
from fedcore.store.memory import MemoryStore

ORDER_KEY = "orders/north/run-1/000000.json"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def run(store: MemoryStore) -> Run:
    return toy.open_toy(store, toy.plan())


@pytest.fixture
def order(run: Run) -> TrainOrder:
    """The genuine order of round 0 to north."""
    return next(order for order in orders.train_orders(run, 0) if order.site == "north")


def client(store: MemoryStore, **allow: Any) -> Client:
    return Client(toy.policy("north", **allow), Exchange(store), toy.site_store("north"))


def refusal(store: MemoryStore, seq: int = 0, **allow: Any) -> str:
    reply = toy.answer(client(store, **allow), "run-1", seq)
    assert isinstance(reply, Refusal)
    return reply.reason


def sealed(order: TrainOrder, key: Ed25519PrivateKey = toy.KEY) -> bytes:
    return envelope.seal(json.dumps(asdict(order)).encode(), key)


def test_the_genuine_order_is_obeyed(store: MemoryStore, order: TrainOrder) -> None:
    assert isinstance(toy.answer(client(store), "run-1", 0), ClientUpdate)


def test_unsigned(store: MemoryStore, order: TrainOrder) -> None:
    store.put(ORDER_KEY, json.dumps(asdict(order)).encode())
    assert "unsigned or malformed" in refusal(store)


def test_forged_with_another_key(store: MemoryStore, order: TrainOrder) -> None:
    store.put(ORDER_KEY, sealed(order, Ed25519PrivateKey.generate()))
    assert "signature is not the server's" in refusal(store)


def test_changed_after_signing(store: MemoryStore, order: TrainOrder) -> None:
    text = store.get(ORDER_KEY).decode()
    store.put(ORDER_KEY, text.replace('round_num\\": 0', 'round_num\\": 9').encode())
    assert "signature is not the server's" in refusal(store)


def test_misdirected_to_another_site(store: MemoryStore, order: TrainOrder) -> None:
    store.put(ORDER_KEY, sealed(replace(order, site="south")))
    assert "for site 'south', and this is 'north'" in refusal(store)


def test_replayed_in_another_place(store: MemoryStore, order: TrainOrder) -> None:
    store.put("orders/north/run-1/000003.json", store.get(ORDER_KEY))
    assert "replayed as number 3" in refusal(store, seq=3)


def test_replayed_in_another_run(store: MemoryStore, order: TrainOrder) -> None:
    store.put("orders/north/run-2/000000.json", store.get(ORDER_KEY))
    reply = toy.answer(client(store), "run-2", 0)
    assert isinstance(reply, Refusal)
    assert "replayed" in reply.reason


def test_second_order_for_the_same_place(store: MemoryStore, order: TrainOrder) -> None:
    """Even the server's own key gets no second, different answer for one place of a run."""
    site, genuine = client(store), store.get(ORDER_KEY)
    first = toy.answer(site, "run-1", 0)
    assert isinstance(first, ClientUpdate)
    store.put(ORDER_KEY, sealed(replace(order, round_num=1)))
    store.put("params/run-1/00001.safetensors", store.get("params/run-1/00000.safetensors"))
    second = toy.answer(site, "run-1", 0)
    assert isinstance(second, Refusal)
    assert "another order was accepted as number 0" in second.reason
    store.put(ORDER_KEY, genuine)
    again = toy.answer(site, "run-1", 0)
    assert isinstance(again, ClientUpdate), "what was accepted may be answered again, the same"
    assert all((again.update[name] == first.update[name]).all() for name in first.update)


def test_server_cannot_overwrite_its_own_order(run: Run, order: TrainOrder) -> None:
    with pytest.raises(Conflict, match="already, with other content"):
        run.exchange.put_order(replace(order, round_num=1), toy.KEY)


def test_swapped_plan_and_params(store: MemoryStore, run: Run, order: TrainOrder) -> None:
    genuine = store.get("params/run-1/plan.json")
    store.put("params/run-1/plan.json", toy.plan(rounds=9).canonical())
    assert "plan in the exchange is not the one" in refusal(store)
    store.put("params/run-1/plan.json", genuine)
    store.put("params/run-1/00000.safetensors", b"\x80\x04pickle")
    assert "not a safetensors blob" in refusal(store)


def test_policy_is_asked_before_anything_is_read(store: MemoryStore, order: TrainOrder) -> None:
    assert "code 'toy:model' is not allowed" in refusal(store, code=["fedcore.*"])
    assert "purpose 'research' is not allowed" in refusal(store, purposes=["teaching"])


def test_the_server_shows_the_reason(store: MemoryStore, run: Run) -> None:
    from fedcore.server import rounds

    asked = orders.train_orders(run, 0)
    launcher = toy.InlineLauncher(store, {s: toy.site_store(s) for s in ("east", "west")})
    for order in asked:
        if order.site != "north":
            launcher.ensure(order)
    reply = toy.answer(client(store, purposes=["teaching"]), "run-1", 0)
    assert reply is not None
    run.exchange.put_reply(reply)
    record = rounds.aggregate(run, 0, asked, {})
    assert "purpose 'research' is not allowed" in record.dropped["north"]
    assert set(record.weights) == {"east", "west"}
