"""Features that look the same at every site, without a feature leaving one.

Scanners differ, and features with them. Sites share A = E[z zᵀ] of z = (1, x), with x a subject's
features scaled to norm 1: their mean and second moments in one matrix, which is a mean over
subjects of matrices of norm 2, and adds up over sites (``aggregation.statistics``). The term ::

    ‖A_site − A‖²_F  =  2 ‖mean_site − mean‖² + ‖second_site − second‖²_F

is CORAL's idea (Sun and Saenko 2016, https://arxiv.org/abs/1607.01719), with the means, on the
sphere: the squared maximum mean discrepancy under the kernel (1 + ⟨x, x'⟩)² (Gretton et al. 2012,
https://jmlr.org/papers/v13/gretton12a.html). Of a batch it is estimated **without bias**, from
pairs of two different subjects: a batch of 4 has no covariance worth the name, and a biased
estimate would pull all features together.

**Classes.** Sites differ in how many of each class they have, and features must differ by class.
So every class counts the same in A, wherever it is (Zhao et al. 2019,
https://arxiv.org/abs/1901.09453, on what happens else). A class that a site lacks is lacking in
its A.

>>> z = torch.nn.functional.normalize(torch.randn(6, 3), dim=1)
>>> classes = torch.tensor([0, 0, 0, 1, 1, 1])
>>> everybody = moments(z, alike(classes))
>>> bool(discrepancy(z, alike(classes), everybody) < 0)  # unbiased, so it can be below 0
True
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from fedcore.config.learning import Alignment
from fedcore.training.emphasis import alike

_KNOWN = 0.1
"""What A_00, which is 1, has at least where the sites' moments arrived: it begins at 0, and where
updates are clipped it rises over some rounds, as the rest of A does."""


def moments(features: Tensor, weights: Tensor) -> Tensor:
    """A (1 + F, 1 + F) of features (N, F) of norm 1; weights (N,)."""
    extended = pad(features, (1, 0), value=1.0)
    return (extended * (weights / weights.sum()).unsqueeze(1)).T @ extended


def discrepancy(features: Tensor, weights: Tensor, target: Tensor) -> Tensor:
    """‖A − target‖² without bias, where A is of the population that these are drawn from.

    features (B, F) of norm 1 with B ≥ 2, weights (B,), target (1 + F, 1 + F). Scalar.
    """
    extended = pad(features, (1, 0), value=1.0)
    pairs = torch.outer(weights, weights).fill_diagonal_(0.0)
    within = (pairs * (extended @ extended.T).square()).sum() / pairs.sum()
    across = (weights * ((extended @ target) * extended).sum(dim=1)).sum() / weights.sum()
    return within - 2 * across + target.square().sum()


class Features:
    """What goes into a layer, scaled to norm 1: watched while the module runs; a context."""

    def __init__(self, module: nn.Module, how: Alignment) -> None:
        self._layer = module.get_submodule(how.layer)
        self.last = torch.zeros(0)

    def __enter__(self) -> Features:
        self._hook = self._layer.register_forward_pre_hook(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _note(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.last = normalize(inputs[0].float().flatten(1), dim=1, eps=1e-6)


class Term:
    """``weight`` · the discrepancy of a batch from all sites' moments, as they came.

    ``classes``: (N,), of the site's subjects. None while the moments are not known yet.
    """

    def __init__(self, features: Features, how: Alignment, target: Tensor, classes: Tensor) -> None:
        self._features, self._weight, self._weights = features, how.weight, alike(classes)
        known = float(target[0, 0])
        self._target = target / known if known > _KNOWN else None

    def __call__(self, index: Tensor) -> Tensor | None:
        """Of the batch that ran last, which are the subjects of these numbers (B,)."""
        if self._target is None or len(index) < 2:
            return None
        weights = self._weights[index].to(self._features.last)
        return self._weight * discrepancy(self._features.last, weights, self._target)
