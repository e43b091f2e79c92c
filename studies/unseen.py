"""A scanner that was never seen: what harmonised and varied images bring there.

    python -m studies unseen

Four hospitals with scanners that differ in contrast, shading, noise and sharpness
(``settings.MR_ALONE``). Each in turn takes no part, and all its subjects are what the model of the
others is judged by. A figure is the mean over the four; a gain is over FedAvg with the same seed.
Every method is judged, none is chosen.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import numpy as np

from fedcore.config.plan import Plan
from fedcore.config.task import Preprocessing
from fedcore.data.ahead import learn_landmarks
from studies.federation import SEED, macro_auc, trained
from studies.jobs import by_method
from studies.rows import Row, gained
from studies.settings import MR_ALONE, sites_of, small_plan

SEEDS = range(3)
ROUNDS = 24
"""After 12 a model that sees varied images is far from settled."""

BASE, LEFT_OUT, GAIN = "FedAvg", "each hospital left out", 0.02
EVERYBODY = (1, 0, 0)
"""Train at a hospital, and are judged at the one that is left out."""


@dataclass(frozen=True)
class Method:
    """``training``: what it changes of the plan's. ``harmonised``: onto the landmarks of the
    hospitals that train (Nyúl)."""

    training: Mapping[str, Any] = field(default_factory=dict)
    harmonised: bool = False


METHODS: Mapping[str, Method] = {
    BASE: Method(),
    "moments aligned": Method({"alignment": {}}),
    "harmonised": Method(harmonised=True),
    "varied": Method({"augment": {}}),
    "harmonised and varied": Method({"augment": {}}, harmonised=True),
}

KNOWN = "FedAvg, the scanner known"
TWINS = SEED + 1
"""No method: other people on the same scanner train in the place of another hospital. What that
gains is what a method against unseen scanners may hope for."""

Landmarks = Mapping[str, Sequence[float]]
"""By modality."""


def plan_of(method: str, seed: int, landmarks: Landmarks) -> Plan:
    """The plan of the hospitals that train, whose ``landmarks`` these are."""
    how = METHODS.get(method, METHODS[BASE])
    plan = small_plan(
        seed, {"training": how.training}, rounds=ROUNDS, coarse=True, modalities=["t1ce", "flair"],
        fractions=EVERYBODY,
    )  # fmt: skip
    if not how.harmonised:
        return plan
    fields = plan.model_dump(mode="json")
    for name, values in landmarks.items():
        fields["task"]["modalities"][name] |= {"normalise": "nyul", "landmarks": list(values)}
    return Plan.model_validate(fields)


def shared(learnt: Sequence[Landmarks]) -> Landmarks:
    """What a federation puts into its plan: the mean of what each hospital learnt.

    >>> shared([{"flair": [0.0, 0.4]}, {"flair": [0.0, 0.6]}])
    {'flair': [0.0, 0.5]}
    """
    return {
        name: np.mean([of[name] for of in learnt], axis=0).round(4).tolist() for name in learnt[0]
    }


def score(method: str, seed: int) -> float:
    """The mean over the hospitals of the macro AUC at each, of a model of the others."""
    return fmean(_left_out(away, method, seed) for away in sites_of(MR_ALONE))


def main() -> list[Row]:
    """Every method with every seed, and what there is to gain."""
    sites_of(MR_ALONE), sites_of(MR_ALONE, TWINS)  # before the processes, which would all make them
    found = by_method(score, [*METHODS, KNOWN], SEEDS)
    rows = gained("unseen", LEFT_OUT, "macro_auc", found, base=BASE, goal=GAIN)
    return [replace(r, goal=None, met=None) if r.method == KNOWN else r for r in rows]


def _left_out(away: str, method: str, seed: int) -> float:
    sites = sites_of(MR_ALONE)
    others = {name: store for name, store in sites.items() if name != away}
    if method == KNOWN:
        others.popitem()
        others[away] = sites_of(MR_ALONE, TWINS)[away]
    plan = plan_of(method, seed, shared([_learnt(name) for name in sites if name != away]))
    return macro_auc(plan, {away: sites[away]}, trained(plan, others), splits=["train"])


@functools.cache
def _learnt(site: str) -> Landmarks:
    """What `fedcore site landmarks` says there."""
    plan = plan_of(BASE, 0, {})
    task = plan.task.model_copy(update={"preprocessing": Preprocessing()})  # which it asks for
    return learn_landmarks(task, sites_of(MR_ALONE)[site], plan.purpose, workers=1)
