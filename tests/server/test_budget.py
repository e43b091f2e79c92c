"""A study in which a site's budget runs out: that site stops, and the others go on."""

from __future__ import annotations

from typing import Any

import pytest
import toy
from faults import FaultyStore, Killed

from fedcore.config.plan import Plan
from fedcore.privacy.accounting import GaussianEvent, epsilon
from fedcore.records import RoundRecord
from fedcore.server.result import result_of
from fedcore.store.api import Store
from fedcore.store.budget import check
from fedcore.store.egress import UPDATES
from fedcore.store.egress import check as check_egress
from fedcore.store.memory import MemoryStore

ROUNDS = 3
ROUND = GaussianEvent(2.0)


def study(rounds: int = ROUNDS, **sections: Any) -> Plan:
    return toy.plan(
        rounds=rounds,
        privacy={"clip_norm": 1.0, "noise_multiplier": 2.0},
        aggregation={"weights": "uniform"},
        **sections,
    )


def spent(rounds: int) -> float:
    return epsilon([GaussianEvent(2.0, rounds)], 1e-5)


class Hospitals:
    """The toy's three, of which north has a budget."""

    def __init__(self) -> None:
        self.exchange, self.data = MemoryStore(), toy.site_stores()

    def launcher(self, allowed: float, **budget: Any) -> toy.InlineLauncher:
        own = toy.policy("north", budget={"epsilon": allowed, "unit": "site", **budget})
        return toy.InlineLauncher(self.exchange, self.data, policies={"north": own})

    def play(self, run_id: str, plan: Plan, launcher: toy.InlineLauncher) -> list[RoundRecord]:
        records, _ = toy.play(toy.open_toy(self.exchange, plan, run_id), launcher)
        return records


def sound(store: Store) -> int:
    """The ledger is whole, and each update that left has an entry of its own; how many left."""
    checked, fault = check(store)
    assert fault is None
    left = [entry for entry in check_egress(store).entries if entry.kind in UPDATES]
    assert {entry.spend for entry in left} <= set(checked.heads)
    # Noted twice, if a client was killed before it could send what it had noted.
    paid = {entry.destination: entry.spend for entry in left}
    assert len(set(paid.values())) == len(paid)
    return len(paid)


@pytest.fixture
def hospitals() -> Hospitals:
    return Hospitals()


def test_a_site_refuses_midway_and_the_others_go_on(hospitals: Hospitals) -> None:
    allowed = (spent(2) + spent(3)) / 2
    records = hospitals.play("run-1", study(), hospitals.launcher(allowed, charge="round"))
    assert [set(record.weights) for record in records[:2]] == [set(toy.SITES)] * 2
    assert set(records[2].weights) == {"east", "west"}
    assert records[2].dropped["north"].startswith("refused: over this site's privacy budget")
    assert (
        f"it needs epsilon {spent(3):.3g} of the {allowed:g} allowed"
        in (records[2].dropped["north"])
    )
    assert f"of which {spent(2):.3g} was spent before" in records[2].dropped["north"]
    assert records[1].measurements["north"]["epsilon_spent"] == pytest.approx(spent(2))
    assert sound(hospitals.data["north"]) == 2
    assert sound(hospitals.data["east"]) == 3


def test_charged_whole_a_run_is_refused_before_it_begins(hospitals: Hospitals) -> None:
    records = hospitals.play("run-1", study(), hospitals.launcher((spent(2) + spent(3)) / 2))
    assert all("north" in record.dropped for record in records)
    assert sound(hospitals.data["north"]) == 0


def test_a_run_that_takes_all_of_the_budget_ends_and_is_the_last(hospitals: Hospitals) -> None:
    launcher = hospitals.launcher(spent(ROUNDS))
    records = hospitals.play("run-1", study(), launcher)
    assert not any(record.dropped for record in records)
    (record,) = hospitals.play("run-2", study(rounds=1), launcher)
    assert set(record.dropped) == {"north"}


def test_a_budget_lowered_midway(hospitals: Hospitals) -> None:
    run = toy.open_toy(hospitals.exchange, study())
    first = toy.train_round(run, 0, hospitals.launcher(8.0))
    later = toy.train_round(run, 1, hospitals.launcher(1.0))
    assert set(first.weights) == set(toy.SITES)
    assert "of the 1 allowed" in later.dropped["north"]


def test_another_study_between(hospitals: Hospitals) -> None:
    """Charged by round, what a second study took is not there for the first."""
    launcher = hospitals.launcher((spent(2) + spent(3)) / 2, charge="round")
    run = toy.open_toy(hospitals.exchange, study())
    toy.train_round(run, 0, launcher)
    hospitals.play("run-2", study(rounds=1), launcher)
    record = toy.train_round(run, 1, launcher)
    assert set(record.dropped) == {"north"}
    assert sound(hospitals.data["north"]) == 2


def test_what_the_server_shows_of_it(hospitals: Hospitals) -> None:
    from fedcore.server import evaluation, orders, release, replies

    launcher = hospitals.launcher((spent(2) + spent(3)) / 2, charge="round")
    run = toy.open_toy(hospitals.exchange, study())
    toy.play(run, launcher)
    asked = orders.eval_orders(run, ROUNDS, "test")
    missing = replies.await_replies(run, asked, launcher)
    assert not missing, "counts are no matter of the budget"
    release.judge(run, evaluation.evaluate(run, asked, missing))
    sites = result_of(run)["sites"]
    assert sites["north"]["epsilon_spent"] == pytest.approx(spent(2))
    assert sites["east"]["epsilon_spent"] == pytest.approx(spent(3))
    assert "over this site's privacy budget" in sites["north"]["refusals"][0]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_client_killed_at_any_operation_on_its_bucket_charges_once(before: bool) -> None:
    at, killed, plan = 0, True, study(rounds=1)
    own = {"north": toy.policy("north", budget={"epsilon": spent(1), "unit": "site"})}
    while killed:
        exchange, data = MemoryStore(), toy.site_stores()
        run = toy.open_toy(exchange, plan)
        hurt = {**data, "north": FaultyStore(data["north"], at, before=before)}
        killed = False
        try:
            toy.train_round(run, 0, toy.InlineLauncher(exchange, hurt, policies=own))
        except Killed:
            killed = True
        record = toy.train_round(run, 0, toy.InlineLauncher(exchange, data, policies=own))
        assert set(record.weights) == set(toy.SITES)
        assert sound(data["north"]) == 1
        assert len(check(data["north"])[0].entries) == 1
        at += 1
    assert at > 6


MASKS = {"secure_aggregation": {"mode": "masks", "threshold": 2}}


def test_behind_masks_an_attempt_that_failed_is_charged_once(hospitals: Hospitals) -> None:
    from fedcore.errors import QuorumNotReached

    launcher = hospitals.launcher(8.0)
    plan = study(rounds=1, **MASKS, cohort={"min_clients": 3})
    run = toy.open_toy(hospitals.exchange, plan)
    own = {"north": toy.policy("north", budget={"epsilon": 8.0, "unit": "site"})}
    failing = toy.InlineLauncher(
        hospitals.exchange, hospitals.data, drops={"west": "update"}, policies=own
    )
    with pytest.raises(QuorumNotReached):
        toy.train_round(run, 0, failing)
    record = toy.train_round(toy.open_toy(hospitals.exchange, plan), 0, launcher)
    assert set(record.weights) == set(toy.SITES)
    assert record.measurements["north"]["epsilon_spent"] == pytest.approx(spent(1))
    checked, fault = check(hospitals.data["north"])
    assert fault is None
    assert len(checked.entries) == 1
    spends = {e.spend for e in check_egress(hospitals.data["north"]).entries if e.kind in UPDATES}
    assert spends == set(checked.heads)
