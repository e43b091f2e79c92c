"""What a site tells of its training subjects beside its update, where the plan asks for it.

All of it is of the params that the round begins from, before any step: the same model at every
site. One pass over the subjects, without gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedcore.aggregation.statistics import GROUPS, MOMENTS
from fedcore.config.learning import GroupFairness, Training
from fedcore.evaluation.slices import shown
from fedcore.params import FloatArray
from fedcore.training.alignment import Features, moments
from fedcore.training.compute import Compute
from fedcore.training.emphasis import Emphasis, alike, each


@dataclass(frozen=True)
class Told:
    """``statistics``: as ``aggregation.statistics`` names them. ``loss``: mean over the subjects,
    each counted once."""

    loss: float = 0.0
    statistics: dict[str, FloatArray] = field(default_factory=dict)


def tell(
    module: nn.Module, batches: Iterable[Any], loss: Any, training: Training, emphasis: Emphasis,
    *, classes: Tensor | None, groups: Sequence[str] | None, compute: Compute, min_cell: int,
) -> Told:  # fmt: skip
    """``batches``: of all subjects once, in their order. The module is left in evaluation mode.

    A group of fewer than ``min_cell`` subjects of the site is told as if it had none, by the rule
    of the evaluation (``slices.shown``).
    """
    module.eval()
    rows, losses = [], []
    with ExitStack() as stack, torch.no_grad():
        align = training.alignment
        features = None if align is None else stack.enter_context(Features(module, align))
        for inputs, target, _ in batches:
            outputs = emphasis.adjusted(module(compute.send(inputs)))
            losses.append(each(loss, outputs, target.to(compute.device)).double().cpu())
            if features is not None:
                rows.append(features.last.double().cpu())
    of_each, statistics = torch.cat(losses), dict[str, FloatArray]()
    if rows and classes is not None:
        found = moments(torch.cat(rows), alike(classes).double())
        statistics[MOMENTS] = found.numpy().astype(np.float32)
    if groups is not None and training.fairness is not None and training.is_dro:
        statistics[GROUPS] = by_group(of_each, groups, training.fairness, min_cell)
    return Told(float(of_each.mean()), statistics)


def by_group(
    losses: Tensor, groups: Sequence[str], how: GroupFairness, min_cell: int
) -> FloatArray:
    """(2, G): the share of each group, and that times its mean loss; 0 where it is too small.

    Subjects of no group of the plan are one more cell, which must not follow from the others.
    """
    place = {group: number for number, group in enumerate(how.groups)}
    member = np.array([place.get(group, len(place)) for group in groups])
    sizes = np.bincount(member, minlength=len(place) + 1)
    found = np.zeros((2, len(place)), np.float32)
    for number in shown(sizes, min_cell):
        if number < len(place):
            inside = member == number
            found[:, number] = inside.sum(), losses.numpy()[inside].sum()
    return found / np.float32(len(groups))
