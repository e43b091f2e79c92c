"""Outlines: a federation beside all data in one place and each site alone; and real patients.

    python -m studies segmentation

Dice on the held-out subjects of all sites together, of each structure and their mean. Every model
of a seed begins from the same params and passes over its data as often. The goal of the federated
one is 95 % of what all data in one place come to, and more than any site alone. The shipped plan is
trained once, as it is. The two real patients are a smoke test: a model that saw one outlines the
other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

from torch import Tensor

from fedcore import baselines
from fedcore.config import plan as plans
from fedcore.config.plan import Plan
from fedcore.params import Params
from fedcore.store.api import Store
from studies.federation import data_of, hospitals, trained
from studies.jobs import played
from studies.patients import patients
from studies.rows import Row, goals, row

PLAN = Path(__file__).parents[1] / "plans" / "brain_tumour_segmentation.yaml"
SEEDS = range(3)
SCALE = 0.5
"""Of the demo's subjects."""

SHARE = 0.95
"""Of the centralised Dice."""

FEDERATED, CENTRALISED = "federated", "centralised"
SMALL, SHIPPED = "half the subjects, 8 mm", "the shipped plan"
REAL = "real patients, smoke test"

Figures = Mapping[str, float]
"""Metric → value."""


def small(seed: int) -> Plan:
    """The shipped plan on a coarser grid, and with more of the subjects to judge by."""
    fields = _shipped()
    fields["seed"] = seed
    fields["task"]["dataset"]["arguments"] |= {
        "shape": [20, 24, 20], "spacing_mm": 8.0, "fractions": [0.6, 0.05, 0.35],
    }  # fmt: skip
    for structure in fields["task"]["target"]["structures"].values():
        structure["least_voxels"] = 0  # of the shipped plan's smaller ones
    return Plan.model_validate(fields)


def of_patients() -> Plan:
    """The shipped plan's model and training, of the sarcomas; all subjects are trained on."""
    fields = _shipped()
    fields |= {"name": "sarcoma-smoke-test", "rounds": 100}  # of one subject each
    fields["task"] |= {
        "classes": ["background", "tumour"],
        "groups": [],
        "modalities": {
            "ct": {"kind": "ct", "path": "ct/*_ct.nii.gz", "window": [-200, 400]},
            "pet": {"kind": "pet", "path": "pet/*_pet.nii.gz", "window": [0, 12]},
            "t1": {"kind": "mr", "path": "anat/*_T1w.nii.gz"},
        },
        "target": {"structures": {"tumour": {"path": "ct/*_label-tumour_mask.nii.gz"}}},
    }
    fields["task"]["dataset"]["arguments"] = {
        "shape": [32, 32, 32], "spacing_mm": 6.0, "consent_column": None, "fractions": [1, 0, 0],
    }  # fmt: skip
    return Plan.model_validate(fields)


def _shipped() -> dict[str, Any]:
    return plans.load(PLAN).model_dump(mode="json")


def score(method: str, seed: int) -> dict[str, Figures]:
    """Method → its figures; ``CENTRALISED`` with every single site's."""
    if method == SHIPPED:
        return {method: shipped()}
    plan, sites = small(seed), hospitals(scale=SCALE)
    data = data_of(plan, sites)
    if method == FEDERATED:
        return {method: figures(plan, trained(plan, sites), data)}
    chosen = {**{f"{name} alone": [name] for name in data}, CENTRALISED: list(data)}
    return {
        name: figures(plan, baselines.trained_on(plan, data, places), data)
        for name, places in chosen.items()
    }


def figures(plan: Plan, params: Params, data: baselines.Datasets) -> Figures:
    """Dice in all and by structure, and the share of those without it in whom none was found."""
    # Nothing leaves: a study may look at every subject.
    overall = baselines.summarised(plan, params, data, min_cell=1)["overall"]
    found = {metric: overall[metric]["value"] for metric in ("dice", "specificity")}
    found |= {f"dice of {name}": of["dice"]["value"] for name, of in overall["per_class"].items()}
    return {metric: value for metric, value in found.items() if value is not None}


def judged(found: Mapping[str, Sequence[Figures]]) -> list[Row]:
    """A row a method and metric, and whether the federated method met its goals in Dice."""
    rows = {method: of_method(SMALL, method, by_seed) for method, by_seed in found.items()}
    dice = {method: [of["dice"] for of in by_seed] for method, by_seed in found.items()}
    alone = max(rows[method][0].mean for method in rows if method.endswith(" alone"))
    federated = rows[FEDERATED][0]
    return [
        *(one for of in rows.values() for one in of),
        *goals(federated, dice[FEDERATED], centralised=dice[CENTRALISED], alone=alone, share=SHARE),
    ]


def of_method(setting: str, method: str, by_seed: Sequence[Figures]) -> list[Row]:
    """A row a metric, Dice first."""
    return [
        row("segmentation", setting, method, metric, [of[metric] for of in by_seed])
        for metric in by_seed[0]
    ]


def shipped() -> Figures:
    """The shipped plan, to its end, on all the demo's subjects."""
    plan, sites = plans.load(PLAN), hospitals()
    return figures(plan, trained(plan, sites), data_of(plan, sites))


def smoke(plan: Plan, sites: Mapping[str, Store]) -> list[Row]:
    """Trained on one patient, tested on the other, in both directions.

    Beside it, what needs no image: the outline of the one, taken for the other's. The scans are
    cropped around the tumour, so that the middle of the grid is a good guess.
    """
    read = {name: splits["train"] for name, splits in data_of(plan, sites).items()}
    data = {name: {"train": patient, "test": patient} for name, patient in read.items()}
    dice = {}
    for one, other in permutations(data, 2):
        params = baselines.trained_on(plan, data, [one])
        found = figures(plan, params, {other: data[other]})
        dice[f"trained on {one}, tested on {other}"] = found["dice"]
        dice[f"outline of {one}, taken for that of {other}"] = dice_between(
            read[one].targets[0], read[other].targets[0]
        )
    return [row("segmentation", REAL, method, "dice", [value]) for method, value in dice.items()]


def dice_between(found: Tensor, true: Tensor) -> float:
    """Of two outlines (X, Y, Z), 1 inside and 0 outside.

    >>> round(dice_between(Tensor([0, 1, 1]).byte(), Tensor([0, 0, 1]).byte()), 3)
    0.667
    """
    both = (found & true).sum()
    return float(2 * both / (found.sum() + true.sum()))


def main() -> list[Row]:
    """Every row; those of the real patients where they are."""
    hospitals(scale=SCALE), hospitals()  # before the processes begin, which would all make them
    found: dict[str, list[Figures]] = {}
    for scores in played(score, [(SHIPPED, 0), *product((CENTRALISED, FEDERATED), SEEDS)]):
        for method, of in scores.items():
            found.setdefault(method, []).append(of)
    whole = of_method(SHIPPED, FEDERATED, found.pop(SHIPPED))
    real = patients()
    if len(real) < 2:
        print("no real patients: shared/data is not beside this checkout (FEDCORE_TEST_DATA)")
    return [*judged(found), *whole, *(smoke(of_patients(), real) if len(real) > 1 else [])]
