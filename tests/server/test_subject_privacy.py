"""Whole runs with noise for each subject: one secret a round, whoever is killed; nothing else told.

The noise of a step is in ``tests/training/test_dpsgd.py``, the modes of secure aggregation in
``test_secure_combinations.py``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import toy
from kills import kill_client

from fedcore.client.loop import Client
from fedcore.client.private import forget, training_key
from fedcore.config import plan as plans
from fedcore.params import digest
from fedcore.records import ClientUpdate, Refusal, TrainOrder
from fedcore.server import orders
from fedcore.server.run import Run, load_state
from fedcore.store.api import Store
from fedcore.store.exchange import Exchange
from fedcore.store.memory import MemoryStore

SUBJECT = {"clip_norm": 0.5, "noise_multiplier": 1.0, "sampling_rate": 0.5, "steps": 2}


def plan(rounds: int = 2, **privacy: Any) -> plans.Plan:
    return toy.plan(
        rounds=rounds,
        privacy={"clip_norm": 100.0, "subject": SUBJECT, **privacy},
        aggregation={"weights": "uniform"},
    )


def opened(what: plans.Plan) -> tuple[MemoryStore, Run]:
    store = MemoryStore()
    run = toy.open_toy(store, what)
    orders.train_orders(run, 0)
    return store, run


def client(store: Store, data: Store, site: str = "north") -> Client:
    return Client(toy.policy(site), Exchange(store), data, partner=toy.partner(site))


def update(store: Store, data: Store) -> ClientUpdate:
    reply = toy.answer(client(store, data), "run-1", 0)
    assert isinstance(reply, ClientUpdate), reply
    return reply


def order(what: plans.Plan) -> TrainOrder:
    return TrainOrder("run-1", "north", 0, 0, what.digest, "params")


def test_a_client_that_was_killed_releases_the_same_noise_and_no_second_one() -> None:
    store, _ = opened(plan())
    data = toy.site_store("north")
    first, again = update(store, data), update(store, data)
    assert digest(first.update) == digest(again.update)
    assert digest(update(store, toy.site_store("north")).update) != digest(first.update), (
        "another bucket has another secret"
    )


def test_the_same_noise_hides_no_second_update_of_data_that_changed() -> None:
    """Or the difference of both would show, without noise, who was added."""
    store, run = opened(plan())
    data = toy.site_store("north")
    update(store, data)
    data.put("table.csv", toy.table("east"))
    again = replace(orders.train_orders(run, 0)[1], seq=5, attempt=1)
    assert again.site == "north"
    run.exchange.put_order(again, run.signing_key)
    reply = toy.answer(client(store, data), "run-1", 5)
    assert isinstance(reply, Refusal)
    assert "under the same noise" in reply.reason


def test_one_secret_an_update_for_all_attempts_and_after_the_run_too() -> None:
    store, what = MemoryStore(), plan()
    here = order(what)
    key = training_key(store, what, here)
    assert len(key) == 32
    assert training_key(store, what, replace(here, attempt=1, seq=5)) == key
    others = [replace(here, round_num=1), replace(here, params_digest="other"),
              replace(here, nonce="another run")]  # fmt: skip
    assert len({key, *(training_key(store, what, other) for other in others)}) == 4
    forget(store, "run-1")
    assert training_key(store, what, here) == key


def test_the_secret_outlives_what_a_new_attempt_forgets() -> None:
    from fedcore.client.private import Private

    store, what = MemoryStore(), plan()
    key = training_key(store, what, order(what))
    Private(store, replace(order(what), attempt=1), "digest").begin()
    assert training_key(store, what, order(what)) == key


def test_the_reply_tells_neither_loss_nor_who_has_what() -> None:
    store, _ = opened(plan())
    told = update(store, toy.site_store("north"))
    assert set(told.weights) == {"body", "head"}
    assert set(told.weights.values()) == {1.0}
    data = {name for name in told.measurements if not name.startswith("seconds.")}
    assert data == {"steps", "update_norm", "bytes_down", "epsilon_spent"}, "norm: of the noisy"
    assert told.data.modalities == {}


def test_a_client_killed_at_every_operation_changes_nothing() -> None:
    what = plan(noise_source="seeded")

    def play(server: Store, launcher: toy.InlineLauncher) -> None:
        toy.play(toy.open_toy(server, what), launcher)

    store = MemoryStore()
    play(store, toy.InlineLauncher(store, toy.site_stores()))
    wanted = load_state(toy.open_toy(store, what), what.rounds).params

    def check(store: Store, at: int) -> None:
        found = load_state(toy.open_toy(store, what), what.rounds).params
        assert digest(found) == digest(wanted), f"killed at operation {at}"

    assert kill_client(play, check, before=False, in_own_bucket=True) >= 10


@pytest.mark.parametrize("rule", ["mean", "median"])
def test_noise_is_in_the_model_and_differs_between_runs(rule: str) -> None:
    ends = []
    for _ in range(2):
        store = MemoryStore()
        what = toy.plan(
            privacy={"clip_norm": 100.0, "subject": SUBJECT}, cohort={"min_clients": 3},
            aggregation={"weights": "uniform", "rule": rule},
        )  # fmt: skip
        run = toy.open_toy(store, what)
        records, _ = toy.play(run, toy.InlineLauncher(store, toy.site_stores()))
        assert not any(record.dropped for record in records)
        ends.append(load_state(run, what.rounds).params)
    for name, array in ends[0].items():
        assert (array != ends[1][name]).all()
        assert np.isfinite(array).all()


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"privacy": {"clip_norm": 1.0, "noise_multiplier": 1.0}}, "protect two units"),
        ({"aggregation": {"weights": "examples", "weight_cap": 9}}, "set weights: uniform"),
        ({"training": {"mixed_precision": True}}, "remove mixed_precision"),
    ],
)
def test_what_it_cannot_go_with(sections: dict[str, dict[str, Any]], why: str) -> None:
    fields = {"aggregation": {"weights": "uniform"}, **sections}
    privacy = {**fields.pop("privacy", {}), "subject": SUBJECT}
    with pytest.raises(ValueError, match=why):
        toy.plan(privacy=privacy, **fields)
