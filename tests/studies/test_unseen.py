"""The study of unseen scanners: plans that differ, in the landmarks of those who train."""

from __future__ import annotations

import numpy as np
import pytest

from studies import rows, unseen

LANDMARKS = {name: np.linspace(0, 1, 11).tolist() for name in ("t1ce", "flair")}


@pytest.mark.parametrize("method", unseen.METHODS)
def test_every_method_is_a_legal_plan_that_differs(method: str) -> None:
    plans = {name: unseen.plan_of(name, 1, LANDMARKS) for name in unseen.METHODS}
    assert plans[method].digest not in {p.digest for n, p in plans.items() if n != method}
    for modality in plans[method].task.modalities.values():
        assert (modality.landmarks is not None) == unseen.METHODS[method].harmonised
    assert (plans[method].training.augment is not None) == ("varied" in method)


def test_a_gain_is_by_seed_and_compared_with_its_goal() -> None:
    found = {"FedAvg": [0.7, 0.8], "varied": [0.75, 0.81], "harmonised": [0.71, 0.82]}
    gains = {
        r.method: r
        for r in rows.gained("unseen", "s", "macro_auc", found, base="FedAvg", goal=0.02)
        if r.metric == "macro_auc gained"
    }
    assert gains["varied"].mean == pytest.approx(0.03)
    assert gains["varied"].sd == pytest.approx(0.0283)
    assert (gains["varied"].met, gains["harmonised"].met) == (True, False)
