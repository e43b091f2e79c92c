"""Scanners never seen, and classes that are rare at some sites: what the remedies bring.

    python -m studies.unlike

The demo's scans at half its resolution, with several seeds of model and training. **Unseen**: each
hospital in turn takes no part, and all of its subjects are what the model is judged on. **Skewed**:
of all but its two most frequent classes, a site trains on every fifth subject; judged are the
held-out subjects of all sites, which are as they were. A method is compared with FedAvg of the same
seed, so that the spread is of the difference.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from fedcore.client.learner import Learner
from fedcore.config.functions import resolve
from fedcore.config.plan import Plan
from fedcore.config.section import Function
from fedcore.data.bids import BidsDataset
from fedcore.data.site import SiteData
from fedcore.demo.plan import Choices, plan_of
from fedcore.evaluation.metrics import merge
from fedcore.params import Params
from fedcore.records import EvalOrder, Split
from fedcore.store.api import Store
from studies import federation, results
from studies.federation import hospitals, trained

SEEDS, ROUNDS = range(3), 10
GRID = {"label": "diagnosis", "shape": [20, 24, 20], "spacing_mm": 8.0}
EVERYBODY: Sequence[Split] = ("train", "validation", "test")

UNSEEN: Mapping[str, Mapping[str, Any]] = {
    "FedAvg": {},
    "alignment of weight 0.1": {"alignment": {"weight": 0.1}},
    "alignment of weight 1": {"alignment": {"weight": 1.0}},
}
SKEWED: Mapping[str, Mapping[str, Any]] = {
    "FedAvg": {},
    "class weights": {"imbalance": "class_weights"},
    "logit adjustment": {"imbalance": "logit_adjustment"},
}


@dataclass(frozen=True)
class Row:
    """One method in one setting: macro AUC by seed, and by seed how much above FedAvg's."""

    setting: str
    method: str
    macro_auc: Sequence[float]
    gain: Sequence[float]

    def __str__(self) -> str:
        spread = statistics.stdev(self.gain) if len(self.gain) > 1 else 0.0
        return (
            f"{self.setting}, {self.method}: {statistics.fmean(self.macro_auc):.3f}, "
            f"gain {statistics.fmean(self.gain):+.3f} ± {spread:.3f}"
        )


def skewed(site: SiteData, **arguments: Any) -> Mapping[Split, BidsDataset]:
    """The site's data, with every fifth training subject of all but its two largest classes."""
    splits: Mapping[Split, BidsDataset] = federation.dataset(site, **arguments)
    train = splits["train"]
    common = {label for label, _ in Counter(train.targets).most_common(2)}
    rare = [e for e in train.examples if e.target not in common]
    kept = [e for e in train.examples if e.target in common] + rare[::5]
    return {**splits, "train": replace(train, examples=tuple(kept))}


def plan_with(training: Mapping[str, Any], seed: int, function: str = "dataset") -> Plan:
    """The shipped plan on the small grid."""
    plan = plan_of(Choices())
    where = federation.__name__ if function == "dataset" else __name__
    fields = plan.model_dump()
    fields["task"]["dataset"] = Function(function=f"{where}:{function}", arguments=GRID)
    fields["training"] |= {"batch_size": 8, **training}
    fields["rounds"], fields["seed"] = ROUNDS, plan.seed + seed
    return Plan.model_validate(fields)


def macro_auc(
    plan: Plan, sites: Mapping[str, Store], params: Params, splits: Iterable[Split]
) -> float:
    """Over these splits of these sites."""
    found = dict[str, Any]()
    for name in sorted(sites):
        learner = Learner(plan, sites[name], min_cell=5)
        for split in splits:
            order = EvalOrder("study", name, 0, plan.rounds, plan.digest, "", split=split)
            found = merge([found, learner.evaluate(order, "", params, None).statistics])
    summary = resolve(plan.task.metrics.summarise)(found, plan.task.classes)
    return float(summary["overall"]["macro_auc"]["value"])


def unseen(sites: Mapping[str, Store], training: Mapping[str, Any], seed: int) -> float:
    """Mean over the hospitals, each judged by a model of the others."""
    plan, found = plan_with(training, seed), []
    for away in sites:
        others = {name: store for name, store in sites.items() if name != away}
        params = trained(plan, others)
        found.append(macro_auc(plan, {away: sites[away]}, params, EVERYBODY))
    return statistics.fmean(found)


def under_skew(sites: Mapping[str, Store], training: Mapping[str, Any], seed: int) -> float:
    """On the held-out subjects of all hospitals."""
    plan = plan_with(training, seed, "skewed")
    return macro_auc(plan, sites, trained(plan, sites), ["test"])


def rows(sites: Mapping[str, Store], seeds: Iterable[int]) -> list[Row]:
    """Every method in both settings, printed as they come."""
    found = []
    for setting, methods, play in (("unseen", UNSEEN, unseen), ("skewed", SKEWED, under_skew)):
        base: list[float] = []
        for method, training in methods.items():
            of_seed = [round(play(sites, training, seed), 4) for seed in seeds]
            base = base or of_seed
            gain = [round(one - other, 4) for one, other in zip(of_seed, base, strict=True)]
            found.append(Row(setting, method, of_seed, gain))
            print(found[-1], flush=True)
    return found


def main() -> dict[str, Any]:
    return {"rows": [asdict(row) for row in rows(hospitals(), SEEDS)]}


if __name__ == "__main__":
    results.write("unlike", main())
