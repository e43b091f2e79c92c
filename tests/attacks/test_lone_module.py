"""A sum is by module: of a module that one site alone trained, it would be that site's update."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import imaged
import numpy as np
import pytest
import toy

from fedcore.client.learner import Learner
from fedcore.config.plan import Plan
from fedcore.errors import OrderRefused, QuorumNotReached
from fedcore.params import FloatArray, digest
from fedcore.privacy.secagg import check_survivors
from fedcore.records import TrainOrder
from fedcore.server.run import load_state
from fedcore.store.memory import MemoryStore

CLIP = 5.0


def plan(**sections: Any) -> Plan:
    fields = {
        "rounds": 1,
        "aggregation": {"weights": "uniform"},
        "privacy": {"clip_norm": CLIP},
        "secure_aggregation": {"mode": "masks", "bits": 24},
    }
    return imaged.plan(**{**fields, **sections})


def seen(what: Plan, **every: int) -> dict[str, FloatArray]:
    """What the round changed of PET's encoder: the server sees it. ``every``: who has a PET."""
    store = MemoryStore()
    run = toy.open_toy(store, what)
    toy.play(run, toy.InlineLauncher(store, imaged.stores(**every), policies=imaged.policies()))
    before, after = load_state(run, 0).params, load_state(run, 1).params
    assert not np.array_equal(before["head.classify.1.bias"], after["head.classify.1.bias"])
    return {n: after[n] - before[n] for n in before if n.startswith("encoder.pet.")}


def of(site: str, what: Plan) -> dict[str, FloatArray]:
    """The same part of the update that one site made."""
    run = toy.open_toy(MemoryStore(), what)
    params = load_state(run, 0).params
    order = TrainOrder(
        site=site, seq=0, round_num=0, params_digest=digest(params), plan_digest=what.digest,
        run_id="run-1",
    )  # fmt: skip
    update, _ = Learner(what, imaged.stores(**{site: 1})[site], min_cell=1).train(order, "", params)
    return {n: array for n, array in update.update.items() if n.startswith("encoder.pet.")}


def farthest(one: dict[str, FloatArray], other: dict[str, FloatArray]) -> float:
    assert set(one) == set(other)
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


SECURE = [
    {"mode": "masks", "bits": 24},
    {"mode": "ckks", "threshold": 2},
    {"mode": "ckks", "threshold": 2, "encrypt": ["head.*"]},
]


@pytest.mark.parametrize("secure", SECURE, ids=["masks", "ckks", "rest masked"])
def test_a_module_that_one_site_trains_is_in_no_sum(secure: dict[str, Any]) -> None:
    hidden = seen(plan(secure_aggregation=secure), north=1)
    assert not any(array.any() for array in hidden.values())


def test_in_the_open_it_is_and_of_two_sites_it_is_the_mean() -> None:
    alone = seen(plan(secure_aggregation={}), north=1)
    assert farthest(alone, of("north", plan())) < 1e-6
    north, east = of("north", plan()), of("east", plan())
    mean = {name: (north[name] + east[name]) / 2 for name in north}
    assert farthest(seen(plan(), north=1, east=1), mean) < 1e-5


def test_no_sum_is_opened_where_all_but_one_of_those_that_train_it_dropped_out() -> None:
    store = MemoryStore()
    run = toy.open_toy(store, plan(secure_aggregation={"mode": "masks", "threshold": 2}))
    launcher = toy.InlineLauncher(
        store, imaged.stores(north=1, east=1), policies=imaged.policies(), drops={"east": "update"}
    )
    with pytest.raises(QuorumNotReached, match="may show one site's update of a module"):
        toy.play(run, launcher)
    assert not [key for key in store.list("replies/") if ".unmask." in key]


def test_who_dropped_out_early_may_be_one_that_trains_it() -> None:
    """Others may have heard of it, and sent the module."""
    keys = dict.fromkeys("abcd")
    terms: Any = SimpleNamespace(keys=keys)
    every = frozenset({"head"})
    known = {"a": every | {"pet"}, "b": every, "c": every}
    with pytest.raises(OrderRefused, match="others dropped out"):
        check_survivors(known, ["a", "b", "c"], terms)
    check_survivors({**known, "d": every}, ["a", "b", "c"], terms)
    check_survivors({**known, "d": every | {"pet"}}, ["a", "b", "d"], terms)
    with pytest.raises(OrderRefused, match="without having told"):
        check_survivors(known, ["a", "d"], terms)
