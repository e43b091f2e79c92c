"""Group DRO over sites: the paper's weights, of every group's loss over all sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import toy
from faults import FaultyStore, Killed
from torch.nn.functional import cross_entropy

from fedcore.aggregation import statistics
from fedcore.config.learning import GroupFairness
from fedcore.config.plan import Plan
from fedcore.params import digest
from fedcore.server.run import load_state
from fedcore.store.memory import MemoryStore
from fedcore.training.state import get_params, load_params
from fedcore.training.telling import by_group

DRO = {"attribute": "sex", "method": "dro", "groups": ["F", "M"], "step": 0.5}
SHARES = {"east": 0.05, "north": 0.1, "west": 0.3}
"""Of the group M at each site."""


def plan(fairness: Mapping[str, Any] | None, **more: Any) -> Plan:
    task = {**toy.plan().task.model_dump(), "groups": ["sex"]}
    task["dataset"] = {"function": "toy:grouped"}
    fields: dict[str, Any] = {
        "rounds": 20,
        "task": task,
        "training": {
            "batch_size": 16, "epochs": 1, "optimizer": "sgd", "learning_rate": 0.1,
            "fairness": fairness,
        },
        "privacy": {},
    }  # fmt: skip
    return toy.plan(**{**fields, **more})


def people(share: float, seed: int, rows: int = 240) -> np.ndarray:
    """In M another feature tells the class, and the one of F misleads."""
    rng = np.random.default_rng(seed)
    label, man = rng.integers(0, 2, rows), rng.random(rows) < share
    sign = (2 * label - 1)[:, None]
    direction = np.where(man[:, None], [-0.3, 2.0, 0.0], [1.5, 0.0, 0.0])
    return np.column_stack([rng.normal(size=(rows, 3)) + sign * direction, label, man])


def data() -> dict[str, MemoryStore]:
    stores = {site: MemoryStore() for site in SHARES}
    for number, (site, share) in enumerate(SHARES.items()):
        stores[site].put("table.csv", toy.csv_of(people(share, number)))
    return stores


def losses(what: Plan, params: Mapping[str, np.ndarray], table: np.ndarray) -> np.ndarray:
    """Of F and of M."""
    module = toy.build_model(what)
    load_params(module, params)
    x, y = torch.tensor(table[:, :3], dtype=torch.float32), torch.tensor(table[:, 3]).long()
    with torch.no_grad():
        each = cross_entropy(module(x), y, reduction="none").numpy()
    return np.array([each[table[:, 4] == group].mean() for group in (0, 1)])


def training_rows(store: MemoryStore) -> np.ndarray:
    rows = np.array([row.split(",") for row in store.get("table.csv").decode().split()], float)
    return rows[np.arange(len(rows)) % 4 < 2]


def test_the_server_knows_each_group_s_loss_over_all_sites_and_moves_its_weights_by_it() -> None:
    what, stores = plan(DRO, rounds=1), data()
    begin, after = get_params(toy.build_model(what)), toy.simulate(what, stores).params
    pooled = np.concatenate([training_rows(store) for store in stores.values()])
    found = losses(what, begin, pooled)
    share = np.array([(pooled[:, 4] == group).mean() for group in (0, 1)])
    np.testing.assert_allclose(after["groups"], [share, share * found], rtol=1e-5)
    q = 0.5 * np.exp(0.5 * found)
    np.testing.assert_allclose(after["emphasis"], q / q.sum(), rtol=1e-5)


def test_the_first_round_counts_every_subject_the_same() -> None:
    fair, plain = (toy.simulate(plan(how, rounds=1), data()).params for how in (DRO, None))
    for name, array in plain.items():
        np.testing.assert_allclose(fair[name], array, rtol=1e-5, atol=1e-6)


def test_the_worse_group_s_loss_falls() -> None:
    found, table = {}, people(0.5, seed=9, rows=4000)
    for name, how in {"none": None, "dro": DRO,
                      "reweigh": {"attribute": "sex", "method": "reweigh"}}.items():  # fmt: skip
        what = plan(how)
        found[name] = losses(what, toy.simulate(what, data()).params, table)
    assert found["none"].argmax() == 1, "M is the worse one without"
    assert found["dro"].max() < found["none"].max() - 0.1
    assert found["reweigh"].max() < found["none"].max() - 0.05


def test_a_group_too_small_to_tell_of_is_told_as_nobody() -> None:
    how = GroupFairness.model_validate({**DRO, "groups": ["F", "M", "X"]})
    found = by_group(torch.ones(20), ["F"] * 11 + ["M"] * 6 + ["X"] * 3, how, min_cell=5)
    assert found[:, 2].tolist() == [0, 0], "3 are fewer than 5"
    assert found[:, 1].tolist() == [0, 0], "else the 3 would follow from the rest"
    np.testing.assert_allclose(found[:, 0], [11 / 20, 11 / 20])
    unlisted = by_group(torch.ones(20), ["F"] * 11 + ["?"] * 3 + ["M"] * 6, how, min_cell=5)
    assert unlisted[0].tolist() == pytest.approx([11 / 20, 0, 0]), "nor may those of no group"


def test_weights_where_little_is_known() -> None:
    q = np.array([0.5, 0.5], np.float32)
    nothing = np.zeros((2, 2), np.float32)
    assert np.array_equal(statistics.moved(q, nothing, 1.0), q)
    assert statistics.factors(q, nothing).tolist() == [1, 1]
    one = np.array([[0.6, 0.0], [0.9, 0.0]], np.float32)
    np.testing.assert_allclose(statistics.moved(q, one, 1.0), q, rtol=1e-6)
    rare = np.array([[0.999, 0.001], [0.1, 0.1]], np.float32)
    assert statistics.factors(q, rare)[1] == statistics.MOST


@pytest.mark.parametrize("secure", ["none", "masks"])
def test_killed_at_any_write_the_server_comes_to_the_same_weights(secure: str) -> None:
    """And behind masks they are those of the sums, which is all that they need."""
    what = plan(
        DRO, rounds=2, privacy={"clip_norm": 5.0}, aggregation={"weights": "uniform"},
        secure_aggregation={"mode": secure},
    )  # fmt: skip

    def attempt(at: int) -> tuple[str, np.ndarray]:
        store, stores = MemoryStore(), data()
        try:
            run = toy.open_toy(FaultyStore(store, at, before=True), what)
            toy.play(run, toy.InlineLauncher(store, stores))
        except Killed:
            run = toy.open_toy(store, what)
            toy.play(run, toy.InlineLauncher(store, stores))
        params = load_state(toy.open_toy(store, what), 2).params
        return digest(params), params["emphasis"]

    whole, emphasis = attempt(-1)
    assert emphasis[1] > 0.5
    assert {attempt(at)[0] for at in (12, 25, 40)} == {whole}
