"""The clip norm that follows a quantile of the updates' norms: found, stored, counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import toy
from kills import kill_server

from fedcore import params as flat
from fedcore.config.spending import round_events
from fedcore.privacy import clipping
from fedcore.records import ClientUpdate, DataSummary
from fedcore.server import step as steps
from fedcore.server.run import load_state
from fedcore.store.api import Store
from fedcore.store.memory import MemoryStore

SITES = [f"site-{number}" for number in range(8)]
PARAMS = {"head.w": np.zeros(500, np.float32)}


def plan(rounds: int = 2, noise_multiplier: float = 0.5, **adaptive: Any) -> toy.Plan:
    privacy = {
        "clip_norm": 4.0,
        "noise_multiplier": noise_multiplier,
        "noise_source": "seeded",
        "adaptive": {"noise_multiplier": 2.0, **adaptive},
    }
    return toy.plan(rounds=rounds, aggregation={"weights": "uniform"}, privacy=privacy)


def arrivals(norms: list[float], seed: int = 0) -> list[tuple[str, ClientUpdate]]:
    rng = np.random.default_rng(seed)
    sent = []
    for site, norm in zip(SITES, norms, strict=True):
        value = rng.normal(size=500)
        update = {"head.w": (norm * value / np.linalg.norm(value)).astype(np.float32)}
        sent.append((site, ClientUpdate(site, "run", 0, "", update, {"head": 1.0}, 9,
                                        DataSummary(9))))  # fmt: skip
    return sent


def test_it_comes_to_the_quantile_and_never_above_the_plans() -> None:
    norms = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 9.0]
    for quantile, low, high in ((0.5, 0.3, 0.6), (0.9, 0.6, 4.0)):
        what = plan(quantile=quantile, learning_rate=0.3)
        state = steps.initial_state(what, PARAMS)
        assert state.clip_norm == 4.0
        found = []
        for _ in range(60):
            state, _ = steps.step(what, state, arrivals(norms))
            found.append(state.clip_norm)
        assert max(found) <= 4.0
        assert low < np.median(found[30:]) < high


def test_updates_are_clipped_to_it_and_the_noise_is_scaled_to_it() -> None:
    for clip_norm in (0.5, 2.0):
        what = plan(initial=clip_norm)
        state = steps.initial_state(what, PARAMS)
        summed = steps.accumulate(what, state, arrivals([4.0] * 8))
        bare = steps.accumulate(plan(initial=4.0), steps.initial_state(plan(), PARAMS),
                                arrivals([4.0] * 8))  # fmt: skip
        ratio = summed.total.arrays["head.w"] / bare.total.arrays["head.w"]
        np.testing.assert_allclose(ratio, clip_norm / 4.0, rtol=1e-5)
        after = steps.advance(what, state, summed)
        without = summed.total.arrays["head.w"] / 8
        noise = 8 * (flat.subtract(after.params, PARAMS)["head.w"] - without)
        assert noise.std() == pytest.approx(0.5 * clip_norm, rel=0.2)


def test_the_count_has_its_noise() -> None:
    """Of ± half a site: its standard deviation is half its noise_multiplier."""
    moved = []
    for seed in range(300):
        what = plan(learning_rate=1.0).model_copy(update={"seed": seed})
        state, _ = steps.step(what, steps.initial_state(what, PARAMS), arrivals([1.0] * 8))
        assert state.clip_norm is not None
        moved.append(-np.log(state.clip_norm / 4.0) * 8)  # (8 + noise) − 8 · quantile
    unclipped = [move for move in moved if move > 0]
    assert np.mean(unclipped) == pytest.approx(4.0, abs=0.3)
    assert np.std(unclipped) == pytest.approx(2.0 * clipping.COUNT_SENSITIVITY, rel=0.2)


def test_both_releases_are_counted() -> None:
    what = plan()
    assert round_events(what) == (), "seeded noise hides nothing"
    by_os = what.model_copy(
        update={"privacy": what.privacy.model_copy(update={"noise_source": "os"})}
    )
    assert sorted(e.noise_multiplier for e in round_events(by_os)) == [0.5, 2.0]
    assert {event.unit for event in round_events(by_os)} == {"site"}


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_server_killed_at_any_moment_goes_on_with_the_same_norm(before: bool) -> None:
    what = plan(rounds=2, learning_rate=1.0)

    def play(store: Store, launcher: toy.InlineLauncher) -> tuple[float | None, str]:
        run = toy.open_toy(store, what)
        toy.play(run, launcher)
        state = load_state(run, 2)
        return state.clip_norm, flat.digest(state.params)

    undisturbed = MemoryStore()
    wanted = play(undisturbed, toy.InlineLauncher(undisturbed, toy.site_stores()))
    assert wanted[0] not in (None, 4.0)

    def check(store: Store, at: int) -> None:
        state = load_state(toy.open_toy(store, what), 2)
        assert (state.clip_norm, flat.digest(state.params)) == wanted, f"killed at {at}"

    assert kill_server(play, check, before=before, every=7) > 30
