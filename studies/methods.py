"""Methods × what differs between sites: each site alone, all data in one place, and the methods.

    python -m studies methods

Macro AUC on the held-out subjects of all sites together. Every model passes over the data as often,
and begins from the same params for a seed. The goal of the best method is 98 % of what all data in
one place come to, and more than any site alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from fedcore import baselines
from fedcore.config.plan import Plan
from fedcore.store.memory import MemoryStore
from studies.federation import data_of, macro_auc, trained
from studies.jobs import played
from studies.rows import Row, goals, row
from studies.settings import SETTINGS, Sections, sites_of, small_plan

SEEDS = range(2)
ROUNDS = 24
"""After 12 no model has settled, and methods differ in how fast they are."""

SHARE = 0.98
"""Of the centralised macro AUC."""

CENTRALISED = "centralised"
SGD = {"optimizer": "sgd", "learning_rate": 0.02}

METHODS: Mapping[str, Sections] = {
    "FedAvg": {},
    "FedProx": {"training": {"proximal_mu": 0.1}},
    "FedAvgM": {"aggregation": {"server_momentum": 0.5}},
    "FedAdam": {"aggregation": {"server_optimizer": "adam", "server_learning_rate": 0.02,
                                "server_tau": 0.01}},
    "FedAvg, SGD": {"training": SGD},
    "FedNova, SGD": {"training": SGD, "aggregation": {"normalise": "steps"}},
    "SCAFFOLD, SGD": {"training": {**SGD, "scaffold": True}, "aggregation": {"weights": "uniform"}},
    "FedBN": {"training": {"local": ["encoder.*.low.*.1.*", "encoder.*.high.1.*",
                                     "fusion.normalise.*"]}},
    "FedRep": {"training": {"local": ["head.*"], "local_epochs": 1}},
    "logit adjustment": {"training": {"imbalance": "logit_adjustment"}},
    "moments aligned": {"training": {"alignment": {}}},
}  # fmt: skip


def plan_of(method: str, seed: int) -> Plan:
    return small_plan(seed, METHODS[method], rounds=ROUNDS)


def score(setting: str, method: str, seed: int) -> dict[str, float]:
    """Method → macro AUC; ``CENTRALISED`` with every single site's."""
    sites = sites_of(setting)
    if method != CENTRALISED:
        plan, own = plan_of(method, seed), {name: MemoryStore() for name in sites}
        return {method: macro_auc(plan, sites, trained(plan, sites, own=own), own)}
    plan = plan_of("FedAvg", seed)
    data = data_of(plan, sites)
    chosen = {**{f"{name} alone": [name] for name in data}, CENTRALISED: list(data)}
    found = {
        name: baselines.macro_auc(plan, baselines.trained_on(plan, data, places), data)
        for name, places in chosen.items()
    }
    return {name: auc for name, auc in found.items() if auc is not None}


def judged(setting: str, found: Mapping[str, Sequence[float]]) -> list[Row]:
    """A row a method; of the best federated one also whether it met its goals."""
    rows = {name: row("methods", setting, name, "macro_auc", aucs) for name, aucs in found.items()}
    best = max(METHODS, key=lambda name: rows[name].mean)
    alone = max(rows[name].mean for name in rows if name.endswith(" alone"))
    centralised = found[CENTRALISED]
    return [
        *rows.values(),
        *goals(rows[best], found[best], centralised=centralised, alone=alone, share=SHARE),
    ]


def main(settings: Sequence[str] = tuple(SETTINGS)) -> list[Row]:
    """Every method in every setting with every seed."""
    for setting in settings:  # before the processes begin, which would all make them
        sites_of(setting)
    jobs = list(product(settings, (CENTRALISED, *METHODS), SEEDS))
    found: dict[str, dict[str, list[float]]] = {setting: {} for setting in settings}
    for (setting, _, _), scores in zip(jobs, played(score, jobs), strict=True):
        for name, auc in scores.items():
            found[setting].setdefault(name, []).append(auc)
    return [r for setting in settings for r in judged(setting, found[setting])]
