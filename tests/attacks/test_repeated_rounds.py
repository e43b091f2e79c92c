"""A server that cheats: it wants two sums over almost the same sites.

An update depends on its order's params and the site alone, so that a killed client sends the same
again. A server that opens a round, says that the attempt failed, and has it done again without one
site, would have two sums whose difference is that site's update. No cryptography of one round can
prevent that; a site that helps to open one sum a round does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import toy

from fedcore import params as flat
from fedcore.client.private import forget, training_key
from fedcore.errors import QuorumNotReached
from fedcore.params import Params
from fedcore.records import ClientUpdate
from fedcore.server.run import fail_attempt, load_state
from fedcore.store.memory import MemoryStore

FIELDS = {"rounds": 1, "aggregation": {"weights": "uniform"}}


NOISE_IN_SHARES = {"clip_norm": 1.0, "noise_multiplier": 1.0, "noise_by": "sites"}


def secure(mode: str) -> toy.Plan:
    """Behind masks, or encrypted; "noisy": behind masks, and the sites add noise."""
    privacy = {"privacy": NOISE_IN_SHARES} if mode == "noisy" else {}
    how = {"mode": "masks" if mode == "noisy" else mode, "threshold": 2}
    return toy.plan(**FIELDS, **privacy, secure_aggregation=how)


def mean_of_round(
    store: MemoryStore, launcher: toy.InlineLauncher, mode: str, run_id: str = "run-1"
) -> Params:
    """The mean update of round 0 among all who answer."""
    run = toy.open_toy(store, secure(mode), run_id)
    toy.train_round(run, 0, launcher)
    return flat.subtract(load_state(run, 1).params, load_state(run, 0).params)


def deny_that_it_was_opened(store: MemoryStore, mode: str) -> None:
    """What a server can do to its own records."""
    for key in [*store.list("records/run-1/rounds/00000/attempt"), "params/run-1/00001.safetensors",
                "records/run-1/rounds/00000/record.json",
                "records/run-1/rounds/00001/state.safetensors"]:  # fmt: skip
        store.delete(key)
    fail_attempt(toy.open_toy(store, secure(mode)), 0, "so the server says")


def update_in_the_open(site: str) -> Params:
    store = MemoryStore()
    run = toy.open_toy(store, toy.plan(**FIELDS))
    toy.train_round(run, 0, toy.InlineLauncher(store, toy.site_stores()))
    order = next(order for order in toy.orders.train_orders(run, 0) if order.site == site)
    reply, _ = run.exchange.reply(order)
    assert isinstance(reply, ClientUpdate)
    return reply.update


@pytest.mark.parametrize("mode", ["masks", "ckks", "noisy"])
def test_a_round_is_not_opened_again_without_a_site(mode: str) -> None:
    """The sites that helped to open the first sum do not help with another one."""
    store, data = MemoryStore(), toy.site_stores()
    mean_of_round(store, toy.InlineLauncher(store, data), mode)
    deny_that_it_was_opened(store, mode)
    without_west = toy.InlineLauncher(store, data, absent=frozenset({"west"}))
    with pytest.raises(QuorumNotReached, match="helped to open the round's sum over other sites"):
        mean_of_round(store, without_west, mode)


@pytest.mark.parametrize("mode", ["masks", "noisy"])
def test_with_the_same_sites_it_may_be_done_again(mode: str) -> None:
    """And gives the same bits: of a noisy sum too, or the mean of many would have no noise."""
    store, data = MemoryStore(), toy.site_stores()
    first = mean_of_round(store, toy.InlineLauncher(store, data), mode)
    deny_that_it_was_opened(store, mode)
    again = mean_of_round(store, toy.InlineLauncher(store, data), mode)
    for name in first:
        np.testing.assert_array_equal(again[name], first[name])


def test_when_the_run_is_over_the_round_still_has_the_same_noise() -> None:
    """Or its sum would be shown a second time with other noise, and paid for once."""
    store, data = MemoryStore(), toy.site_stores()
    first = mean_of_round(store, toy.InlineLauncher(store, data), "noisy")
    for of in data.values():
        forget(of, "run-1")  # as the end of the run makes them
    deny_that_it_was_opened(store, "noisy")
    again = mean_of_round(store, toy.InlineLauncher(store, data), "noisy")
    for name in first:
        np.testing.assert_array_equal(again[name], first[name])


def test_from_other_params_the_same_round_has_other_noise() -> None:
    """Or the difference of both would be that of two updates, without any noise."""
    store, data = MemoryStore(), toy.site_stores()
    run = toy.open_toy(store, secure("noisy"))
    order = toy.orders.train_orders(run, 0)[0]
    of = [order, replace(order, attempt=1, seq=7), replace(order, params_digest="others"),
          replace(order, nonce="another run of this name")]  # fmt: skip
    keys = [training_key(data["east"], run.plan, one) for one in of]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_under_another_runs_name_the_difference_is_the_sites_update() -> None:
    """Open: what narrows it is a site that allows each plan by its digest, and reads its ledger."""
    of_three, of_two = (
        mean_of_round(store, toy.InlineLauncher(store, data, absent=absent), "masks", run_id)
        for store, data, absent, run_id in (
            (MemoryStore(), toy.site_stores(), frozenset[str](), "run-1"),
            (MemoryStore(), toy.site_stores(), frozenset({"west"}), "run-2"),
        )
    )
    for name, update in update_in_the_open("west").items():
        np.testing.assert_allclose(3 * of_three[name] - 2 * of_two[name], update, atol=1e-5)
        assert np.abs(update).max() > 0.1
