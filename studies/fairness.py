"""A group that is rare in training and looks otherwise: its gap, before and after mitigation.

    python -m studies fairness

At four hospitals an eighth of the subjects is scanned in rooms that give no contrast agent, so that
what is bright on T1 elsewhere is dark (``settings.UNFAIR``). Models of T1 and FLAIR, for PET and CT
would help a group that has neither; judged by subjects of no hospital that trains: patients as they
come for the macro AUC, and as many again without agent for the gap. Every method is judged, none is
chosen.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from fedcore.config.plan import Plan
from fedcore.data.phantoms.cohort import demo_federation
from fedcore.evaluation.fairness import gaps
from fedcore.params import Params
from fedcore.store.api import Store
from studies.federation import FOLDER, SEED, macro_auc, made, summarised, trained
from studies.jobs import by_method
from studies.rows import Row, row
from studies.settings import (
    AGENT,
    ALIKE,
    AS_THEY_COME,
    FAIR,
    JUDGES,
    NO_AGENT,
    UNFAIR,
    Sections,
    small_plan,
)

SEEDS = range(3)
ROUNDS = (12, 30)
"""Few, and as many as the models need: a model that fits every subject has no worst group there."""
HALF, COST = 0.5, -0.01
"""Of FedAvg's gap, what is to be removed; and macro AUC that this may cost."""

BY_ROOM: Mapping[str, Any] = {"attribute": "scanner"}
SGD = {"optimizer": "sgd", "learning_rate": 0.02}

BALANCED = "FedAvg, where half are scanned without"
"""No method: as many subjects, of whom the group is no longer few. What is left of the gap then
does not come of that."""

METHODS: Mapping[str, Sections] = {
    "FedAvg": {},
    "re-weighting": {"training": {"fairness": {**BY_ROOM, "method": "reweigh"}}},
    "group DRO": {"training": {"fairness": {**BY_ROOM, "method": "dro", "step": 1.0,
                                            "groups": [AGENT.name, NO_AGENT.name]}}},
    "FedAvg, SGD": {"training": SGD},
    "q-FedAvg, SGD": {"training": SGD, "aggregation": {"fairness_q": 1.0}},
    BALANCED: {},
}  # fmt: skip
BASE = {"re-weighting": "FedAvg", "group DRO": "FedAvg", "q-FedAvg, SGD": "FedAvg, SGD"}
"""Mitigation → what it is compared with, seed by seed."""

FEDERATIONS = {"unfair": UNFAIR, "fair": FAIR, "judges": JUDGES}

Figures = Mapping[str, float]
"""Of one trained model: ``gap``, ``tpr_gap``, ``macro_auc``."""


def plan_of(rounds: int, method: str, seed: int) -> Plan:
    """Everybody trains: nobody of these hospitals is judged."""
    return small_plan(
        seed, METHODS[method], rounds=rounds, modalities=["t1ce", "flair"], fractions=(1, 0, 0)
    )


def figures(plan: Plan, judges: Mapping[str, Store], params: Params) -> Figures:
    """Macro AUC of patients as they come, and the gaps between the rooms over all judges."""
    as_they_come = {AS_THEY_COME: judges[AS_THEY_COME]}
    gap = gaps(summarised(plan, judges, params, splits=["train"]))["scanner"]
    return {
        "gap": float(gap["gap"]),
        "tpr_gap": float(gap["equal_opportunity"]["gap"]),
        "macro_auc": macro_auc(plan, as_they_come, params, splits=["train"]),
    }


def judged(setting: str, found: Mapping[str, Sequence[Figures]]) -> list[Row]:
    """The figures of each method, and of each mitigation what it brought and cost."""
    rows = []
    for method, runs in found.items():
        for metric in runs[0]:
            values = [run[metric] for run in runs]
            rows.append(row("fairness", setting, method, metric, values))
        if method not in BASE:
            continue
        pairs = list(zip(runs, found[BASE[method]], strict=True))
        removed = [1 - run["gap"] / before["gap"] for run, before in pairs]
        cost = [run["macro_auc"] - before["macro_auc"] for run, before in pairs]
        rows += [
            row("fairness", setting, method, "share of the gap removed", removed, goal=HALF),
            row("fairness", setting, method, "macro_auc gained", cost, goal=COST),
        ]
    return rows


@functools.cache  # a process reads each site once
def sites_of(federation: str) -> Mapping[str, Store]:
    """Files by site, made if they are not there yet (a minute)."""
    disease = FEDERATIONS[federation]
    specs = demo_federation(SEED, disease=disease, alpha=ALIKE, voxel_mm=5.0, damage=False)
    return made(specs, FOLDER / federation, SEED)


def score(rounds: int, method: str, seed: int) -> Figures:
    """Train, and judge by those who did not take part."""
    hospitals = sites_of("fair" if method == BALANCED else "unfair")
    plan = plan_of(rounds, method, seed)
    return figures(plan, sites_of("judges"), trained(plan, hospitals))


def main() -> list[Row]:
    """Every method with every seed, for few rounds and for many."""
    for federation in FEDERATIONS:  # before the processes begin, which would all make them
        sites_of(federation)
    rows = []
    for rounds in ROUNDS:
        found = by_method(score, METHODS, SEEDS, rounds)
        rows += judged(f"{rounds} rounds", found)
    return rows
