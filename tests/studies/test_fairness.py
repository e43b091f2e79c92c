"""The study of fairness: who is rare in its federation, and how its mitigations are judged."""

from __future__ import annotations

import pytest

from fedcore.data.phantoms.cohort import demo_federation, people
from fedcore.data.phantoms.disease import Disease
from studies import fairness
from studies.settings import AGENT, ALIKE, FAIR, JUDGES, NO_AGENT, UNFAIR

PLANS = [name for name in fairness.METHODS if name != fairness.BALANCED]  # FedAvg's, elsewhere


@pytest.mark.parametrize("method", PLANS)
def test_every_method_is_a_legal_plan_that_differs(method: str) -> None:
    digests = {name: fairness.plan_of(12, name, seed=1).digest for name in PLANS}
    assert digests[method] not in {d for name, d in digests.items() if name != method}


def rooms(of: Disease) -> dict[str, list[str]]:
    """Hospital → the room of each subject."""
    sites = demo_federation(3, disease=of, alpha=ALIKE, damage=False)
    return {site.name: [p.scanner.name for p in people(site, 3)] for site in sites}


def test_few_train_without_agent_and_many_are_judged() -> None:
    share = {site: names.count(NO_AGENT.name) / len(names) for site, names in rooms(UNFAIR).items()}
    assert 0.02 < share["north"] < 0.15 < share["west"] < 0.4
    assert sum(share.values()) / len(share) == pytest.approx(1 / 8, abs=0.04)
    fair = [name for names in rooms(FAIR).values() for name in names]
    assert fair.count(NO_AGENT.name) / len(fair) == pytest.approx(1 / 2, abs=0.04)
    judges = [name for names in rooms(JUDGES).values() for name in names]
    assert min(judges.count(AGENT.name), judges.count(NO_AGENT.name)) > 150


def test_a_mitigation_is_judged_by_what_it_removes_and_costs() -> None:
    def run(auc: float, gap: float) -> fairness.Figures:
        return {"macro_auc": auc, "gap": gap, "tpr_gap": 0.1}

    found = {"FedAvg": [run(0.90, 0.2), run(0.91, 0.1)], "group DRO": [run(0.88, 0.1)] * 2}
    judged = {r.metric: r for r in fairness.judged("12 rounds", found) if r.method == "group DRO"}
    removed, cost = judged["share of the gap removed"], judged["macro_auc gained"]
    assert (removed.mean, removed.met) == (0.25, False)  # a half, and nothing
    assert (cost.mean, cost.met) == (-0.025, False)
    assert judged["gap"].mean == 0.1
    half = {**found, "group DRO": [run(0.9, 0.1), run(0.91, 0.05)]}
    assert [r.met for r in fairness.judged("30 rounds", half) if r.goal is not None] == [True, True]
