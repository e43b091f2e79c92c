"""What a site counts of a generative model beside its classes, where the plan asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fedcore import seeds
from fedcore.config.plan import Plan
from fedcore.evaluation import memorisation, reconstruction
from fedcore.records import Split, Statistics
from fedcore.training import nearest
from fedcore.training.reconstruction import errors


def statistics(
    plan: Plan, module: nn.Module, data: Mapping[Split, Any], split: Split, *, min_cell: int
) -> Statistics:
    """How far the images of a ``split`` are off as ``module`` reconstructs them, and, once at the
    end, on the test split, how near what it draws comes to those trained on and to the others."""
    metrics, found = plan.task.metrics, dict[str, Any]()
    if metrics.reconstruction:
        of_each = errors(module, data[split], plan.training)
        found |= reconstruction.collect(of_each, list(plan.task.modalities), min_cell=min_cell)
    if metrics.memorisation > 0:
        found |= memorisation.collect([], [], min_cell=min_cell)
    if metrics.memorisation > 0 and split == "test":
        seed = seeds.derive(plan.seed, "memorisation")
        made = nearest.drawn(module, metrics.memorisation, len(plan.task.classes), seed=seed)
        distances = (nearest.to_nearest(data[of], made) for of in ("train", "test"))
        found |= memorisation.collect(*distances, min_cell=min_cell)
    return found
