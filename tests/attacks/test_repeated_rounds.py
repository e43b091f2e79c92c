"""What secure aggregation does not hide from a server that cheats: two sums over almost the same.

An update depends on its order's params and the site alone, so that a killed client sends the same
again. A server that opens a round, says that the attempt failed, and has it done again without one
site, has two sums whose difference is that site's update. No cryptography of one round can prevent
that; docs/threat-model.md says what does.
"""

from __future__ import annotations

import numpy as np
import toy

from fedcore import params as flat
from fedcore.params import Params
from fedcore.records import ClientUpdate
from fedcore.server.run import fail_attempt, load_state
from fedcore.store.memory import MemoryStore

FIELDS = {"rounds": 1, "aggregation": {"weights": "uniform"}}
MASKS = {**FIELDS, "secure_aggregation": {"mode": "masks", "threshold": 2}}


def mean_of_round(store: MemoryStore, launcher: toy.InlineLauncher) -> Params:
    """The mean update of round 0 among all who answer, behind masks."""
    run = toy.open_toy(store, toy.plan(**MASKS))
    toy.train_round(run, 0, launcher)
    return flat.subtract(load_state(run, 1).params, load_state(run, 0).params)


def deny_that_it_was_opened(store: MemoryStore) -> None:
    """What a server can do to its own records."""
    for key in [*store.list("records/run-1/rounds/00000/attempt"), "params/run-1/00001.safetensors",
                "records/run-1/rounds/00000/record.json",
                "records/run-1/rounds/00001/state.safetensors"]:  # fmt: skip
        store.delete(key)
    fail_attempt(toy.open_toy(store, toy.plan(**MASKS)), 0, "so the server says")


def update_in_the_open(site: str) -> Params:
    store = MemoryStore()
    run = toy.open_toy(store, toy.plan(**FIELDS))
    toy.train_round(run, 0, toy.InlineLauncher(store, toy.site_stores()))
    order = next(order for order in toy.orders.train_orders(run, 0) if order.site == site)
    reply, _ = run.exchange.reply(order)
    assert isinstance(reply, ClientUpdate)
    return reply.update


def test_a_round_repeated_without_a_site_shows_its_update() -> None:
    """Open: to be turned round once a site refuses to open a second sum from the same params."""
    store, data = MemoryStore(), toy.site_stores()
    of_three = mean_of_round(store, toy.InlineLauncher(store, data))
    deny_that_it_was_opened(store)
    without_west = toy.InlineLauncher(store, data, absent=frozenset({"west"}))
    of_two = mean_of_round(store, without_west)
    for name, update in update_in_the_open("west").items():
        np.testing.assert_allclose(3 * of_three[name] - 2 * of_two[name], update, atol=1e-5)
        assert np.abs(update).max() > 0.1
