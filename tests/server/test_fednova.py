"""FedNova's step is the paper's, and mends what unequal numbers of local steps do to FedAvg."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import toy

from fedcore.aggregation import nova
from fedcore.client.learner import Learner
from fedcore.config.plan import Plan
from fedcore.errors import ConfigError
from fedcore.records import ClientUpdate, DataSummary, TrainOrder
from fedcore.server import orders, replies
from fedcore.server import step as steps
from fedcore.server.run import load_state
from fedcore.store.memory import MemoryStore
from fedcore.training.state import get_params

STEPS = {"east": 2, "north": 40, "west": 10}
CURVES = {"east": (1.0, 4.0), "north": (2.0, -1.0), "west": (0.5, 3.0)}
"""½ h (x − c)² of each site: h and c."""
WEIGHTS = {"east": 3.0, "north": 1.0, "west": 2.0}
RATE = 0.01


def plan(secure: dict[str, Any] | None = None, **aggregation: Any) -> Plan:
    return toy.plan(
        training={"optimizer": "sgd", "learning_rate": 0.05},
        aggregation={"normalise": "steps", **aggregation},
        secure_aggregation=secure or {},
        **({"privacy": {"clip_norm": 5.0}} if secure else {"privacy": {}}),
    )


def descended(site: str, x: float, count: int) -> float:
    h, c = CURVES[site]
    for _ in range(count):
        x -= RATE * h * (x - c)
    return x


def reply(site: str, update: float, **said: Any) -> ClientUpdate:
    arrays = {"head.w": np.array([update], np.float32)}
    weights = {"head": WEIGHTS[site]}
    return ClientUpdate(site, "run", 0, "", arrays, weights, 100, DataSummary(100), **said)


def rounds(what: Plan, count: int, *, normalised: bool) -> list[float]:
    state = steps.initial_state(what, {"head.w": np.zeros(1, np.float32)})
    path = []
    for _ in range(count):
        x = float(state.params["head.w"][0])
        arrivals = []
        for site, tau in STEPS.items():
            update = descended(site, x, tau) - x
            told = {"steps": {"head": float(tau)}} if normalised else {}
            arrivals.append((site, reply(site, update / tau if normalised else update, **told)))
        state, _ = steps.step(what, state, arrivals)
        path.append(float(state.params["head.w"][0]))
    return path


def test_a_round_is_the_paper_s_update() -> None:
    """x − τ_eff Σ p_k η d_k, with d_k the mean of a site's gradients along its path."""
    p = {site: weight / sum(WEIGHTS.values()) for site, weight in WEIGHTS.items()}
    effective = sum(p[site] * STEPS[site] for site in STEPS)
    x = 0.0
    for found in rounds(plan(), 3, normalised=True):
        moved = 0.0
        for site, tau in STEPS.items():
            h, c = CURVES[site]
            gradients = [h * (descended(site, x, k) - c) for k in range(tau)]
            moved += p[site] * RATE * np.mean(gradients)
        x -= effective * moved
        assert found == pytest.approx(x, rel=1e-5)


def test_it_comes_near_the_optimum_that_fedavg_misses() -> None:
    weighed = {site: WEIGHTS[site] * CURVES[site][0] for site in CURVES}
    optimum = sum(w * CURVES[s][1] for s, w in weighed.items()) / sum(weighed.values())
    ours = rounds(plan(), 60, normalised=True)[-1]
    theirs = rounds(toy.plan(privacy={}), 60, normalised=False)[-1]
    assert abs(ours - optimum) < 0.3 * abs(theirs - optimum)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({}, "does not say how many steps"),
        ({"head": float("nan")}, "nan steps long"),
        ({"head": 0.0}, "0.0 steps long"),
        ({"head": 1.0, "body": 1.0}, None),
    ],
)
def test_lengths_that_cannot_be(said: dict[str, float], reason: str | None) -> None:
    state = steps.initial_state(plan(), {"head.w": np.zeros(1, np.float32)})
    summed = steps.accumulate(plan(), state, [("east", reply("east", 1.0, steps=said))])
    if reason is None:
        assert nova.problem_with(said, ["head"]) is None
    else:
        assert reason in summed.rejected["east"]


@pytest.mark.parametrize("effective", [None, 6.0])
def test_a_run_of_sites_of_unlike_sizes(effective: float | None) -> None:
    """48 and 16 training subjects are 6 and 2 steps: as FedAvg, each scaled by hand."""

    def data() -> dict[str, MemoryStore]:
        stores = toy.site_stores()
        stores["east"].put("table.csv", toy.table("east", 96))
        stores["west"].put("table.csv", toy.table("west", 32))
        return stores

    taken = {"east": 6, "north": 3, "west": 2}
    what = plan(weights="uniform", effective_steps=effective)
    store, plain = MemoryStore(), MemoryStore()
    run = toy.open_toy(store, what)
    record = toy.train_round(run, 0, toy.InlineLauncher(store, data()))
    assert {s: said["steps"] for s, said in record.measurements.items()} == taken
    other = what.aggregation.model_copy(update={"normalise": "none", "effective_steps": None})
    fedavg = toy.open_toy(plain, what.model_copy(update={"aggregation": other}))
    launcher = toy.InlineLauncher(plain, data())
    asked = orders.train_orders(fedavg, 0)
    replies.await_replies(fedavg, asked, launcher)
    begin, tau = load_state(run, 0).params, effective or np.mean(list(taken.values()))
    sent = {order.site: fedavg.exchange.reply(order, max_bytes=10**6)[0] for order in asked}
    for name, array in load_state(run, 1).params.items():
        by_step = np.mean([sent[s].update[name] / taken[s] for s in taken], axis=0)
        np.testing.assert_allclose(array, begin[name] + tau * by_step, rtol=1e-5, atol=1e-6)


def test_with_effective_steps_it_commutes_with_masks() -> None:
    found = []
    for secure in (None, {"mode": "masks"}):
        what, store = plan(secure, weights="uniform", effective_steps=4.0), MemoryStore()
        run = toy.open_toy(store, what)
        toy.train_round(run, 0, toy.InlineLauncher(store, toy.site_stores()))
        found.append(load_state(run, 1).params)
    assert all(np.allclose(found[0][name], found[1][name], atol=1e-4) for name in found[0])


def test_fedprox_s_length_is_the_sum_of_its_weights() -> None:
    assert nova.length(7, 0.1, 2.0) == pytest.approx(sum(0.8**k for k in range(7)))
    assert nova.length(4, 1.0, 2.0) == 4, "|1 − ημ| = 1"


def test_running_statistics_are_no_sum_of_steps() -> None:
    what = plan()
    task = what.task.model_copy(
        update={"model": what.task.model.model_copy(update={"function": "toy:normalised"})}
    )
    what = what.model_copy(update={"task": task})
    learner = Learner(what, toy.site_store("north"), min_cell=5)
    begin = get_params(toy.build_model(what))
    order = TrainOrder("run", "north", 0, 0, what.digest, "")
    with pytest.raises(ConfigError, match=r"'norm.running_mean' is a running statistic"):
        learner.train(order, "", begin)
