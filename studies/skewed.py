"""Classes that are rare in training: what counting them otherwise brings.

    python -m studies skewed

Of all but its two most frequent classes, a hospital trains on every fifth subject; judged are the
held-out subjects of all hospitals, whose classes are as they were. A gain is over FedAvg with the
same seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fedcore.config.plan import Plan
from fedcore.config.section import Function
from fedcore.data.bids import BidsDataset
from fedcore.data.site import SiteData
from fedcore.records import Split
from studies import federation
from studies.federation import macro_auc, trained
from studies.jobs import by_method
from studies.rows import Row, gained
from studies.settings import MR_ALONE, sites_of, small_plan

SEEDS = range(3)
METHODS: Mapping[str, Mapping[str, Any]] = {
    "FedAvg": {},
    "class weights": {"imbalance": "class_weights"},
    "logit adjustment": {"imbalance": "logit_adjustment"},
}


def dataset(site: SiteData, **arguments: Any) -> Mapping[Split, BidsDataset]:
    """The site's data, with every fifth training subject of all but its two largest classes."""
    splits: Mapping[Split, BidsDataset] = federation.dataset(site, **arguments)
    train = splits["train"]
    common = {label for label, _ in Counter(train.targets).most_common(2)}
    rare = [e for e in train.examples if e.target not in common]
    kept = [e for e in train.examples if e.target in common] + rare[::5]
    return {**splits, "train": replace(train, examples=tuple(kept))}


def plan_of(method: str, seed: int) -> Plan:
    """On the data of ``dataset``."""
    changes = {"training": METHODS[method]}
    plan = small_plan(seed, changes, coarse=True, modalities=["t1ce", "flair"])
    own = Function(function=f"{__name__}:dataset", arguments=plan.task.dataset.arguments)
    return plan.model_copy(update={"task": plan.task.model_copy(update={"dataset": own})})


def score(method: str, seed: int) -> float:
    plan, sites = plan_of(method, seed), sites_of(MR_ALONE)
    return macro_auc(plan, sites, trained(plan, sites))


def main() -> list[Row]:
    """Every method with every seed."""
    sites_of(MR_ALONE)  # before the processes begin, which would all make them
    found = by_method(score, METHODS, SEEDS)
    return gained("skewed", "rare classes cut to a fifth", "macro_auc", found, base="FedAvg")
