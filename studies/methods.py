"""Methods × what differs between sites: each site alone, all data in one place, and the methods.

    python -m studies methods

Macro AUC on the held-out subjects of all sites together. Every model passes over the data as often,
and begins from the same params for a seed. The goal of the best method is 98 % of what all data in
one place come to, and more than any site alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fedcore.baselines import auc_of, train_on
from fedcore.config import plan as plans
from fedcore.config.plan import Plan
from studies import rows
from studies.federation import FOLDER, SEED, data_of, hospitals_of, macro_auc, trained
from studies.rows import Row
from studies.settings import SETTINGS, federation

SEEDS = range(3)
SHARE = 0.98
"""Of the centralised macro AUC."""

ALONE, TOGETHER = "best single site", "centralised"
SGD = {"optimizer": "sgd", "learning_rate": 0.02}

Sections = Mapping[str, Mapping[str, Any]]

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
    """The shipped plan on a coarser grid and for fewer rounds, with what the method changes."""
    text = (Path(__file__).parents[1] / "plans" / "brain_tumour.yaml").read_text(encoding="utf-8")
    fields = plans.parse(text).model_dump(mode="json")
    fields |= {"seed": seed, "rounds": 12}
    fields["task"]["dataset"]["arguments"] |= {
        "shape": [28, 32, 28], "spacing_mm": 6.0, "fractions": [0.6, 0.05, 0.35],
    }  # fmt: skip
    fields["privacy"]["clip_norm"] = None
    for section, changes in METHODS[method].items():
        fields[section] = fields[section] | changes
    return Plan.model_validate(fields)


def score(setting: str, method: str, seed: int) -> dict[str, float]:
    """Method → macro AUC; of ``TOGETHER`` with that of every single site."""
    sites = hospitals_of(FOLDER / setting.replace(" ", "-"), federation(setting, SEED), SEED)
    if method != TOGETHER:
        plan = plan_of(method, seed)
        return {method: macro_auc(plan, sites, trained(plan, sites))}
    plan = plan_of("FedAvg", seed)
    data = data_of(plan, sites)
    alone = {name: auc_of(plan, train_on(plan, data, [name]), data) for name in data}
    return {**alone, TOGETHER: auc_of(plan, train_on(plan, data, list(data)), data)}
