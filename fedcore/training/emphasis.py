"""The loss of a batch, where classes or groups are to count otherwise than by their numbers.

**Logit adjustment** (Menon et al. 2021, https://arxiv.org/abs/2007.07314; with a prior for each
site: Zhang et al. 2022, https://arxiv.org/abs/2209.00189): the loss is of logits + log π, with π_c
the share of class c among the site's training subjects. The logits themselves then tell the classes
apart as if all were as frequent, at every site alike. A class that the site lacks is not pushed
down there.

**Weights**: subject i's loss counts w_i, of mean 1 over the site. By class (``class_weights``) and
by group (``fairness`` with ``reweigh``; Idrissi et al. 2022, https://arxiv.org/abs/2110.14503) that
is N / (number of cells · number in i's cell); with ``dro``, what all sites' losses ask for
(``aggregation.statistics``). Both together: the product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedcore.aggregation import statistics
from fedcore.config.learning import GroupFairness, Training
from fedcore.errors import ConfigError
from fedcore.params import FloatArray

_RAREST = 1e-8
"""The share of a class that the site lacks: its logit hardly counts, and the loss stays finite."""


@dataclass(frozen=True)
class Emphasis:
    """``prior``: log π by class, for as many as occur. ``weights``: (N,), by subject."""

    prior: Tensor | None = None
    weights: Tensor | None = None

    def loss(self, loss: Any, outputs: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """The mean over the batch, whose subjects are those of the numbers ``index``."""
        if self.prior is None and self.weights is None:
            return loss(outputs, target)  # type: ignore[no-any-return]
        outputs = self.adjusted(outputs)
        if self.weights is None:
            return loss(outputs, target)  # type: ignore[no-any-return]
        weights = self.weights[index].to(outputs.device)
        return (weights * each(loss, outputs, target)).mean()

    def adjusted(self, outputs: Tensor) -> Tensor:
        """Logits (B, K) + log π. Raises ConfigError for other outputs."""
        if self.prior is None:
            return outputs
        if outputs.dim() != 2 or outputs.shape[1] < len(self.prior):
            raise ConfigError(
                f"training: logit_adjustment is of logits (batch, classes), and the model gives "
                f"{tuple(outputs.shape)} for {len(self.prior)} classes; remove imbalance"
            )
        lacking = torch.full((outputs.shape[1] - len(self.prior),), float(np.log(_RAREST)))
        return outputs + torch.cat([self.prior, lacking]).to(outputs)


def each(loss: Any, outputs: Tensor, target: Tensor) -> Tensor:
    """The loss of each subject alone (B,), of a loss that gives the mean over a batch."""
    return torch.stack([loss(outputs[i : i + 1], target[i : i + 1]) for i in range(len(target))])


def emphasis(
    training: Training,
    classes: Tensor | None,
    groups: Sequence[str] | None,
    params: Mapping[str, FloatArray],
) -> Emphasis:
    """What the plan asks for at a site of these ``classes`` (N,) and ``groups`` of its fairness.

    ``params``: the module's, the statistics of all sites among them. ``classes`` and ``groups`` are
    None where not asked for.
    """
    prior, factors = None, list[Tensor]()
    if classes is not None and training.imbalance == "logit_adjustment":
        shares = torch.bincount(classes) / len(classes)
        prior = shares.clamp(min=_RAREST).log()
    if classes is not None and training.imbalance == "class_weights":
        factors.append(alike(classes))
    if groups is not None and training.fairness is not None:
        factors.append(_by_group(training.fairness, groups, params))
    if not factors:
        return Emphasis(prior)
    weights = torch.stack(factors).prod(dim=0)
    return Emphasis(prior, weights if training.is_dro else weights / weights.mean())


def groups_of(dataset: Any, training: Training) -> list[str] | None:
    """The group of each example, where the plan asks for it. Raises ConfigError if not known."""
    if training.fairness is None:
        return None
    attribute = training.fairness.attribute
    known: Mapping[str, Sequence[str]] = getattr(dataset, "groups", {})
    if attribute not in known or len(known[attribute]) != len(dataset):
        raise ConfigError(
            f"training: fairness: task.dataset does not tell {attribute!r} of each example; give "
            "its datasets an attribute groups, or remove fairness"
        )
    return list(map(str, known[attribute]))


def classes_of(dataset: Any, training: Training) -> Tensor | None:
    """The class of each example (N,), where the plan asks for it.

    A dataset that has them as an attribute ``targets`` need not be read for it. Raises ConfigError
    where a target is no class.
    """
    if training.imbalance == "none" and training.alignment is None:
        return None
    known = getattr(dataset, "targets", None)
    targets = [dataset[i][1] for i in range(len(dataset))] if known is None else known
    try:
        return torch.tensor([int(target) for target in targets])
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            "training: imbalance and alignment go by the class of each example, and the dataset's "
            "targets are none; remove them"
        ) from error


def alike(cells: Tensor) -> Tensor:
    """Weights (N,) by which every cell counts the same, none of them above ``MOST``."""
    counts = torch.bincount(cells)
    weights = len(cells) / (counts[cells] * (counts > 0).sum())
    return weights.clamp(max=statistics.MOST)


def _by_group(
    how: GroupFairness, groups: Sequence[str], params: Mapping[str, FloatArray]
) -> Tensor:
    if how.method == "reweigh":
        return alike(torch.from_numpy(np.unique(groups, return_inverse=True)[1]))
    factors = statistics.factors(params[statistics.EMPHASIS], params[statistics.GROUPS])
    by_name = dict(zip(how.groups, factors.tolist(), strict=True))
    return torch.tensor([by_name.get(group, 1.0) for group in groups])
