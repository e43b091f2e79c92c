"""Rounds behind masks, whole: the same sum, whoever vanishes or is killed, and at what moment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import toy
from faults import FaultyStore
from kills import Check, Play, kill_client, kill_server

from fedcore.errors import QuorumNotReached
from fedcore.params import digest
from fedcore.records import Message, SealedUpdate
from fedcore.server.run import load_state
from fedcore.store.api import Store
from fedcore.store.memory import MemoryStore

STEPS = ("keys", "shares", "update", "consistency", "unmask")
CKKS: dict[str, dict[str, Any]] = {
    "all": {"mode": "ckks", "threshold": 2},
    "rest masked": {"mode": "ckks", "threshold": 2, "encrypt": ["head.*"]},
    "rest plain": {"mode": "ckks", "threshold": 2, "encrypt": ["head.*"], "rest": "plain"},
    "share": {"mode": "ckks", "threshold": 2, "encrypt_share": 0.4},
}


def plan(rounds: int = 2, **sections: Any) -> toy.Plan:
    """The toy plan behind masks: two of the three sites must stay."""
    fields: dict[str, Any] = {
        "rounds": rounds,
        "aggregation": {"weights": "uniform"},
        "secure_aggregation": {"mode": "masks", "threshold": 2},
        **sections,
    }
    return toy.plan(**fields)


def play(server: Store, launcher: toy.InlineLauncher, what: toy.Plan) -> str:
    run = toy.open_toy(server, what)
    toy.play(run, launcher)
    return digest(load_state(run, what.rounds).params)


@pytest.fixture
def data() -> dict[str, MemoryStore]:
    return toy.site_stores()


@pytest.fixture
def undisturbed() -> str:
    store = MemoryStore()
    return play(store, toy.InlineLauncher(store, toy.site_stores()), plan())


@pytest.fixture
def undisturbed_round() -> str:
    store = MemoryStore()
    return play(store, toy.InlineLauncher(store, toy.site_stores()), plan(rounds=1))


def test_the_model_is_that_of_a_plain_run_up_to_rounding() -> None:
    params = []
    for what in (plan(), toy.plan(aggregation={"weights": "uniform"})):
        store = MemoryStore()
        run = toy.open_toy(store, what)
        records, _ = toy.play(run, toy.InlineLauncher(store, toy.site_stores()))
        assert all(not record.dropped for record in records)
        params.append(load_state(run, 2).params)
    for name in params[0]:
        np.testing.assert_allclose(params[0][name], params[1][name], atol=2e-5)


def test_the_server_gets_words_and_nothing_that_says_who_has_what(
    data: dict[str, MemoryStore],
) -> None:
    store = MemoryStore()
    run = toy.open_toy(store, plan(rounds=1))
    (record,), _ = toy.play(run, toy.InlineLauncher(store, data))
    order = toy.orders.train_orders(run, 0)[0]
    reply, _ = run.exchange.reply(order)
    assert isinstance(reply, SealedUpdate)
    assert {name: array.dtype for name, array in reply.arrays.items()} == {"masked": np.uint32}
    assert all(name.startswith("seconds.") or name == "bytes_down" for name in reply.measurements)
    assert record.weights == {site: {} for site in toy.SITES}


def test_weights_are_summed_behind_the_masks_too() -> None:
    """By examples, with a cap: the mean is the plain run's, and no weight was told."""
    means = []
    for what in (
        plan(rounds=1, aggregation={"weights": "examples", "weight_cap": 64}),
        toy.plan(rounds=1, aggregation={"weights": "examples", "weight_cap": 64}),
    ):
        store = MemoryStore()
        stores = toy.site_stores()
        stores["west"].put("table.csv", toy.table("west", rows=24))  # another weight
        run = toy.open_toy(store, what)
        toy.play(run, toy.InlineLauncher(store, stores))
        means.append(load_state(run, 1).params)
    for name in means[0]:
        np.testing.assert_allclose(means[0][name], means[1][name], atol=2e-5)


@pytest.mark.parametrize("step", STEPS)
def test_a_site_that_vanishes_at_any_step_costs_only_itself(
    data: dict[str, MemoryStore], step: str
) -> None:
    """Its update counts if it was sent; the sum is exactly that of a run without its update."""
    store = MemoryStore()
    run = toy.open_toy(store, plan(rounds=1))
    launcher = toy.InlineLauncher(store, data, drops={"west": step})
    (record,), (evaluation,) = toy.play(run, launcher)
    counted = ("east", "north", "west") if step in ("consistency", "unmask") else ("east", "north")
    assert tuple(record.weights) == counted
    assert ("west" in record.dropped) == (step in ("keys", "shares", "update"))
    assert set(evaluation.sites) == set(toy.SITES), "it is back for the evaluation"
    plain = MemoryStore()
    absent = frozenset() if len(counted) == 3 else frozenset({"west"})
    compared = toy.open_toy(plain, plan(rounds=1))
    orders = toy.orders.train_orders(compared, 0)
    assert len(orders) == 3
    toy.train_round(compared, 0, toy.InlineLauncher(plain, toy.site_stores(), absent=absent))
    alike = step in ("consistency", "unmask", "keys")  # the roster's size sets the grid
    if alike:
        assert digest(load_state(run, 1).params) == digest(load_state(compared, 1).params)


@pytest.mark.parametrize("step", STEPS)
def test_when_too_many_vanish_nothing_is_revealed_and_the_round_can_be_begun_anew(
    undisturbed: str, step: str
) -> None:
    store, data = MemoryStore(), toy.site_stores()
    run = toy.open_toy(store, plan())
    leaving = toy.InlineLauncher(store, data, drops={"west": step, "north": step})
    with pytest.raises(QuorumNotReached, match="no update was revealed"):
        toy.play(run, leaving)
    assert not list(store.list("records/run-1/rounds/00001")), "no round was made of it"
    revealed = [key for key in store.list("replies/") if ".unmask." in key]
    assert len(revealed) < 2, "the threshold of shares was not reached"
    assert play(store, toy.InlineLauncher(store, data), plan()) == undisturbed
    assert [tried.round_num for tried in toy.open_toy(store, plan()).failed] == [0]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_server_killed_at_every_operation(undisturbed_round: str, before: bool) -> None:
    at = kill_server(one_round(plan()), same_params(undisturbed_round), before=before)
    assert at > 80, "the round must have enough boundaries for this to mean something"


@pytest.mark.parametrize("own", [False, True], ids=["exchange", "data"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_client_killed_at_every_operation(undisturbed_round: str, before: bool, own: bool) -> None:
    """A client started again says what it said before, with the same secrets."""
    check = same_params(undisturbed_round)
    at = kill_client(one_round(plan()), check, before=before, in_own_bucket=own)
    assert at > 20, "the round must have enough boundaries for this to mean something"


def one_round(what: toy.Plan) -> Play:
    what = what.model_copy(update={"rounds": 1})
    return lambda store, launcher: play(store, launcher, what)


def same_params(wanted: str) -> Check:
    def check(store: Store, at: int) -> None:
        found = digest(load_state(toy.open_toy(store, plan(rounds=1)), 1).params)
        assert found == wanted, f"killed at operation {at}"

    return check


def test_secrets_of_a_round_are_deleted_when_it_is_over(data: dict[str, MemoryStore]) -> None:
    store = MemoryStore()
    run = toy.open_toy(store, plan())
    launcher = toy.InlineLauncher(store, data)
    toy.play(run, launcher)
    toy.orders.finish(run)
    for site in toy.SITES:
        launcher.say_everything(site, "run-1", 5)
        kept = list(data[site].list("derivatives/fedcore/secure/"))
        assert kept
        assert all(key.endswith((".order", ".opened")) for key in kept), "which hold no secret"


def test_requests_per_site_and_round_are_few(data: dict[str, MemoryStore]) -> None:
    """What the site's line carries: five objects up and six down, besides looking for them."""
    store = MemoryStore()
    counting = FaultyStore(store, at=-1)
    run = toy.open_toy(store, plan(rounds=1))
    toy.train_round(run, 0, toy.InlineLauncher(counting, data))
    of_north = [done for done in counting.operations if "/north/run-1/" in done]
    up = [done for done in of_north if done.startswith("create replies/")]
    assert len(up) == len(STEPS)
    relays = {done.split(" ")[1] for done in of_north if done.startswith("get orders/")}
    assert len(relays) == 5, "the order, roster, inbox, survivors, signatures"


def test_messages_name_their_step(data: dict[str, MemoryStore]) -> None:
    store = MemoryStore()
    run = toy.open_toy(store, plan(rounds=1))
    toy.play(run, toy.InlineLauncher(store, data))
    order = toy.orders.train_orders(run, 0)[1]
    for step in ("keys", "shares", "consistency", "unmask"):
        reply, _ = run.exchange.reply(order, step=step)
        assert isinstance(reply, Message)
        assert (reply.step, reply.site) == (step, order.site)


def close(store: Store, what: toy.Plan) -> None:
    """The params are those of a plain run, up to the noise of encryption and the rounding."""
    plain = toy.plan(rounds=what.rounds, aggregation={"weights": "uniform"})
    compared = MemoryStore()
    run = toy.open_toy(compared, plain)
    toy.play(run, toy.InlineLauncher(compared, toy.site_stores()))
    wanted = load_state(run, what.rounds).params
    found = load_state(toy.open_toy(store, what), what.rounds).params
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-4)


def encrypted(kind: str) -> toy.Plan:
    fields = {
        k: v for k, v in CKKS[kind].items() if not (kind == "rest plain" and k == "threshold")
    }
    return plan(secure_aggregation=fields)


@pytest.mark.parametrize("kind", CKKS)
def test_encrypted_the_model_is_that_of_a_plain_run(kind: str) -> None:
    store, what = MemoryStore(), encrypted(kind)
    run = toy.open_toy(store, what)
    records, _ = toy.play(run, toy.InlineLauncher(store, toy.site_stores()))
    assert all(not record.dropped for record in records)
    close(store, what)
    order = toy.orders.train_orders(run, 1)[0]
    reply, _ = run.exchange.reply(order)
    assert isinstance(reply, SealedUpdate)
    parts = {"rest masked": {"masked"}, "rest plain": {"plain"}, "share": {"masked"}}.get(
        kind, set()
    )
    assert set(reply.arrays) == {"encrypted", "tag"} | parts


def test_the_site_that_makes_the_key_may_vanish_and_the_next_attempt_has_another() -> None:
    store, data = MemoryStore(), toy.site_stores()
    what = encrypted("all")
    run = toy.open_toy(store, what)
    with pytest.raises(QuorumNotReached, match="east, who was to make the key, did not"):
        toy.play(run, toy.InlineLauncher(store, data, drops={"east": "shares"}))
    again = toy.open_toy(store, what)
    records, _ = toy.play(again, toy.InlineLauncher(store, data, drops={"east": "shares"}))
    assert "east" in records[0].dropped
    assert set(records[0].weights) == {"north", "west"}


def test_a_site_that_does_not_open_the_sum_is_followed_by_the_next() -> None:
    store, what = MemoryStore(), encrypted("all")
    run = toy.open_toy(store, what)
    toy.play(run, toy.InlineLauncher(store, toy.site_stores(), drops={"east": "sum"}))
    close(store, what)
    opened = [key for key in store.list("replies/") if ".sum." in key]
    assert {key.split("/")[1] for key in opened} == {"north"}


@pytest.mark.parametrize("kind", ["all", "rest masked"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_encrypted_the_server_may_be_killed_at_every_operation(before: bool, kind: str) -> None:
    what = encrypted(kind).model_copy(update={"rounds": 1})
    at = kill_server(one_round(what), lambda store, _: close(store, what), before=before, every=5)
    assert at > 75, "the round must have enough boundaries for this to mean something"


@pytest.mark.parametrize("own", [False, True], ids=["exchange", "data"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_encrypted_a_client_may_be_killed_at_every_operation(before: bool, own: bool) -> None:
    what = encrypted("rest masked").model_copy(update={"rounds": 1})

    def check(store: Store, at: int) -> None:
        close(store, what)
        record = toy.record_of(toy.open_toy(store, what), 0)
        assert record is not None
        assert not record.dropped, f"killed at {at}"

    at = kill_client(one_round(what), check, before=before, in_own_bucket=own, every=3)
    assert at > 20, "the round must have enough boundaries for this to mean something"
