"""Macro AUC against epsilon for ``fedcore demo --dp subject``, over many draws of the noise.

Makes the demo's data in memory (minutes), computes the fixed features of the demo's private model
once, and plays the demo's rounds on them: each site's ``fedcore.training.dpsgd.train``, their mean.
The features are not trained, so this is the demo's arithmetic without its services. Not part of
``make bench``.

    python benchmarks/subject_curve.py [SEED OF THE DATA]
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from fedcore.config.functions import resolve
from fedcore.config.plan import Plan, SubjectPrivacy
from fedcore.data.phantoms.cohort import demo_federation
from fedcore.data.phantoms.writer import write_site
from fedcore.data.site import SiteData
from fedcore.demo.plan import Choices, plan_of
from fedcore.evaluation.metrics import collect, summarise
from fedcore.models.initial import build_model
from fedcore.store.memory import MemoryStore
from fedcore.terminal import show_rows
from fedcore.training import dpsgd

EPSILONS = (8.0, 4.0, 2.0, 1.0, 0.5)
DRAWS = 20
WITHOUT = SubjectPrivacy(clip_norm=1e6, noise_multiplier=1e-12, sampling_rate=1.0, steps=3)
"""Neither clipping nor noise."""

Split = dict[str, TensorDataset]


def main(seed: int | None = None) -> list[dict[str, Any]]:
    """A row an epsilon: mean and standard deviation over the draws, on all sites' test subjects."""
    torch.set_num_threads(1)
    plan = plan_of(Choices(dp="subject", epsilon=EPSILONS[0]))
    sites = [_features(plan, spec, seed) for spec in demo_federation(_seed(plan, seed))]
    rows = [_row("no noise, no clipping", [_macro_auc(plan, WITHOUT, sites)])]
    rows.append(_row("no noise, clipped", [_macro_auc(plan, _clipped(plan), sites)]))
    for epsilon in EPSILONS:
        plan = plan_of(Choices(dp="subject", epsilon=epsilon))
        assert plan.privacy.subject is not None
        aucs = [_macro_auc(plan, plan.privacy.subject, sites) for _ in range(DRAWS)]
        rows.append(_row(f"epsilon {epsilon:g}", aucs))
    return rows


def _seed(plan: Plan, seed: int | None) -> int:
    return plan.seed if seed is None else seed


def _clipped(plan: Plan) -> SubjectPrivacy:
    assert plan.privacy.subject is not None
    return plan.privacy.subject.model_copy(update={"noise_multiplier": 1e-12})


def _features(plan: Plan, spec: Any, seed: int | None) -> Split:
    """What the head of the model takes, of every subject of a site, by split."""
    store, heard = MemoryStore(), list[torch.Tensor]()
    write_site(spec, store, seed=_seed(plan, seed))
    module: Any = build_model(plan).eval()
    module.head.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
    found: Split = {}
    splits = resolve(plan.task.dataset)(SiteData(plan.task, store, plan.purpose))
    for name, dataset in splits.items():
        heard.clear()
        items = [dataset.collate([dataset[index]]) for index in range(len(dataset))]
        with torch.no_grad():
            for inputs, _ in items:
                module(inputs)
        found[name] = TensorDataset(torch.cat(heard), torch.cat([target for _, target in items]))
    return found


def _macro_auc(plan: Plan, privacy: SubjectPrivacy, sites: Iterable[Split]) -> float:
    """Of the run's last params, on the test subjects of all sites."""
    splits = list(sites)
    head = nn.Linear(splits[0]["train"].tensors[0].shape[1], len(plan.task.classes))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    for _ in range(plan.rounds):
        updated = [
            dpsgd.train(
                head,
                site["train"],
                cross_entropy,
                plan.training,
                privacy,
                key=os.urandom(32),
                seed=0,
            ).params
            for site in splits
        ]  # fmt: skip
        with torch.no_grad():
            for name, parameter in head.named_parameters():
                parameter.copy_(torch.from_numpy(np.mean([one[name] for one in updated], axis=0)))
    rows, targets = (
        torch.cat([site["test"].tensors[i] for site in splits]) for i in (0, 1)
    )  # fmt: skip
    with torch.no_grad():
        scores = head(rows).double().softmax(dim=1).numpy()
    counted = collect(scores, targets.numpy(), {}, num_classes=len(plan.task.classes))
    return float(summarise(counted, plan.task.classes)["overall"]["macro_auc"]["value"])


def _row(name: str, aucs: list[float]) -> dict[str, Any]:
    spread = statistics.stdev(aucs) if len(aucs) > 1 else 0.0
    mean = statistics.mean(aucs)
    return {"name": f"{name}: macro AUC", "value": round(mean, 3), "unit": f"± {spread:.3f}"}


if __name__ == "__main__":
    show_rows("Subject-level", main(*map(int, sys.argv[1:])))
