"""Moments that the sites share: what is estimated, what travels, and what they are good for."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
import toy
from torch import nn
from torch.nn.functional import normalize

from fedcore.config.learning import Training
from fedcore.config.plan import Plan
from fedcore.errors import ConfigError
from fedcore.registry import onnx
from fedcore.server.run import load_state
from fedcore.store.memory import MemoryStore
from fedcore.training.alignment import Features, Term, discrepancy, moments
from fedcore.training.state import get_params, load_params

SITES = {"east": (2.0, 0.92), "north": (-2.0, 0.08), "west": (0.0, 0.5)}
"""By how much a site's scanner shifts two features, and its share of the ill."""

UNSEEN = (-4.0, 0.5)


def plan(weight: float, *, epochs: int = 2, **more: Any) -> Plan:
    align = {"alignment": {"layer": "head", "weight": weight}} if weight else {}
    fields: dict[str, Any] = {
        "rounds": 12,
        "training": {"batch_size": 16, "epochs": epochs, "learning_rate": 0.02, **align},
        "privacy": {},
    }
    return toy.plan(**{**fields, **more})


def scans(shift: float, ill: float, seed: int, rows: int = 240) -> np.ndarray:
    """One feature tells the class; the others tell the scanner."""
    rng = np.random.default_rng(seed)
    label = (rng.random(rows) < ill).astype(float)
    features = rng.normal(size=(rows, 3)) + np.outer(2 * label - 1, [1.0, 0.0, 0.0])
    return np.column_stack([features + np.array([0.0, shift, shift]), label])


def data() -> dict[str, MemoryStore]:
    stores = {site: MemoryStore() for site in SITES}
    for number, (site, (shift, ill)) in enumerate(SITES.items()):
        stores[site].put("table.csv", toy.csv_of(scans(shift, ill, number)))
    return stores


def balanced_accuracy(what: Plan, params: Mapping[str, np.ndarray], table: np.ndarray) -> float:
    module = toy.build_model(what)
    load_params(module, params)
    with torch.no_grad():
        found = module(torch.tensor(table[:, :3], dtype=torch.float32)).argmax(dim=1).numpy()
    return float(np.mean([(found[table[:, 3] == c] == c).mean() for c in (0, 1)]))


def test_the_discrepancy_is_that_of_the_kernel_and_without_bias() -> None:
    """Its mean over every pair of a site's subjects is ‖A_site − A‖², the self-pairs left out."""
    rng = torch.Generator().manual_seed(0)
    mine = normalize(torch.randn(12, 3, generator=rng, dtype=torch.float64) + 1, dim=1)
    theirs = normalize(torch.randn(30, 3, generator=rng, dtype=torch.float64), dim=1)
    ones = torch.ones(30, dtype=torch.float64)
    target = moments(theirs, ones)

    def kernel(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (1 + one @ other.T) ** 2

    off = ~torch.eye(12, dtype=torch.bool)
    wanted = kernel(mine, mine)[off].mean() - 2 * kernel(mine, theirs).mean()
    wanted = wanted + kernel(theirs, theirs).mean()
    pairs = [mine[list(pair)] for pair in combinations(range(12), 2)]
    found = torch.stack([discrepancy(pair, ones[:2], target) for pair in pairs]).mean()
    torch.testing.assert_close(found, wanted)
    whole = (moments(mine, ones[:12]) - target).square().sum()
    biased = kernel(mine, mine).mean() - kernel(mine, mine)[off].mean()
    torch.testing.assert_close(found, whole - biased)


def test_what_a_site_tells_is_bounded_whatever_it_has() -> None:
    module = nn.Sequential(nn.Linear(3, 5))
    how = Training.model_validate({"alignment": {"layer": "0"}}).alignment
    assert how is not None
    with Features(module, how) as features:
        module(torch.tensor([[1e6, -3.0, 1e8], [0.0, 0.0, 0.0], [1e-3, 0.0, 0.0]]))
    found = moments(features.last, torch.ones(3))
    assert float(found.norm()) <= 2 + 1e-6
    assert not module[0]._forward_pre_hooks, "nothing is watched afterwards"


def test_nothing_is_added_before_the_moments_are_known_or_of_one_subject_alone() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    how = Training.model_validate({"alignment": {"layer": "0"}}).alignment
    assert how is not None
    classes = torch.tensor([0, 1])
    with Features(module, how) as features:
        module(torch.randn(2, 2))
        known = moments(normalize(torch.randn(9, 2), dim=1), torch.ones(9))
        assert Term(features, how, torch.zeros(3, 3), classes)(torch.tensor([0, 1])) is None
        assert Term(features, how, known, classes)(torch.tensor([0])) is None
        whole, clipped = (
            Term(features, how, share * known, classes)(torch.tensor([0, 1])) for share in (1, 0.3)
        )
    assert whole is not None
    torch.testing.assert_close(whole, clipped)  # clipping shortens A, and A_00 says by how much


def test_the_server_s_moments_are_those_of_all_subjects_each_class_the_same() -> None:
    what, stores = plan(1.0, rounds=1), data()
    found = toy.simulate(what, stores).params["moments"]
    module = toy.build_model(what)
    wanted, sizes = [], []
    for store in stores.values():
        rows = np.array([row.split(",") for row in store.get("table.csv").decode().split()], float)
        rows = torch.tensor(rows[np.arange(len(rows)) % 4 < 2], dtype=torch.float32)
        features = normalize(module[:2](rows[:, :3]).detach(), dim=1)
        by_class = [moments(part, torch.ones(len(part))) for c in (0, 1)
                    if len(part := features[rows[:, 3] == c])]  # fmt: skip
        wanted.append(torch.stack(by_class).mean(dim=0).numpy())
        sizes.append(len(rows))
    np.testing.assert_allclose(found, np.average(wanted, axis=0, weights=sizes), atol=1e-6)
    assert found[0, 0] == pytest.approx(1.0)


@pytest.mark.parametrize("server", [{}, {"server_optimizer": "adam", "server_momentum": 0.9}])
def test_the_server_s_optimiser_leaves_them_alone(server: dict[str, Any]) -> None:
    aggregation = {"weights": "uniform", **server}
    first = toy.simulate(plan(1.0, rounds=1, aggregation=aggregation), data()).params
    plain = toy.simulate(plan(1.0, rounds=1, aggregation={"weights": "uniform"}), data()).params
    assert np.array_equal(first["moments"], plain["moments"])


def test_on_a_scanner_never_seen_the_aligned_model_is_better() -> None:
    """At the sites the scanner goes with the class, and at the one not seen it does not."""
    found = {}
    for weight in (0.0, 1.0):
        what = plan(weight)
        params = toy.simulate(what, data()).params
        unseen = balanced_accuracy(what, params, scans(*UNSEEN, seed=9, rows=2000))
        seen = [scans(*site, seed=20 + n, rows=2000) for n, site in enumerate(SITES.values())]
        found[weight] = unseen, np.mean([balanced_accuracy(what, params, s) for s in seen])
    assert found[1.0][0] > found[0.0][0] + 0.1, "where it was not seen"
    assert found[1.0][1] > found[0.0][1] - 0.02, "where it was"


def test_masks_hide_the_moments_and_change_nothing() -> None:
    states = []
    for secure in ("none", "masks"):
        store, stores = MemoryStore(), data()
        what = plan(
            1.0, rounds=2, privacy={"clip_norm": 5.0}, aggregation={"weights": "uniform"},
            secure_aggregation={"mode": secure},
        )  # fmt: skip
        run = toy.open_toy(store, what)
        toy.play(run, toy.InlineLauncher(store, stores))
        states.append(load_state(run, 2).params)
    for name, array in states[0].items():
        np.testing.assert_allclose(states[1][name], array, atol=2e-4, err_msg=name)


def test_the_export_leaves_them_out_and_agrees() -> None:
    what = plan(1.0)
    module, inputs = toy.build_model(what), torch.randn(3, 3)
    module.get_buffer("moments").fill_(0.5)
    model = onnx.export(module, inputs, metadata={})
    assert b"moments" not in model.split(b"params_digest")[0]
    assert onnx.parity(module, model, inputs) < 1e-5
    assert "moments" in get_params(module)


@pytest.mark.parametrize("layer", ["body.1", "act", ""])
def test_a_layer_that_is_none(layer: str) -> None:
    what = plan(0.0, training={"alignment": {"layer": layer}})
    with pytest.raises(ConfigError, match=r"its linear layers are: body, head"):
        toy.build_model(what)
