"""Poisoned updates against the mean and each robust rule: what holds, and up to where.

Eleven sites fit one linear model by least squares, which is convex: an honest federation comes to
``OPTIMUM``, and harm is how far from it, in units of where it began (1 = nothing was learnt).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import toy
from faults import FaultyStore, Killed
from numpy.typing import NDArray

from fedcore.config.plan import Plan
from fedcore.params import digest
from fedcore.records import ClientUpdate, DataSummary, TrainOrder
from fedcore.server import orders, rounds
from fedcore.server.run import load_state
from fedcore.server.step import ServerState, initial_state, step
from fedcore.store.exchange import Exchange
from fedcore.store.memory import MemoryStore

Vector = NDArray[np.float64]
Attack = Callable[[Vector, Vector, Vector, np.random.Generator], Vector]
"""(what the liar would honestly send, the honest sites' updates (m, d), the params) → (d,)."""

N, D, ROWS, ROUNDS = 11, 20, 150, 40
OPTIMUM = np.random.default_rng(1).normal(size=D) / np.sqrt(D)
FEATURES = np.random.default_rng(2).normal(size=(N, ROWS, D))
TARGETS = FEATURES @ OPTIMUM + 0.2 * np.random.default_rng(3).normal(size=(N, ROWS))


def local_update(site: int, params: Vector, targets: Vector) -> Vector:
    """One gradient step of the site on its own table."""
    residuals = FEATURES[site] @ params - targets[site]
    gradient: Vector = FEATURES[site].T @ residuals / len(residuals)
    return -0.3 * gradient


def sign_flip(own: Vector, honest: Vector, params: Vector, rng: np.random.Generator) -> Vector:
    return -100 * own


def noise(own: Vector, honest: Vector, params: Vector, rng: np.random.Generator) -> Vector:
    return 100 * rng.normal(size=D)


def huge(own: Vector, honest: Vector, params: Vector, rng: np.random.Generator) -> Vector:
    """Finite, and so nothing to refuse; all liars the same way."""
    return np.full(D, 1e30)


def label_flip(own: Vector, honest: Vector, params: Vector, rng: np.random.Generator) -> Vector:
    """What a site would send whose labels are all turned round; nothing about its size is odd."""
    return local_update(0, params, -TARGETS)


def a_little(own: Vector, honest: Vector, params: Vector, rng: np.random.Generator) -> Vector:
    """ "A Little Is Enough" (Baruch et al. 2019, Algorithm 3): all liars send mean − z · σ of what
    the honest send, z so that some of those lie further out."""
    liars = N - len(honest)
    supporters = N // 2 + 1 - liars
    z = NormalDist().inv_cdf((len(honest) - supporters) / len(honest))
    return np.asarray(honest.mean(axis=0) - z * honest.std(axis=0))


LOUD = (sign_flip, noise, huge, label_flip)
TOLERATED = {
    "median": ({"rule": "median"}, 5),
    "trimmed_mean": ({"rule": "trimmed_mean", "trim": 3}, 3),
    "krum": ({"rule": "krum", "byzantine": 4}, 4),
    "multi_krum": ({"rule": "multi_krum", "byzantine": 4}, 4),
}
"""Rule → its fields in the plan, and how many liars of ``N`` it bears (its breakdown point)."""


BORNE = 0.25
"""Harm below this is what honest sites of this spread can disagree about under a rule."""


def plan(rule: Mapping[str, Any], clip_norm: float | None) -> Plan:
    return toy.plan(
        aggregation={"weights": "uniform", **rule},
        cohort={"min_clients": N},
        privacy={"clip_norm": clip_norm},
    )


def reply(site: int, update: Vector) -> tuple[str, ClientUpdate]:
    name = f"site-{site:02d}"
    arrays = {"head.w": update.astype(np.float32)}
    return name, ClientUpdate(name, "run", 0, "", arrays, {"head": 1.0}, ROWS, DataSummary(ROWS))


def updates(state: ServerState, attack: Attack, liars: int, round_num: int) -> list[Vector]:
    """What the sites send: the first ``liars`` of them as the attack says."""
    params = state.params["head.w"].astype(np.float64)
    own = [local_update(site, params, TARGETS) for site in range(N)]
    rng = np.random.default_rng(round_num)
    honest = np.array(own[liars:])
    return [attack(one, honest, params, rng) for one in own[:liars]] + own[liars:]


def harm(attack: Attack, liars: int, *, clip_norm: float | None = None, **rule: Any) -> float:
    """The distance to the optimum at the end, in units of that at the beginning."""
    what = plan(rule, clip_norm)
    state = initial_state(what, {"head.w": np.zeros(D, np.float32)})
    for round_num in range(ROUNDS):
        sent = updates(state, attack, liars, round_num)
        state, _ = step(what, state, [reply(site, one) for site, one in enumerate(sent)])
    return float(np.linalg.norm(state.params["head.w"] - OPTIMUM) / np.linalg.norm(OPTIMUM))


every_rule = pytest.mark.parametrize("rule", TOLERATED)


def test_honest_sites_learn_under_every_rule() -> None:
    assert harm(sign_flip, 0) < 0.05
    for fields, _ in TOLERATED.values():
        assert harm(sign_flip, 0, **fields) < BORNE


def test_the_mean_bears_nobody_and_clipping_buys_time() -> None:
    """One liar owns the mean. Clipped, he moves it by clip_norm / N a round: enough to be felt by
    the end, and two of them undo all that nine others learn."""
    for attack in (sign_flip, noise, huge):
        assert harm(attack, 1) > 50
    clipped = [harm(sign_flip, liars, clip_norm=1.0) for liars in (0, 1, 2)]
    assert clipped[0] < 0.05 < BORNE < clipped[1] < 1 < clipped[2] < 2


@pytest.mark.parametrize("clip_norm", [None, 1.0], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("attack", [*LOUD, a_little], ids=lambda attack: attack.__name__)
@every_rule
def test_up_to_its_breakdown_point_a_rule_holds(
    rule: str, attack: Attack, clip_norm: float | None
) -> None:
    fields, bound = TOLERATED[rule]
    for liars in (1, bound):
        assert harm(attack, liars, clip_norm=clip_norm, **fields) < BORNE


@pytest.mark.parametrize("clip_norm", [None, 1.0], ids=["unclipped", "clipped"])
@pytest.mark.parametrize(
    ("rule", "liars"), [("median", 6), ("trimmed_mean", 4), ("krum", 6), ("multi_krum", 6)]
)
def test_beyond_its_breakdown_point_a_rule_breaks(
    rule: str, liars: int, clip_norm: float | None
) -> None:
    """One liar more is one too many for median and trimmed mean. Krum promises nothing from f + 1
    on, and f + 2 who agree win: each one's n − f − 2 nearest neighbours are the others."""
    fields, bound = TOLERATED[rule]
    assert liars == bound + (2 if "krum" in rule else 1)
    assert harm(huge, liars, clip_norm=clip_norm, **fields) > 1


def test_a_little_is_enough_is_not_seen_but_stays_within_the_spread() -> None:
    """Krum takes such updates for the most typical ones; the median moves, but not far."""
    what = plan(TOLERATED["krum"][0], None)
    state = initial_state(what, {"head.w": np.zeros(D, np.float32)})
    fooled = 0
    for round_num in range(ROUNDS):
        sent = updates(state, a_little, 4, round_num)
        state, summed = step(what, state, [reply(site, one) for site, one in enumerate(sent)])
        fooled += any(summed.weights[f"site-{site:02d}"]["head"] for site in range(4))
    assert fooled > ROUNDS / 2
    assert 1.5 * harm(a_little, 0, rule="median") < harm(a_little, 5, rule="median") < BORNE


PLAN = toy.plan(aggregation={"rule": "median", "weights": "uniform"}, cohort={"min_clients": 3})


def poisoned_round(store: MemoryStore) -> tuple[toy.Run, Sequence[TrainOrder]]:
    """Round 0 among toy's three sites, answered; north's update is turned round, a hundredfold."""
    run = toy.open_toy(store, PLAN)
    asked = orders.train_orders(run, 0)
    launcher = toy.InlineLauncher(store, toy.site_stores())
    for order in asked:
        launcher.ensure(order)
    order = next(order for order in asked if order.site == "north")
    honest, _ = Exchange(store).reply(order)
    assert isinstance(honest, ClientUpdate)
    store.delete("replies/north/run-1/000000.safetensors")
    bad = {name: -100 * array for name, array in honest.update.items()}
    Exchange(store).put_reply(replace(honest, update=bad))
    return run, asked


def test_a_round_with_a_robust_rule_goes_on_after_a_kill() -> None:
    """Through the exchange, killed at each operation: the same params, which keep to the honest."""
    store = MemoryStore()
    run, asked = poisoned_round(store)
    rounds.aggregate(run, 0, asked, {})
    before, after = (load_state(run, round_num).params for round_num in (0, 1))
    wanted = digest(after)
    for order in asked:
        if order.site != "north":
            sent, _ = run.exchange.reply(order)
            assert isinstance(sent, ClientUpdate)
            moved = sum(float(((after[k] - before[k]) * sent.update[k]).sum()) for k in after)
            assert moved > 0, f"the model goes where {order.site} wants it"
    for at in itertools.count():
        store = MemoryStore()
        run, asked = poisoned_round(store)
        faulty = FaultyStore(store, at)
        try:
            rounds.aggregate(replace(run, exchange=Exchange(faulty)), 0, asked, {})
        except Killed:
            rounds.aggregate(run, 0, asked, {})
            assert digest(load_state(run, 1).params) == wanted, f"killed at operation {at}"
        else:
            assert at > 5
            return
