"""A server that would spend more of a site's privacy budget than the site allows.

It holds the key that signs orders, and sends what it likes; the site's records are the site's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import toy

from fedcore.client.loop import Client
from fedcore.config.plan import Plan
from fedcore.config.protection import Privacy
from fedcore.params import Params, digest
from fedcore.privacy.accounting import GaussianEvent, epsilon
from fedcore.records import ClientUpdate, FinishOrder, Refusal, Reply, TrainOrder
from fedcore.server import orders
from fedcore.store.budget import check
from fedcore.store.egress import check as check_egress
from fedcore.store.exchange import Exchange
from fedcore.store.memory import MemoryStore

ROUNDS = 2
PLAN = toy.plan(
    rounds=ROUNDS,
    privacy={"clip_norm": 1.0, "noise_multiplier": 2.0},
    aggregation={"weights": "uniform"},
)
SUBJECT = {"clip_norm": 1.0, "noise_multiplier": 4.0, "sampling_rate": 0.5, "steps": 2}
BY_SUBJECT = PLAN.model_copy(update={"privacy": Privacy(clip_norm=1.0, subject=SUBJECT)})
ALLOWED = epsilon([GaussianEvent(2.0, ROUNDS)], 1e-5)
"""A run of the plan, and nothing more."""


class Attacked:
    """North, whose client is started anew for each order."""

    def __init__(self, plan: Plan = PLAN, **budget: Any) -> None:
        self.exchange, self.data = MemoryStore(), toy.site_store("north")
        self.budget = {"epsilon": ALLOWED, "unit": "site", **budget}
        self.run = toy.open_toy(self.exchange, plan)
        (self.genuine,) = [o for o in orders.train_orders(self.run, 0) if o.site == "north"]

    def obeys(self, order: TrainOrder) -> Reply:
        """What the site says to the order, and sends."""
        exchange = Exchange(self.exchange)
        if not exchange.has_order("north", order.run_id, order.seq):
            exchange.put_order(order, toy.KEY)
        client = self.client()
        reply = toy.answer(client, order.run_id, order.seq)
        assert reply is not None
        client.send(reply)
        return reply

    def client(self) -> Client:
        policy = toy.policy("north", budget=self.budget)
        exchange = Exchange(self.exchange)
        return Client(policy, exchange, self.data, partner=toy.partner("north"))

    @property
    def params(self) -> Params:
        """Those of round 0."""
        return Exchange(self.exchange).params("run-1", 0, self.genuine.params_digest)[0]

    def publish(self, round_num: int, params: Params) -> None:
        """Give a round these params."""
        Exchange(self.exchange).publish_params("run-1", round_num, params)

    def spent(self) -> float:
        """By the ledger, which must be whole."""
        checked, fault = check(self.data)
        assert fault is None
        return epsilon([event for entry in checked.entries for event in entry.events], 1e-5)

    def updates(self) -> set[str]:
        """The different updates that left."""
        entries = check_egress(self.data).entries
        return {entry.content for entry in entries if entry.kind == "ClientUpdate"}


@pytest.fixture
def attacked() -> Attacked:
    attacked = Attacked()
    assert isinstance(attacked.obeys(attacked.genuine), ClientUpdate)
    return attacked


def refused(reply: Reply) -> str:
    assert isinstance(reply, Refusal)
    return reply.reason


def test_the_same_order_again_and_again_gets_the_same_update(attacked: Attacked) -> None:
    for _ in range(3):
        attacked.obeys(attacked.genuine)
    assert len(attacked.updates()) == 1
    assert attacked.spent() == pytest.approx(ALLOWED)


def test_the_same_round_in_other_places_is_the_same_update(attacked: Attacked) -> None:
    first = attacked.obeys(attacked.genuine)
    assert isinstance(first, ClientUpdate)
    for seq in (5, 6):
        again = attacked.obeys(replace(attacked.genuine, seq=seq))
        assert isinstance(again, ClientUpdate)
        assert digest(again.update) == digest(first.update)
    assert attacked.spent() == pytest.approx(ALLOWED)
    assert len(check(attacked.data)[0].entries) == 1


def test_a_round_of_a_run_that_is_over_is_no_second_release() -> None:
    """The site must not have forgotten what its noise was drawn from: fresh noise tells more."""
    attacked = Attacked(BY_SUBJECT, unit="subject", epsilon=50.0)
    first = attacked.obeys(attacked.genuine)
    assert isinstance(first, ClientUpdate)
    over = FinishOrder("run-1", "north", 7, BY_SUBJECT.digest, attacked.run.nonce)
    Exchange(attacked.exchange).put_order(over, toy.KEY)
    assert toy.answer(attacked.client(), "run-1", 7) is None
    again = attacked.obeys(replace(attacked.genuine, seq=8))
    assert isinstance(again, ClientUpdate)
    assert digest(again.update) == digest(first.update)
    assert len(check(attacked.data)[0].entries) == 1


def test_other_runs_of_the_same_plan(attacked: Attacked) -> None:
    for number in range(3):
        run = toy.open_toy(attacked.exchange, PLAN, f"other-{number}")
        (order,) = [o for o in orders.train_orders(run, 0) if o.site == "north"]
        assert "over this site's privacy budget" in refused(attacked.obeys(order))
    assert len(attacked.updates()) == 1


@pytest.mark.parametrize("change", [{"nonce": "another"}, {"round_num": 7}, {"round_num": -1}])
def test_orders_that_no_honest_server_sends(attacked: Attacked, change: dict[str, Any]) -> None:
    if "round_num" in change:
        attacked.publish(change["round_num"], attacked.params)
    reply = attacked.obeys(replace(attacked.genuine, seq=5, **change))
    assert "over this site's privacy budget" in refused(reply)
    assert len(attacked.updates()) == 1


def test_a_round_again_from_other_params(attacked: Attacked) -> None:
    """Two updates of one round from nearly the same params tell more than one."""
    moved = {name: array + np.float32(1e-3) for name, array in attacked.params.items()}
    attacked.exchange.delete("params/run-1/00000.safetensors")
    attacked.publish(0, moved)
    reply = attacked.obeys(replace(attacked.genuine, seq=5, params_digest=digest(moved)))
    assert "over this site's privacy budget" in refused(reply)
    assert len(attacked.updates()) == 1


def test_a_ledger_from_which_an_entry_is_gone_is_refused(attacked: Attacked) -> None:
    (key,) = attacked.data.list("derivatives/fedcore/budget/")
    attacked.data.delete(key)
    run = toy.open_toy(attacked.exchange, PLAN, "run-2")
    (order,) = [o for o in orders.train_orders(run, 0) if o.site == "north"]
    assert "the budget ledger is broken: its end was cut off" in refused(attacked.obeys(order))
    assert len(attacked.updates()) == 1
