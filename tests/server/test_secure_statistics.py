"""Evaluations behind masks: the counts of all sites together are exact, and no site's are seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import toy
from kills import Check, kill_client, kill_server

from fedcore.client.loop import Client
from fedcore.errors import QuorumNotReached, UpdateRejected
from fedcore.params import digest
from fedcore.records import EvaluationRecord, Refusal, SealedEvaluation
from fedcore.server.evaluation import evaluation_of
from fedcore.server.orders import eval_orders
from fedcore.server.run import load_state
from fedcore.store.api import Store
from fedcore.store.exchange import Exchange
from fedcore.store.memory import MemoryStore

STEPS = ("keys", "shares", "update", "consistency", "unmask")
MASKS: dict[str, Any] = {"mode": "masks", "threshold": 2}
HIDDEN = {**MASKS, "statistics": True}


def plan(rounds: int = 1, secure: dict[str, Any] = HIDDEN) -> toy.Plan:
    return toy.plan(rounds=rounds, aggregation={"weights": "uniform"}, secure_aggregation=secure)


def play(server: Store, launcher: toy.InlineLauncher, what: toy.Plan) -> EvaluationRecord:
    """Every round, and the test split at the end: its evaluation."""
    run = toy.open_toy(server, what)
    toy.play(run, launcher)
    return toy.evaluate(run, what.rounds, "test", launcher)


def told(store: Store, what: toy.Plan) -> tuple[str, list[Any]]:
    """What came of a run: its params, and what each evaluation found."""
    run = toy.open_toy(store, what)
    written = [evaluation_of(run, number + 1, "validation") for number in range(what.rounds)]
    written.append(evaluation_of(run, what.rounds, "test"))
    found = [(e.summary, e.sites, e.missing) for e in written if e is not None]
    assert len(found) == what.rounds + 1
    return digest(load_state(run, what.rounds).params), found


@pytest.fixture
def undisturbed() -> tuple[str, list[Any]]:
    store = MemoryStore()
    play(store, toy.InlineLauncher(store, toy.site_stores()), plan())
    return told(store, plan())


@pytest.mark.parametrize("mode", ["masks", "ckks"])
def test_the_figures_over_all_sites_are_exactly_those_of_a_run_that_shows_each(mode: str) -> None:
    summaries = []
    for hidden in (True, False):
        store = MemoryStore()
        secure = {**MASKS, "mode": mode, "statistics": hidden}
        play(store, toy.InlineLauncher(store, toy.site_stores()), plan(secure=secure))
        _, found = told(store, plan(secure=secure))
        summaries.append([summary for summary, _, _ in found])
        for _, sites, missing in found:
            assert set(sites) == set(toy.SITES)
            assert any(sites.values()) is not hidden
            assert not missing
    if mode == "masks":  # what is encrypted has noise of its own
        assert summaries[0] == summaries[1]
    assert summaries[0][-1]["overall"]["num_examples"] == 36


def test_the_reply_of_a_site_is_words_and_says_nothing_of_its_subjects() -> None:
    store = MemoryStore()
    what = plan()
    play(store, toy.InlineLauncher(store, toy.site_stores()), what)
    run = toy.open_toy(store, what)
    record = evaluation_of(run, 1, "validation")
    assert record is not None
    assert record.num_examples == {}
    for order in eval_orders(run, 1, "validation"):
        reply, _ = run.exchange.reply(order)
        assert isinstance(reply, SealedEvaluation)
        assert reply.data.num_subjects == 0
        assert not reply.data.modalities
        assert all(n.startswith("seconds.") or n == "bytes_down" for n in reply.measurements)
        (masked,) = reply.arrays.values()
        assert masked.dtype == np.uint64
        counted = np.unpackbits(masked.view(np.uint8)).mean()
        assert abs(counted - 0.5) < 0.02, "random words, though nearly all counts are 0"


@pytest.mark.parametrize("step", STEPS)
def test_a_site_that_vanishes_at_any_step_costs_only_itself(step: str) -> None:
    """The counts are exactly those of the sites whose masked statistics arrived."""
    store = MemoryStore()
    launcher = toy.InlineLauncher(store, toy.site_stores(), drops={"west": step}, during="evaluate")
    record = play(store, launcher, plan())
    counted = toy.SITES if step in ("consistency", "unmask") else ("east", "north")
    assert tuple(record.sites) == counted
    assert set(record.missing) == set(toy.SITES) - set(counted)
    shown, absent = MemoryStore(), frozenset(toy.SITES) - frozenset(counted)
    run = toy.open_toy(shown, plan(secure=MASKS))
    toy.play(run, toy.InlineLauncher(shown, toy.site_stores()))
    compared = toy.evaluate(
        run, 1, "test", toy.InlineLauncher(shown, toy.site_stores(), absent=absent)
    )
    assert record.summary == compared.summary


@pytest.mark.parametrize("step", STEPS)
def test_when_too_many_vanish_nothing_is_revealed_and_it_can_be_begun_anew(
    undisturbed: tuple[str, list[Any]], step: str
) -> None:
    store, data = MemoryStore(), toy.site_stores()
    leaving = toy.InlineLauncher(
        store, data, drops={"west": step, "north": step}, during="evaluate"
    )
    with pytest.raises(QuorumNotReached, match=r"round 0, validation: .* no count was revealed"):
        play(store, leaving, plan())
    revealed = [key for key in store.list("replies/") if "/000001.unmask." in key]
    assert len(revealed) < 2, "the threshold of shares was not reached"
    play(store, toy.InlineLauncher(store, data), plan())
    assert told(store, plan()) == undisturbed
    (tried,) = toy.open_toy(store, plan()).failed
    assert (tried.round_num, tried.split) == (1, "validation")


def test_every_order_keeps_its_number_after_attempts_that_failed_anywhere() -> None:
    """Two at the round, one after it, one at the next round, two at the end: then as ever."""
    store, data, what = MemoryStore(), toy.site_stores(), plan(rounds=2)
    compared = MemoryStore()
    play(compared, toy.InlineLauncher(compared, toy.site_stores()), what)

    def leaving(during: str) -> toy.InlineLauncher:
        drops = {"west": "shares", "north": "shares"}
        return toy.InlineLauncher(store, data, drops=drops, during=during)

    def fails(work: Any) -> None:
        with pytest.raises(QuorumNotReached):
            work()

    def run() -> Any:
        return toy.open_toy(store, what)

    present = toy.InlineLauncher(store, data)
    for _ in range(2):
        fails(lambda: toy.train_round(run(), 0, leaving("train")))
    toy.train_round(run(), 0, present)
    fails(lambda: toy.evaluate(run(), 1, "validation", leaving("evaluate")))
    toy.evaluate(run(), 1, "validation", present)
    fails(lambda: toy.train_round(run(), 1, leaving("train")))
    toy.train_round(run(), 1, present)
    toy.evaluate(run(), 2, "validation", present)
    for _ in range(2):
        fails(lambda: toy.evaluate(run(), 2, "test", leaving("evaluate")))
    toy.evaluate(run(), 2, "test", present)
    assert told(store, what) == told(compared, what)
    toy.orders.finish(run())
    numbers = sorted(key for key in store.list("orders/north/run-1/") if key.count(".") == 1)
    assert [key.split("/")[-1] for key in numbers] == [f"{n:06d}.json" for n in range(12)]


def whole(store: Store, launcher: toy.InlineLauncher) -> None:
    play(store, launcher, plan())


def same(wanted: tuple[str, list[Any]]) -> Check:
    def check(store: Store, at: int) -> None:
        assert told(store, plan()) == wanted, f"killed at operation {at}"

    return check


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_server_killed_at_any_operation(undisturbed: tuple[str, list[Any]], before: bool) -> None:
    at = kill_server(whole, same(undisturbed), before=before, every=3)
    assert at > 160, "the run must have enough boundaries for this to mean something"


@pytest.mark.parametrize("own", [False, True], ids=["exchange", "data"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_client_killed_at_any_operation(
    undisturbed: tuple[str, list[Any]], before: bool, own: bool
) -> None:
    """A client started again says what it said before, with the same secrets."""
    at = kill_client(whole, same(undisturbed), before=before, in_own_bucket=own, every=3)
    assert at > 40, "the run must have enough boundaries for this to mean something"


def test_a_site_with_too_few_subjects_says_so_before_anybody_relies_on_it() -> None:
    """It is not in the roster, so that two sites are all, and the threshold is of these."""
    store, data, what = MemoryStore(), toy.site_stores(), plan(secure={**HIDDEN, "threshold": None})
    data["west"].put("table.csv", toy.table("west", rows=16))  # 4 of them are held out
    record = play(store, toy.InlineLauncher(store, data), what)
    assert tuple(record.sites) == ("east", "north")
    assert "refused: fewer than 5 subjects in the test split" in record.missing["west"]
    assert record.summary["overall"]["num_examples"] == 24


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_site_whose_policy_says_no_says_it_where_the_server_listens_first(kind: str) -> None:
    store, data = MemoryStore(), toy.site_stores()
    run = toy.open_toy(store, plan())
    if kind == "train":
        toy.orders.train_orders(run, 0)
    else:
        toy.train_round(run, 0, toy.InlineLauncher(store, data))
        eval_orders(run, 1, "validation")
    policy = toy.policy("west", purposes=["another"])
    client = Client(policy, Exchange(store), data["west"], partner=toy.partner("west"))
    reply = toy.answer(client, "run-1", 0 if kind == "train" else 1)
    assert isinstance(reply, Refusal)
    assert reply.step == "keys"


def test_secrets_are_deleted_when_it_is_over() -> None:
    store, data = MemoryStore(), toy.site_stores()
    launcher = toy.InlineLauncher(store, data)
    play(store, launcher, plan())
    toy.orders.finish(toy.open_toy(store, plan()))
    for site in toy.SITES:
        launcher.say_everything(site, "run-1", 3)
        kept = list(data[site].list("derivatives/fedcore/secure/"))
        assert len(kept) == 6, "an order each and whom it was opened for: no secrets"
        assert all(key.endswith((".order", ".opened")) for key in kept)


def test_what_no_sites_can_have_counted_is_refused() -> None:
    """A site that lies behind masks is not found, but what it makes of the sum is."""
    store, what = MemoryStore(), plan()
    launcher = toy.InlineLauncher(store, toy.site_stores())
    run = toy.open_toy(store, what)
    toy.train_round(run, 0, launcher)
    orders = eval_orders(run, 1, "validation")
    agreed = toy.secure_evaluation.agree_on_keys(run, orders, launcher)
    toy.replies.await_replies(run, agreed.orders, launcher)
    (key,) = [key for key in store.list("replies/west/") if key.endswith("000001.safetensors")]
    west = next(order for order in orders if order.site == "west")
    reply, _ = run.exchange.reply(west)
    assert isinstance(reply, SealedEvaluation)
    store.delete(key)
    lying = replace(reply, arrays={"masked": reply.arrays["masked"] + np.uint64(1)})
    run.exchange.put_reply(lying, toy.IDENTITIES["west"])
    with pytest.raises(UpdateRejected, match="some site sent what it did not count"):
        toy.secure_evaluation.reveal_statistics(run, agreed, {})
