"""What is not protected: behind masks, a module that one site alone trained is its update."""

from __future__ import annotations

from typing import Any

import imaged
import numpy as np
import toy

from fedcore.client.learner import Learner
from fedcore.config.plan import Plan
from fedcore.params import FloatArray, digest
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


def seen(what: Plan) -> dict[str, FloatArray]:
    """What the round changed of PET's encoder, which north alone can train: the server sees it."""
    store = MemoryStore()
    run = toy.open_toy(store, what)
    data = imaged.stores(north=1)
    toy.play(run, toy.InlineLauncher(store, data, policies=imaged.policies()))
    before, after = load_state(run, 0).params, load_state(run, 1).params
    return {n: after[n] - before[n] for n in before if n.startswith("encoder.pet.")}


def of_north(what: Plan) -> dict[str, FloatArray]:
    """The same part of the update that north made."""
    run = toy.open_toy(MemoryStore(), what)
    params = load_state(run, 0).params
    order = TrainOrder(
        site="north", seq=0, round_num=0, params_digest=digest(params), plan_digest=what.digest,
        run_id="run-1",
    )  # fmt: skip
    update, _ = Learner(what, imaged.stores(north=1)["north"], min_cell=1).train(order, "", params)
    return {n: array for n, array in update.update.items() if n.startswith("encoder.pet.")}


def farthest(one: dict[str, FloatArray], other: dict[str, FloatArray]) -> float:
    assert set(one) == set(other)
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def test_masks_alone_do_not_hide_a_module_that_one_site_trains() -> None:
    assert farthest(seen(plan()), of_north(plan())) < 1e-5


def test_kept_at_the_site_it_is_in_no_sum() -> None:
    assert seen(plan(training={"local": ["encoder.pet.*"]})) == {}


def test_noise_that_the_sites_add_is_on_it_too() -> None:
    noisy = plan(
        privacy={"clip_norm": CLIP, "noise_multiplier": 1.0, "noise_by": "sites"},
        secure_aggregation={"mode": "masks", "bits": 24, "threshold": 3},
    )
    hidden, own = seen(noisy), of_north(plan())
    flat = np.concatenate([(hidden[name] - own[name]).ravel() for name in own])
    assert 0.5 * CLIP < flat.std() < 2 * CLIP
