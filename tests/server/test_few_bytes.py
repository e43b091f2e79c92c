"""Coded updates and changes in whole runs: every party has the same params, killed or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import toy
from coded import CODINGS
from faults import FaultyStore, Killed
from hypothesis import given
from malformed import Change, changes, fuzzed

from fedcore.client.inbox import Inbox
from fedcore.client.loop import Client
from fedcore.compression.container import is_compressed
from fedcore.params import digest
from fedcore.records import ClientUpdate
from fedcore.server import orders, rounds
from fedcore.server.run import load_state, params_digest, record_of
from fedcore.store.exchange import Exchange
from fedcore.store.identity import Roll, open_reply
from fedcore.store.memory import MemoryStore

BOTH_WAYS = CODINGS["signs of the largest, both ways"]
IN_TURN = CODINGS["in turn"]
MASKS: dict[str, Any] = {
    "secure_aggregation": {"mode": "masks", "bits": 14},
    "aggregation": {"weights": "uniform"},
}


def plan(coding: dict[str, Any], rounds: int = 4, **more: Any) -> toy.Plan:
    return toy.plan(rounds=rounds, compression=coding, **more)


def played(what: toy.Plan) -> tuple[MemoryStore, toy.Run, list[Any], list[Any]]:
    store = MemoryStore()
    run = toy.open_toy(store, what)
    return store, run, *toy.play(run, toy.InlineLauncher(store, toy.site_stores()))


CASES = [
    *(pytest.param(coding, {}, id=name) for name, coding in CODINGS.items()),
    pytest.param(IN_TURN, MASKS, id="in turn, masks"),
]


@pytest.mark.parametrize(("coding", "more"), CASES)
def test_it_learns_and_everybody_has_the_params_that_are_judged(
    coding: dict[str, Any], more: dict[str, Any]
) -> None:
    _, run, records, evaluations = played(plan(coding, rounds=6, **more))
    assert not any(record.dropped for record in records)
    assert not any(evaluation.missing for evaluation in evaluations)
    assert evaluations[-1].summary["overall"]["macro_auc"]["value"] > 0.95
    for round_num in range(1, 7):
        state = load_state(run, round_num)
        assert digest(state.shared) == params_digest(run, round_num)
        assert (state.at_sites is not None) == bool(coding.get("down"))
        whole, _ = run.exchange.params("run-1", round_num, digest(state.shared))
        assert digest(whole) == digest(state.shared)


def test_the_last_change_is_finer() -> None:
    """What coding lost is not in the model that is released."""
    _, run, *_ = played(plan(BOTH_WAYS))
    apart = []
    for round_num in (3, 4):
        state = load_state(run, round_num)
        apart.append(max(np.abs(state.params[k] - state.shared[k]).max() for k in state.params))
    assert apart[1] < apart[0] / 20


def test_replies_are_in_the_container() -> None:
    store, *_ = played(plan(BOTH_WAYS, rounds=1))
    replies = [store.get(key) for key in store.list("replies/")]
    assert replies
    assert all(is_compressed(open_reply(data, "north", Roll())) for data in replies)


def nothing_spent() -> dict[str, float]:
    return {"bytes_down": 0.0, "seconds.download": 0.0}


@pytest.mark.parametrize("first", [0, 2, 4])
def test_who_comes_late_gets_the_same_params(first: int) -> None:
    what = plan(BOTH_WAYS)
    _, run, *_ = played(what)
    inbox = Inbox(run.exchange)
    for round_num in range(first, 5):
        wanted = params_digest(run, round_num)
        got = inbox.params("run-1", round_num, wanted, nothing_spent(), what)
        assert digest(got) == wanted
        with pytest.raises(ValueError, match="read-only"):
            got["head.bias"][0] = 1


def test_round_zero_is_not_fetched_and_a_change_is_less_than_the_whole() -> None:
    what = plan(BOTH_WAYS)
    _, run, *_ = played(what)
    inbox, sizes = Inbox(run.exchange), []
    for round_num in range(3):
        spent = nothing_spent()
        inbox.params("run-1", round_num, params_digest(run, round_num), spent, what)
        sizes.append(spent["bytes_down"])
    whole = nothing_spent()
    Inbox(run.exchange).params("run-1", 1, params_digest(run, 1), whole)
    assert sizes[0] == 0
    assert 0 < max(sizes[1:]) < whole["bytes_down"]


@pytest.mark.parametrize("bad", [None, b"", b"junk" * 50, "another round's"])
def test_where_a_change_does_not_lead_there_the_whole_params_do(bad: Any) -> None:
    what = plan(BOTH_WAYS)
    store, run, *_ = played(what)
    key = "params/run-1/00002.change.safetensors"
    other = store.get("params/run-1/00003.change.safetensors")
    store.delete(key)
    if bad is not None:
        store.put(key, other if isinstance(bad, str) else bad)
    wanted = params_digest(run, 2)
    assert digest(Inbox(run.exchange).params("run-1", 2, wanted, nothing_spent(), what)) == wanted


def test_another_initial_model_is_noticed() -> None:
    """Where round 0 did not come of the plan's seed, changes lead astray and the whole is got."""
    what = plan(BOTH_WAYS)
    _, run, *_ = played(what)
    elsewhere = what.model_copy(update={"seed": 8})
    wanted = params_digest(run, 1)
    got = Inbox(run.exchange).params("run-1", 1, wanted, nothing_spent(), elsewhere)
    assert digest(got) == wanted


def finished(server: Any, launcher: toy.InlineLauncher, what: toy.Plan) -> str:
    run = toy.open_toy(server, what)
    toy.play(run, launcher)
    return digest(load_state(run, what.rounds).shared)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_server_killed_as_it_publishes(before: bool) -> None:
    """``test_resume`` goes through every operation; these are the ones that coding adds to."""
    what = plan(BOTH_WAYS, rounds=2)
    undisturbed = digest(load_state(played(what)[1], 2).shared)
    counting = FaultyStore(store := MemoryStore(), at=-1)
    finished(counting, toy.InlineLauncher(store, toy.site_stores()), what)
    published = [at for at, name in enumerate(counting.operations) if "params/" in name]
    assert len(published) > 4
    for at in published:
        store = MemoryStore()
        launcher = toy.InlineLauncher(store, toy.site_stores())
        with pytest.raises(Killed):
            finished(FaultyStore(store, at, before=before), launcher, what)
        assert finished(store, launcher, what) == undisturbed, f"killed at operation {at}"


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(("coding", "more"), [(BOTH_WAYS, {}), (IN_TURN, MASKS)], ids=["", "masks"])
def test_client_killed_at_every_operation_on_its_residual(
    coding: dict[str, Any], more: dict[str, Any], before: bool
) -> None:
    """Its residual written or not: it sends the same update, and the run is the same."""
    what = plan(coding, rounds=2, **more)
    undisturbed = digest(load_state(played(what)[1], 2).shared)

    def attempt(at: int) -> tuple[str, list[str]]:
        store, data = MemoryStore(), toy.site_stores()
        faulty = FaultyStore(data["north"], at, before=before)
        try:
            launcher = toy.InlineLauncher(store, {**data, "north": faulty})
            return finished(store, launcher, what), faulty.operations
        except Killed:
            return finished(store, toy.InlineLauncher(store, data), what), faulty.operations

    result, operations = attempt(-1)
    assert result == undisturbed
    assert sum(name.startswith("create derivatives/fedcore/residual") for name in operations) == 2
    for at in (at for at, name in enumerate(operations) if "/residual/" in name):
        assert attempt(at)[0] == undisturbed, f"killed at {operations[at]}"


def test_an_update_that_never_left_takes_no_residual_with_it() -> None:
    """The client wrote what is left after round 0 and died, and the server went on without it."""
    what = plan({**BOTH_WAYS, "down": []} | {"last": None}, rounds=3)
    residuals = {}
    for dies in (False, True):
        store, data = MemoryStore(), toy.site_stores()
        run = toy.open_toy(store, what)
        asked = orders.train_orders(run, 0)
        others = toy.InlineLauncher(store, data, absent=frozenset({"north"}))
        for order in asked:
            others.ensure(order)
        client = Client(toy.policy("north"), Exchange(store), data["north"])
        if dies:
            seq = next(order.seq for order in asked if order.site == "north")
            assert isinstance(toy.answer(client, "run-1", seq), ClientUpdate)  # and is not sent
        rounds.aggregate(run, 0, asked, {"north": "gone"})
        toy.play(run, toy.InlineLauncher(store, data))
        residuals[dies] = load_state(run, 3).shared
    assert digest(residuals[True]) == digest(residuals[False])


def test_what_is_left_is_deleted_when_the_run_is_over() -> None:
    what, store, data = plan(BOTH_WAYS, rounds=3), MemoryStore(), toy.site_stores()
    run = toy.open_toy(store, what)
    toy.play(run, toy.InlineLauncher(store, data))
    kept = [list(bucket.list("derivatives/fedcore/residual/")) for bucket in data.values()]
    assert all(0 < len(keys) <= 2 for keys in kept), "and not of every round"
    toy.evaluate(run, 3, "test", toy.InlineLauncher(store, data))
    orders.finish(run)
    for site, bucket in data.items():
        client = Client(toy.policy(site), Exchange(store), bucket)
        assert toy.answer(client, "run-1", orders.sequence(run, site, 3) + 1) is None
        assert not list(bucket.list("derivatives/fedcore/residual/"))


class Case:
    """A round of coded updates; ``with_reply`` replaces north's."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.plan = plan(BOTH_WAYS | {"container": "none"})
        run = toy.open_toy(self.store, self.plan)
        self.orders = orders.train_orders(run, 0)
        launcher = toy.InlineLauncher(self.store, toy.site_stores())
        for order in self.orders:
            launcher.ensure(order)
        seq = next(order.seq for order in self.orders if order.site == "north")
        self.key = f"replies/north/run-1/{seq:06d}.safetensors"
        self.good = bytes(open_reply(self.store.get(self.key), "north", Roll()))

    def goes_on(self, data: bytes) -> Any:
        copy = MemoryStore()
        for name in self.store.list():
            copy.put(name, self.store.get(name))
        copy.put(self.key, data)
        run = toy.open_toy(copy, self.plan)
        record = rounds.aggregate(run, 0, self.orders, {})
        assert {"east", "west"} <= set(record.weights)
        assert ("north" in record.weights) != bool(record.dropped.get("north"))
        state = load_state(run, 1)
        assert all(np.isfinite(array).all() for array in state.shared.values())
        return record


CASE = Case()


@fuzzed
@given(changes(CASE.good))
def test_a_round_goes_on_whatever_one_site_sends(change: Change) -> None:
    CASE.goes_on(change(CASE.good))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_steps_that_are_no_numbers(value: float) -> None:
    run = toy.open_toy(CASE.store, CASE.plan)
    order = next(order for order in CASE.orders if order.site == "north")
    reply, _ = run.exchange.reply(order)
    assert isinstance(reply, ClientUpdate)
    update = {**reply.update, "1/steps": np.full_like(reply.update["1/steps"], value)}
    copy = Exchange(store := MemoryStore())
    copy.put_reply(replace(reply, update=update))
    record = CASE.goes_on(store.get(CASE.key))
    assert record_of(run, 0) is None, "the case itself stays as it is"
    assert "NaN or an infinity" in record.dropped["north"]
