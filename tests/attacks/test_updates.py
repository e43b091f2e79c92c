"""Replies that the server must not add: each is named, and the round goes on with the others."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import toy

from fedcore.errors import QuorumNotReached
from fedcore.records import ClientUpdate, RoundRecord, TrainOrder
from fedcore.server import orders, rounds
from fedcore.server.run import Run, load_state
from fedcore.store import blobs
from fedcore.store.exchange import Exchange
from fedcore.store.identity import Roll, open_reply
from fedcore.store.memory import MemoryStore

REPLY_KEY = "replies/north/run-1/000000.safetensors"


class Round:
    """Round 0 with honest replies of all sites but north's, which the test makes."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.run: Run = toy.open_toy(self.store, toy.plan())
        self.orders: list[TrainOrder] = orders.train_orders(self.run, 0)
        data = {site: toy.site_store(site) for site in toy.SITES}
        launcher = toy.InlineLauncher(self.store, data)
        for order in self.orders:
            launcher.ensure(order)
        self.honest = self.update()
        self.store.delete(REPLY_KEY)

    def update(self) -> ClientUpdate:
        order = next(order for order in self.orders if order.site == "north")
        reply, _ = Exchange(self.store).reply(order)
        assert isinstance(reply, ClientUpdate)
        return reply

    def reason(self) -> str:
        """Aggregate, and say why north is not in it."""
        record: RoundRecord = rounds.aggregate(self.run, 0, self.orders, {})
        assert set(record.weights) == {"east", "west"}, "the others count"
        return record.dropped["north"]


@pytest.fixture
def a_round() -> Round:
    return Round()


class Payload:
    """Leaves a trace if somebody unpickles it."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (exec, ("import toy; toy.TRACE = True",))


def test_pickle_is_never_run(a_round: Round) -> None:
    a_round.store.put(REPLY_KEY, pickle.dumps(Payload()))
    assert "not a safetensors blob" in a_round.reason()
    assert not hasattr(toy, "TRACE")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(a_round: Round, value: float) -> None:
    name, array = next(iter(a_round.honest.update.items()))
    poisoned = array.copy()
    poisoned.flat[-1] = value
    update = {**a_round.honest.update, name: poisoned}
    a_round.run.exchange.put_reply(replace(a_round.honest, update=update))
    assert "NaN or an infinity" in a_round.reason()


def test_wrong_shape(a_round: Round) -> None:
    update = {**a_round.honest.update, "head.bias": np.zeros(5, np.float32)}
    a_round.run.exchange.put_reply(replace(a_round.honest, update=update))
    assert "has shape (5,) for 'head.bias'" in a_round.reason()


def test_wrong_type(a_round: Round) -> None:
    update = {k: v.astype(np.float64) for k, v in a_round.honest.update.items()}
    a_round.run.exchange.put_reply(replace(a_round.honest, update=update))
    assert "float64" in a_round.reason()


def test_missing_key(a_round: Round) -> None:
    update = {k: v for k, v in a_round.honest.update.items() if k != "head.bias"}
    a_round.run.exchange.put_reply(replace(a_round.honest, update=update))
    assert "lacks the parameter 'head.bias'" in a_round.reason()


def test_unknown_key(a_round: Round) -> None:
    update = {**a_round.honest.update, "backdoor.w": np.zeros(1, np.float32)}
    a_round.run.exchange.put_reply(replace(a_round.honest, update=update))
    assert "unknown parameter 'backdoor.w'" in a_round.reason()


def test_oversized_is_not_even_read(a_round: Round) -> None:
    a_round.store.put(REPLY_KEY, bytes(1 << 20))
    assert "are accepted" in a_round.reason()


@pytest.mark.parametrize("weight", [1e9, -1.0, 0.5e9])
def test_weights_out_of_bounds(a_round: Round, weight: float) -> None:
    weights = dict.fromkeys(a_round.honest.weights, weight)
    a_round.run.exchange.put_reply(replace(a_round.honest, weights=weights))
    assert "weight" in a_round.reason()


def test_reply_to_another_order(a_round: Round) -> None:
    signed = a_round.store.get("replies/east/run-1/000000.safetensors")
    arrays, header = blobs.unpack(open_reply(signed, "east", Roll()))
    a_round.store.put(REPLY_KEY, blobs.pack(arrays, header))
    assert "reply is to another order" in a_round.reason()


def test_malformed_headers(a_round: Round) -> None:
    a_round.store.put(REPLY_KEY, blobs.pack({}, {"kind": "Order66"}))
    assert "unknown kind 'Order66'" in a_round.reason()


def test_header_with_wrong_fields(a_round: Round) -> None:
    a_round.store.put(REPLY_KEY, blobs.pack({}, {"kind": "ClientUpdate", "fields": {"seq": []}}))
    assert "header is wrong" in a_round.reason()


def test_huge_update_moves_the_model_no_further_than_clip_norm(a_round: Round) -> None:
    """A single site's pull is bounded, whatever it sends: clipping happens at the server too."""
    before = load_state(a_round.run, 0).params
    giant = {k: np.full_like(v, 1e6) for k, v in a_round.honest.update.items()}
    a_round.run.exchange.put_reply(replace(a_round.honest, update=giant))
    rounds.aggregate(a_round.run, 0, a_round.orders, {})
    after = load_state(a_round.run, 1).params
    moved = np.sqrt(sum(float(((after[k] - before[k]) ** 2).sum()) for k in after))
    assert moved <= 1.0 + 1e-5


def test_too_few_usable_updates_commit_nothing(a_round: Round) -> None:
    for site in ("east", "west"):
        a_round.store.put(f"replies/{site}/run-1/000000.safetensors", b"junk")
    a_round.run.exchange.put_reply(a_round.honest)
    with pytest.raises(QuorumNotReached, match=r"1 usable updates of 3.*east: .*safetensors"):
        rounds.aggregate(a_round.run, 0, a_round.orders, {})
    assert not a_round.store.exists("records/run-1/rounds/00000/survivors.json")
    assert not a_round.store.exists("params/run-1/00001.safetensors")
