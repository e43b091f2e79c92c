"""Fusion: each modality alone, each fusion of all; and what a modality's absence costs.

    python -m studies fusion

Macro AUC on held-out subjects. **Alone**: the model of one modality. **Absent at half of the
sites**: two of the four hospitals have no PET, neither to train on nor to be judged on. **Absent at
inference**: a model of everything is judged on subjects of whom one modality is taken away.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, get_args

from fedcore import baselines
from fedcore.config.plan import Plan
from fedcore.data.bids import BidsDataset
from fedcore.models.build import Fusion
from fedcore.params import Params
from studies.federation import data_of, macro_auc, trained
from studies.jobs import played
from studies.rows import Row, row
from studies.settings import EVERYTHING, PET_AT_HALF, sites_of, small_plan

SEEDS = range(3)
MODALITIES = ("t1ce", "flair", "ct", "pet")
FUSIONS: Sequence[str] = get_args(Fusion)
DROPOUT = 0.2
"""Of modalities, while a fusion trains: what makes it bear their absence."""

GAIN, COST = 0.03, 0.03
"""What a fusion is to add to the best modality alone, and what PET's absence may cost."""


def plan_of(method: str, seed: int) -> Plan:
    """``method``: a fusion, or "``modality`` alone"."""
    alone = method.removesuffix(" alone")
    arguments: Mapping[str, Any] = {"fusion": method, "modality_dropout": DROPOUT}
    plan = small_plan(seed, {})
    task = plan.task
    if alone in MODALITIES:
        arguments = {"fusion": "sum"}
        task = task.model_copy(update={"modalities": {alone: task.modalities[alone]}})
    model = task.model.model_copy(update={"arguments": {**task.model.arguments, **arguments}})
    task = task.model_copy(update={"model": model})
    return Plan.model_validate(plan.model_copy(update={"task": task}).model_dump(mode="json"))


def score(setting: str, method: str, seed: int) -> dict[str, float]:
    """``macro_auc``; of a fusion that trained on everything also without each modality."""
    plan, sites = plan_of(method, seed), sites_of(setting)
    params = trained(plan, sites)
    found = {"macro_auc": macro_auc(plan, sites, params)}
    if setting == EVERYTHING and method in FUSIONS:
        found |= {name: _without(name, plan, params, data_of(plan, sites)) for name in MODALITIES}
    return found


def _without(
    modality: str, plan: Plan, params: Params, data: Mapping[str, Mapping[str, Any]]
) -> float:
    left = {site: {"test": lacking(of["test"], modality)} for site, of in data.items()}
    found = baselines.macro_auc(plan, params, left)
    assert found is not None, "a study's federation has subjects of every class"
    return found


def lacking(subjects: BidsDataset, modality: str) -> BidsDataset:
    """Those who have another modality, without this one."""
    images = [
        {name: image for name, image in example.images.items() if name != modality}
        for example in subjects.examples
    ]
    examples = zip(subjects.examples, images, strict=True)
    kept = tuple(replace(example, images=left) for example, left in examples if left)
    return replace(subjects, examples=kept)


Found = Mapping[tuple[str, str], Sequence[Mapping[str, float]]]
"""Setting and method → what each seed came to."""


def judged(found: Found) -> list[Row]:
    """A row for every figure; the goals are of the best fusion of everything."""

    def of(setting: str, method: str, what: str = "macro_auc") -> list[float]:
        return [scores[what] for scores in found[setting, method]]

    def best(methods: Sequence[str]) -> str:
        return max(methods, key=lambda name: statistics.fmean(of(EVERYTHING, name)))

    rows = [
        row("fusion", setting, method, "macro_auc", of(setting, method))
        for setting, method in found
    ]
    rows += [
        row("fusion", f"without {name} at inference", fusion, "macro_auc",
            of(EVERYTHING, fusion, name))
        for fusion, name in product(FUSIONS, MODALITIES)
    ]  # fmt: skip
    alone = best([f"{name} alone" for name in MODALITIES])
    fused = best(FUSIONS)
    with_all, single = of(EVERYTHING, fused), of(EVERYTHING, alone)
    gain = [one - other for one, other in zip(with_all, single, strict=True)]
    halved = zip(of(PET_AT_HALF, fused), with_all, strict=True)
    worst = min(MODALITIES, key=lambda name: statistics.fmean(of(EVERYTHING, fused, name)))
    bears = zip(of(EVERYTHING, fused, worst), single, strict=True)
    return [
        *rows,
        row("fusion", EVERYTHING, fused, f"macro_auc above {alone}", gain, goal=GAIN),
        row("fusion", PET_AT_HALF, fused, "macro_auc above every modality",
            [one - other for one, other in halved], goal=-COST),
        row("fusion", f"without {worst} at inference", fused, f"macro_auc above {alone}",
            [one - other for one, other in bears], goal=0.0),
    ]  # fmt: skip


def main() -> list[Row]:
    """Every method with every seed, and every fusion where half of the sites lack PET."""
    methods = {
        EVERYTHING: [f"{name} alone" for name in MODALITIES] + [*FUSIONS],
        PET_AT_HALF: [*FUSIONS],
    }
    for setting in methods:  # before the processes begin, which would all make them
        sites_of(setting)
    jobs = [(setting, *job) for setting, of in methods.items() for job in product(of, SEEDS)]
    found: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    for (setting, method, _), scores in zip(jobs, played(score, jobs), strict=True):
        found.setdefault((setting, method), []).append(scores)
    return judged(found)
