"""Rounds in which every site adds a share of the noise: who sees what, whoever vanishes or dies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import toy
from faults import FaultyStore, Killed
from numpy.typing import NDArray

from fedcore import params as flat
from fedcore.client import secure as client
from fedcore.client.private import training_key
from fedcore.compression.chain import chain
from fedcore.compression.codec import Turn, joined, shapes_of
from fedcore.errors import QuorumNotReached
from fedcore.privacy import discrete_gaussian, fixed_point, noise_shares
from fedcore.privacy.secagg.secrets import derive
from fedcore.server.release import privacy
from fedcore.server.run import Run, load_state
from fedcore.store.memory import MemoryStore

CLIP_NORM, MULTIPLIER, THRESHOLD = 1.0, 0.8, 2
STEPS = ("keys", "shares", "update", "consistency", "unmask")


def plan(
    rounds: int = 1,
    noise_multiplier: float = MULTIPLIER,
    compression: dict[str, Any] | None = None,
    **fields: Any,
) -> toy.Plan:
    by = "sites" if noise_multiplier else "server"
    return toy.plan(
        rounds=rounds,
        aggregation={"weights": "uniform"},
        secure_aggregation={"mode": "masks", "threshold": THRESHOLD},
        privacy={"clip_norm": CLIP_NORM, "noise_multiplier": noise_multiplier, "noise_by": by,
                 **fields},
        compression=compression or {},
    )  # fmt: skip


def play(what: toy.Plan, data: dict[str, Any], **launching: Any) -> Run:
    store = MemoryStore()
    run = toy.open_toy(store, what)
    toy.train_round(run, 0, toy.InlineLauncher(store, data, **launching))
    return run


def released(run: Run, survivors: int) -> NDArray[np.float64]:
    """The sum that the round made of the params, in name order."""
    before, after = load_state(run, 0).params, load_state(run, 1).params
    moved = flat.subtract(after, before)
    return survivors * np.concatenate([moved[name].ravel() for name in sorted(moved)]).astype(float)


def share(
    run: Run, site: str, data: MemoryStore, round_num: int = 0, *, sent: int | None = None
) -> NDArray[np.float64]:
    """What the site added, drawn again from the secret in its own bucket. ``sent``: to how
    many values; unset = all params."""
    orders = toy.orders.train_orders(run, round_num)
    order = next(order for order in orders if order.site == site)
    key = derive(training_key(data, run.plan, order), "share of noise")
    grid = fixed_point.grid(20, CLIP_NORM, 3)
    dimension = sent or sum(array.size for array in load_state(run, 0).params.values())
    unit = noise_shares.sensitivity(grid.largest, dimension)
    stddev = noise_shares.stddev(MULTIPLIER, unit, THRESHOLD)
    return discrete_gaussian.sample(stddev, dimension, key) * grid.step


@pytest.fixture
def data() -> dict[str, MemoryStore]:
    return toy.site_stores()


@pytest.mark.parametrize("step", [None, *STEPS])
def test_the_released_sum_is_that_of_the_survivors_with_the_noise_of_each(
    data: dict[str, MemoryStore], step: str | None
) -> None:
    launching = {} if step is None else {"drops": {"west": step}}
    run, bare = (
        play(plan(), data, **launching),
        play(plan(noise_multiplier=0), toy.site_stores(), **launching),
    )
    record = toy.record_of(run, 0)
    assert record is not None
    survivors = tuple(record.weights)
    assert ("west" in survivors) == (step in (None, "consistency", "unmask"))
    noise = sum(share(run, site, data[site]) for site in survivors)
    size = len(survivors)
    np.testing.assert_allclose(
        released(run, size) - released(bare, size), noise, atol=1e-5 * CLIP_NORM
    )
    assert np.std(noise) > 0.5 * MULTIPLIER * CLIP_NORM


def test_not_even_the_vector_behind_one_sites_mask_is_without_noise(
    data: dict[str, MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no sum of them is, whoever takes the masks away."""
    seen: dict[bool, dict[str, NDArray[Any]]] = {True: {}, False: {}}
    masked_input, noisy = client.secagg.masked_input, True

    def spy(vector: NDArray[Any], site: str, *rest: Any) -> NDArray[Any]:
        seen[noisy][site] = vector.copy()
        return masked_input(vector, site, *rest)

    monkeypatch.setattr(client.secagg, "masked_input", spy)
    run = play(plan(), data)
    noisy = False
    play(plan(noise_multiplier=0), toy.site_stores())
    for site in toy.SITES:
        added = (seen[True][site] - seen[False][site]).view(np.int32)
        params, weights = added[:-2], added[-2:]
        assert not weights.any()
        step = fixed_point.grid(20, CLIP_NORM, 3).step
        np.testing.assert_allclose(params * step, share(run, site, data[site]))
        assert (params != 0).all()


def test_the_server_adds_no_noise_of_its_own(
    data: dict[str, MemoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedcore.server import step

    monkeypatch.setattr(step.gaussian, "add_noise", lambda *_: pytest.fail("noise twice"))
    play(plan(), data)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_client_killed_at_every_operation_sends_the_same_noise(before: bool) -> None:
    """In its own bucket, where its secrets are: what is released has one share of noise a site."""
    at, killed = 0, True
    bare = released(play(plan(noise_multiplier=0), toy.site_stores()), 3)
    while killed:
        store, data = MemoryStore(), toy.site_stores()
        hurt = FaultyStore(data["north"], at, before=before)
        run = toy.open_toy(store, plan())
        try:
            toy.train_round(run, 0, toy.InlineLauncher(store, {**data, "north": hurt}))
            killed = False
        except Killed:
            toy.train_round(run, 0, toy.InlineLauncher(store, data))
        record = toy.record_of(run, 0)
        assert record is not None
        assert not record.dropped, f"killed at {at}"
        noise = sum(share(run, site, data[site]) for site in toy.SITES)
        np.testing.assert_allclose(released(run, 3) - bare, noise, atol=1e-5, err_msg=f"at {at}")
        at += 2
    assert at > 20


def test_over_fewer_sites_than_the_noise_was_made_for_nothing_is_opened(
    data: dict[str, MemoryStore],
) -> None:
    with pytest.raises(QuorumNotReached, match="no update was revealed"):
        play(plan(), data, drops={"west": "update", "north": "update"})


@pytest.mark.parametrize("step", [None, "update"])
def test_where_a_sample_is_sent_the_noise_is_on_all_of_it_and_on_nothing_else(
    data: dict[str, MemoryStore], step: str | None
) -> None:
    launching = {} if step is None else {"drops": {"west": step}}
    sample = {"up": [{"stage": "subsample", "every": 4}], "feedback": True}
    run = play(plan(compression=sample), data, **launching)
    bare = play(plan(noise_multiplier=0, compression=sample), toy.site_stores(), **launching)
    record = toy.record_of(run, 0)
    assert record is not None
    survivors = tuple(record.weights)
    assert ("west" in survivors) == (step is None)
    params = load_state(run, 0).params
    codec, turn = chain(**run.plan.coding("up", 0)), Turn(run.plan.seed, 0, "")
    ones = codec.encode({name: np.ones_like(array) for name, array in params.items()}, turn)
    sent = joined(codec.expand(ones, shapes_of(params), turn)) > 0
    size = int(sent.sum())
    assert 0 < size < sent.size / 2

    added = released(run, len(survivors)) - released(bare, len(survivors))
    noise = sum(share(run, site, data[site], sent=size) for site in survivors)
    np.testing.assert_allclose(added[sent], noise, atol=1e-5 * CLIP_NORM)
    assert not added[~sent].any()
    assert privacy(run.plan)["epsilon"] == privacy(plan())["epsilon"], "sampling claims nothing"


def test_noise_of_another_round_is_other_noise(data: dict[str, MemoryStore]) -> None:
    store = MemoryStore()
    run = toy.open_toy(store, plan(rounds=2))
    launcher = toy.InlineLauncher(store, data)
    keys = []
    for round_num in range(2):
        toy.train_round(run, round_num, launcher)
        keys.append(share(run, "east", data["east"], round_num))
    assert abs(np.corrcoef(*keys)[0, 1]) < 0.9
    assert (
        len(list(data["east"].list("derivatives/fedcore/training/"))) == 2 * 2
    )  # a secret, and what it hides


def test_the_model_is_the_same_bits_from_a_seed(data: dict[str, MemoryStore]) -> None:
    """For comparisons: the same share again, and no guarantee."""
    what = plan(noise_source="seeded")
    one, other = (released(play(what, toy.site_stores()), 3) for _ in range(2))
    assert np.array_equal(one, other)
    assert privacy(what)["epsilon"] is None


def test_what_is_said_of_the_run() -> None:
    told = privacy(plan(rounds=3))
    by_server = privacy(
        plan(rounds=3).model_copy(
            update={"privacy": plan(rounds=3).privacy.model_copy(update={"noise_by": "server"})}
        )
    )
    assert told["epsilon"] == by_server["epsilon"] > 0
    assert "It sees none without" not in by_server["statement"]
    assert "the server need not be trusted with a sum" in told["statement"].lower()
    assert "The server is trusted" in by_server["statement"]
