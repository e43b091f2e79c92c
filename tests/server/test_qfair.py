"""A round with fairness_q is q-FedAvg's of the paper, and what it does is what it is for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import toy

from fedcore.aggregation.qfair import fair
from fedcore.client.learner import Learner
from fedcore.config.plan import Plan
from fedcore.records import ClientUpdate, DataSummary, TrainOrder
from fedcore.server import step as steps
from fedcore.training.state import get_params

CURVES = {"east": (1.0, 4.0), "north": (2.0, -1.0), "west": (0.5, 3.0)}
"""½ h (x − c)² + 1 of each site: h and c."""
WEIGHTS = {"east": 3.0, "north": 1.0, "west": 2.0}
RATE, LOCAL_STEPS = 0.05, 4


def plan(q: float, **more: Any) -> Plan:
    return toy.plan(
        training={"optimizer": "sgd", "learning_rate": RATE},
        aggregation={"fairness_q": q},
        privacy={},
        **more,
    )


def loss(site: str, x: float) -> float:
    h, c = CURVES[site]
    return 0.5 * h * (x - c) ** 2 + 1


def descended(site: str, x: float) -> float:
    h, c = CURVES[site]
    for _ in range(LOCAL_STEPS):
        x -= RATE * h * (x - c)
    return x


def played(q: float, rounds: int) -> list[float]:
    """As the sites and the server do it."""
    what = plan(q)
    state, path = steps.initial_state(what, {"head.w": np.zeros(1, np.float32)}), [0.0]
    for _ in range(rounds):
        x, arrivals = path[-1], []
        for site in CURVES:
            update = descended(site, x) - x
            factor, gain = fair(loss=loss(site, x), norm=abs(update), q=q, learning_rate=RATE)
            arrays = {"head.w": np.array([factor * update], np.float32)}
            said = ("run", 0, "", arrays, {"head": gain * WEIGHTS[site]}, 100, DataSummary(100))
            arrivals.append((site, ClientUpdate(site, *said)))
        state, summed = steps.step(what, state, arrivals)
        assert not summed.rejected
        path.append(float(state.params["head.w"][0]))
    return path


@pytest.mark.parametrize("q", [0.5, 1.0, 5.0])
def test_a_round_is_the_paper_s_update(q: float) -> None:
    """Li et al. 2020, Algorithm 2, with p_k in front."""
    x, big_l = 0.0, 1 / RATE
    for found in played(q, 3)[1:]:
        top = bottom = 0.0
        for site, p in WEIGHTS.items():
            f, delta = loss(site, x), big_l * (x - descended(site, x))
            top += p * f**q * delta
            bottom += p * (q * f ** (q - 1) * delta**2 + big_l * f**q)
        x -= top / bottom
        assert found == pytest.approx(x, rel=1e-5)


def test_the_worst_site_is_better_off_the_larger_q_is() -> None:
    worst = [max(loss(site, played(q, 200)[-1]) for site in CURVES) for q in (0.0, 1.0, 5.0)]
    assert worst[0] > worst[1] > worst[2]


def test_a_site_s_reply_is_of_its_loss_before_the_round() -> None:
    what, plain = plan(2.0), plan(0.0)
    begin = get_params(toy.build_model(what))
    order = TrainOrder("run-1", "north", 0, 0, what.digest, "")
    fairly, _ = Learner(what, toy.site_store("north"), min_cell=5).train(order, "", begin)
    found, _ = Learner(plain, toy.site_store("north"), min_cell=5).train(order, "", begin)
    norm = found.measurements["update_norm"]
    told = fairly.measurements["loss_before"]
    assert told == pytest.approx(found.measurements["loss_first"], rel=0.2)
    factor, gain = fair(loss=told, norm=norm, q=2.0, learning_rate=RATE)
    for name, array in found.update.items():
        np.testing.assert_allclose(fairly.update[name], factor * array, rtol=1e-5, atol=1e-7)
    for module, weight in found.weights.items():
        assert fairly.weights[module] == pytest.approx(gain * weight)


def test_a_loss_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="takes powers of it"):
        fair(loss=-0.1, norm=1.0, q=1.0, learning_rate=0.1)
