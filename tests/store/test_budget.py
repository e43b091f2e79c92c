"""The budget ledger: an update is paid for before it is made, once, and never above the budget."""

from __future__ import annotations

import json
import random
import threading
from dataclasses import replace
from typing import Any

import pytest
import toy
from faults import FaultyStore, Killed

from fedcore.config.plan import Plan
from fedcore.config.policy import Budget
from fedcore.errors import OrderRefused
from fedcore.privacy.accounting import GaussianEvent, calibrate, epsilon, epsilon_adaptive
from fedcore.records import TrainOrder
from fedcore.store.api import Store
from fedcore.store.budget import BudgetLedger, Charged, Entry, check
from fedcore.store.egress import Departure, Egress
from fedcore.store.envelope import public_text
from fedcore.store.ledger import Ledger
from fedcore.store.memory import MemoryStore

KEY = toy.IDENTITIES["north"]
ROUNDS = 3
PLAN = toy.plan(
    rounds=ROUNDS,
    privacy={"clip_norm": 1.0, "noise_multiplier": 2.0},
    aggregation={"weights": "uniform"},
)
SITE = GaussianEvent(2.0, 1, "site")


def subject_plan(noise_multiplier: float = 4.0, rounds: int = ROUNDS) -> Plan:
    fields = {"clip_norm": 1.0, "noise_multiplier": noise_multiplier, "sampling_rate": 0.2}
    return toy.plan(
        rounds=rounds,
        privacy={"clip_norm": 1.0, "subject": {**fields, "steps": 10}},
        aggregation={"weights": "uniform"},
    )


def budget(allowed: float = 8.0, **fields: Any) -> Budget:
    return Budget.model_validate({"epsilon": allowed, "unit": "site", **fields})


def order(
    round_num: int = 0, run_id: str = "run-1", plan: Plan = PLAN, **fields: Any
) -> TrainOrder:
    place = {"seq": 2 * round_num, "params_digest": f"params {round_num}", "nonce": "n", **fields}
    return TrainOrder(
        run_id=run_id, site="north", round_num=round_num, plan_digest=plan.digest, **place
    )


def digest(asked: TrainOrder) -> str:
    return f"sha of {asked}"


def ledger(store: Store, terms: Budget | None = None) -> BudgetLedger:
    return BudgetLedger(store, Egress(store, KEY), terms, KEY, "the board")


def obey(store: Store, asked: TrainOrder, plan: Plan, terms: Budget | None) -> Charged:
    """What a client does with an order until it trains, in a process of its own."""
    Ledger(store).accept(asked, digest(asked))
    charged = ledger(store, terms).charge(asked, digest(asked), plan)
    assert charged is not None
    return charged


def entries(store: Store) -> list[Entry]:
    checked, fault = check(store, [public_text(KEY)])
    assert fault is None
    return checked.entries


def test_a_run_is_charged_whole_at_its_first_order() -> None:
    store = MemoryStore()
    charged = [obey(store, order(n), PLAN, budget()) for n in range(ROUNDS)]
    first, *later = entries(store)
    assert first.events == (replace(SITE, count=ROUNDS),)
    assert (first.rounds, first.purpose, first.approver) == ((0, ROUNDS), "research", "the board")
    assert [entry.events for entry in later] == [(), ()]
    whole = epsilon([replace(SITE, count=ROUNDS)], 1e-5)
    assert [one.epsilon for one in charged] == [{"site": whole}] * ROUNDS
    assert len({one.head for one in charged}) == ROUNDS


def test_or_as_it_goes() -> None:
    store, terms = MemoryStore(), budget(charge="round")
    charged = [obey(store, order(n), PLAN, terms).stated for n in range(ROUNDS)]
    assert [entry.events for entry in entries(store)] == [(SITE,)] * ROUNDS
    assert charged == [epsilon([SITE] * (n + 1), 1e-5) for n in range(ROUNDS)]
    assert obey(store, order(0), PLAN, terms).stated == charged[0], "as it was said before"


def test_a_site_that_comes_later_pays_the_same() -> None:
    """So that a run which does not fit is refused in every round, and not only in the first."""
    store = MemoryStore()
    obey(store, order(2), PLAN, budget())
    obey(store, order(0), PLAN, budget())
    assert [entry.events for entry in entries(store)] == [(replace(SITE, count=ROUNDS),), ()]


@pytest.mark.parametrize(
    "again",
    [{}, {"seq": 9}, {"attempt": 1, "seq": 1}, {"previous_digest": "x", "seq": 9}],
    ids=["restart", "another place", "a secure round's next attempt", "what to encrypt"],
)
def test_the_same_update_is_charged_once(again: dict[str, Any]) -> None:
    store = MemoryStore()
    first = obey(store, order(), PLAN, budget())
    assert obey(store, order(**again), PLAN, budget()) == first
    assert len(entries(store)) == 1


@pytest.mark.parametrize(
    "other",
    [
        order(run_id="run-2"),
        order(nonce="another", seq=1),
        order(seq=1, params_digest="other params"),
        order(ROUNDS + 4),
        order(-1, seq=1),
        order(plan=PLAN.model_copy(update={"seed": 8}), seq=1),
    ],
    ids=["run", "run of the same id", "params", "round beyond the plan", "round before it", "plan"],
)
def test_another_update_is_charged_anew(other: TrainOrder) -> None:
    store = MemoryStore()
    obey(store, order(), PLAN, budget())
    obey(store, other, PLAN, budget())
    assert len(entries(store)) == 2
    assert entries(store)[1].events != ()


def test_a_round_that_the_plan_has_not_is_none_of_those_charged() -> None:
    store = MemoryStore()
    for number in (-1, *range(ROUNDS), ROUNDS):
        obey(store, order(number, seq=number + 1), PLAN, budget())
    assert entries_epsilon(store) == epsilon([SITE] * (ROUNDS + 2), 1e-5)


def test_what_is_above_the_budget_is_refused_with_its_figures() -> None:
    store = MemoryStore()
    noise = calibrate(8.0, 1e-5, count=10 * ROUNDS, sampling_rate=0.2, unit="subject")
    plan, terms = subject_plan(noise), budget(8.0, unit="subject")
    obey(store, order(plan=plan), plan, terms)
    assert 7.99 < entries_epsilon(store) <= 8.0, "calibrated to all of the budget, it is let in"
    small = subject_plan(20.0, rounds=1)
    with pytest.raises(OrderRefused) as refused:
        obey(store, order(run_id="run-2", plan=small), small, terms)
    assert "of the 8 allowed for one subject of cohort all (delta 1e-05)" in str(refused.value)
    assert "of which 8 was spent before" in str(refused.value)
    assert len(entries(store)) == 1, "what is refused is not charged"
    obey(store, order(1, plan=plan), plan, terms)  # what is charged goes on
    assert obey(store, order(run_id="run-2", plan=small), small, None), "without a budget"


def entries_epsilon(store: Store) -> float:
    return epsilon([event for entry in entries(store) for event in entry.events], 1e-5)


def test_the_sum_over_runs_is_the_adaptive_one() -> None:
    store, plan, terms = MemoryStore(), subject_plan(6.0), budget(3.0, unit="subject")
    block = (GaussianEvent(6.0, 10 * ROUNDS, "subject", 0.2),)
    fits = max(n for n in range(1, 30) if epsilon_adaptive([block] * n, 1e-5, 3.0) <= 3.0)
    for number in range(fits):
        obey(store, order(run_id=f"run-{number}", plan=plan), plan, terms)
    with pytest.raises(OrderRefused, match="over this site's privacy budget"):
        obey(store, order(run_id="one-more", plan=plan), plan, terms)
    assert fits > 1


def test_budgets_of_other_people_and_units_are_apart() -> None:
    store = MemoryStore()
    obey(store, order(), PLAN, budget(5.0))
    with pytest.raises(OrderRefused):
        obey(store, order(run_id="run-2"), PLAN, budget(5.0))
    obey(store, order(run_id="run-2"), PLAN, budget(5.0, cohort="since-2027"))
    plan = subject_plan()
    obey(store, order(run_id="run-3", plan=plan), plan, budget(5.0, unit="subject"))


def test_a_lower_budget_counts_from_then_on_and_a_higher_one_too() -> None:
    store = MemoryStore()
    paid = obey(store, order(0), PLAN, budget(8.0))
    with pytest.raises(OrderRefused, match="of the 2 allowed"):
        obey(store, order(1), PLAN, budget(2.0))
    assert obey(store, order(0), PLAN, budget(2.0)) == paid, "it is paid for, and may leave again"
    obey(store, order(1), PLAN, budget(8.0))


@pytest.mark.parametrize("unit", ["site", "subject"])
def test_what_hides_nobody_of_the_unit_is_refused(unit: str) -> None:
    plan = toy.plan() if unit == "site" else PLAN
    with pytest.raises(OrderRefused, match=f"hides no {unit} by noise"):
        obey(MemoryStore(), order(plan=plan), plan, budget(1e6, unit=unit))


def test_noise_that_the_plan_tells_is_none() -> None:
    privacy = {"clip_norm": 1.0, "noise_multiplier": 2.0, "noise_source": "seeded"}
    plan = toy.plan(privacy=privacy, aggregation={"weights": "uniform"})
    with pytest.raises(OrderRefused, match="noise_source: os"):
        obey(MemoryStore(), order(plan=plan), plan, budget())


def test_without_noise_and_budget_there_is_nothing_to_note() -> None:
    store = MemoryStore()
    assert ledger(store).charge(order(), "d", toy.plan()) is None
    assert list(store.list("derivatives/fedcore/budget/")) == []


def test_a_warm_client_reads_the_ledger_once() -> None:
    store = MemoryStore()
    obey(store, order(), PLAN, budget())
    counting = FaultyStore(store, at=-1)
    warm = ledger(counting, budget())
    for number in range(ROUNDS):
        warm.charge(order(number), digest(order(number)), PLAN)
    done = [operation.split()[0] for operation in counting.operations if "budget" in operation]
    assert done == ["list", "get", "create", "create"]


WORK = [(f"run-{run}", round_num) for run in range(2) for round_num in range(ROUNDS)]


def work(store: Store, done: dict[tuple[str, int], Charged]) -> None:
    """A client over several runs; ``done``: what it was told, by what outlives it."""
    hand, terms = ledger(store, budget(50.0)), budget(50.0)
    assert terms.charge == "run"
    for run_id, round_num in WORK:
        asked = order(round_num, run_id)
        Ledger(store).accept(asked, digest(asked))
        charged = hand.charge(asked, digest(asked), PLAN)
        assert charged is not None
        assert done.setdefault((run_id, round_num), charged) == charged


def whole(store: Store, done: dict[tuple[str, int], Charged]) -> None:
    """No entry lost, none doubled, none of them changed."""
    found = entries(store)
    assert [(entry.run_id, entry.round_num) for entry in found] == WORK
    assert [len(entry.events) for entry in found] == [1, 0, 0] * 2
    assert set(done) == set(WORK)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_every_point_nothing_is_lost_or_doubled(before: bool) -> None:
    at, killed = 0, True
    while killed:
        store, done = MemoryStore(), dict[tuple[str, int], Charged]()
        killed = False
        try:
            work(FaultyStore(store, at, before=before), done)
        except Killed:
            killed = True
        work(store, done)
        whole(store, done)
        at += 1
    assert at > 12


def test_killed_two_hundred_times_again_and_again() -> None:
    """Several times in one piece of work, each time before or after any of its operations."""
    kills = 0
    for seed in range(22):
        rng, store, done, died = random.Random(seed), MemoryStore(), dict[Any, Charged](), 0
        while set(done) != set(WORK):
            try:
                at, before = rng.randrange(14 + died), rng.random() < 0.5
                work(FaultyStore(store, at, before=before), done)
            except Killed:
                died += 1
        whole(store, done)
        kills += died
    assert kills >= 200


def test_two_clients_at_once_charge_one_update_once() -> None:
    store = MemoryStore()
    one, other = ledger(store, budget()), ledger(store, budget())
    Ledger(store).accept(order(), digest(order()))
    assert other._known() == []  # it has read the ledger, and then the other one writes
    assert one.charge(order(), digest(order()), PLAN) == other.charge(
        order(), digest(order()), PLAN
    )
    assert len(entries(store)) == 1


def test_two_clients_at_once_do_not_overdraw_together() -> None:
    store, terms = MemoryStore(), budget(5.0)
    one, other = ledger(store, terms), ledger(store, terms)
    orders = [order(run_id="run-1"), order(run_id="run-2")]
    for asked in orders:
        Ledger(store).accept(asked, digest(asked))
    assert other._known() == []
    one.charge(orders[0], digest(orders[0]), PLAN)
    with pytest.raises(OrderRefused, match="over this site's privacy budget"):
        other.charge(orders[1], digest(orders[1]), PLAN)
    assert len(entries(store)) == 1


def test_many_threads_never_spend_more_than_there_is() -> None:
    store, terms = MemoryStore(), budget(12.0)
    fits = max(n for n in range(40) if epsilon([replace(SITE, count=n * ROUNDS)], 1e-5) <= 12.0)
    refused: list[str] = []

    def client(number: int) -> None:
        for run in range(number % 2, 2 * fits, 2):  # of each run, several clients
            try:
                obey(store, order(run_id=f"run-{run}"), PLAN, terms)
            except OrderRefused:
                refused.append(f"run-{run}")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(entries(store)) == fits
    assert len(set(refused)) == fits


def sent(store: Store, charged: Charged) -> None:
    left = Departure("run-1", 0, "ClientUpdate", "a", 3, "sha", "said", spend=charged.head)
    Egress(store, KEY).note(left)


def place(number: int) -> str:
    return f"derivatives/fedcore/budget/{number:010d}.json"


def test_an_entry_cut_off_after_its_update_left_is_missed() -> None:
    store = MemoryStore()
    for number in range(ROUNDS):
        charged = obey(store, order(number), PLAN, budget())
    sent(store, charged)
    obey(store, order(run_id="run-2"), PLAN, budget(20.0))
    store.delete(place(3))
    store.delete(place(4))
    assert "which is not there" in str(check(store)[1])
    with pytest.raises(OrderRefused, match="its end was cut off"):
        obey(store, order(run_id="run-3"), PLAN, budget(20.0))


def test_what_nobody_ordered_and_what_was_never_charged_show() -> None:
    store = MemoryStore()
    ledger(store, budget()).charge(order(), digest(order()), PLAN)
    assert check(store)[1] == "entry 1: the site accepted no such order"
    for number in range(2):
        Ledger(store).accept(order(number), digest(order(number)))
    assert check(store)[1] is None
    hand = ledger(store, budget())
    (entry,) = entries(store)
    hand._chain.append(replace(entry, round_num=1, rounds=(1, 1), events=(), nonce="other"))
    assert check(store)[1] == "entry 2: it draws on what was never charged"


def test_a_doubled_entry_shows() -> None:
    store = MemoryStore()
    obey(store, order(), PLAN, budget())
    (entry,) = entries(store)
    hand = ledger(store, budget())
    hand._chain.append(entry)
    assert check(store)[1] == "entry 2: its update was charged before"


def test_a_mechanism_that_is_not_understood_is_refused() -> None:
    store = MemoryStore()
    BudgetLedger(store, Egress(store), budget()).charge(order(), digest(order()), PLAN)
    file = json.loads(store.get(place(1)))
    file["entry"] = file["entry"].replace('"gaussian"', '"laplace"')
    store.put(place(1), json.dumps(file).encode())
    with pytest.raises(OrderRefused, match="entry 1: it is no entry of such a record"):
        BudgetLedger(store, Egress(store), budget()).charge(order(1), digest(order(1)), PLAN)
