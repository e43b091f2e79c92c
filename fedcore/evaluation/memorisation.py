"""Whether a generator copies the subjects it was trained on.

If it learnt what subjects are like, and not who they are, what it makes comes no nearer to those it
was trained on than to others like them. So measure, for each subject trained on and each held out,
how far the nearest synthetic subject is. ``closeness`` is the chance that of one each, the subject
trained on is the nearer: 0.5 if nobody was memorised, 1 if everybody was. It is the AUC of the best
known attack by those who have the synthetic subjects alone (Chen et al. 2020, *GAN-Leaks*,
https://arxiv.org/abs/1909.03935), and Mann and Whitney's statistic, as in the three-sample test of
Meehan et al. 2020 (https://arxiv.org/abs/2004.05675).

If nobody was memorised, who was trained on is as good as drawn by lot. Drawing it anew gives the
statistic's distribution: an exact test, whatever the distance is.

What it cannot see: a copy in which the distance sees no likeness, and one subject among many. It is
no bound on what can be told; that is what ``privacy.subject`` is for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.seeds import generator

Distances = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Memorisation:
    """``closeness`` in [0, 1]; ``low``, ``high``: the middle 95 % of it if nobody is memorised.

    ``p_value``: how likely so large a closeness is then.
    """

    closeness: float
    low: float
    high: float
    p_value: float

    @property
    def found(self) -> bool:
        """Whether chance does not explain it, at 5 %."""
        return self.p_value < 0.05


def memorisation(
    train: Distances, held_out: Distances, *, draws: int = 2000, seed: int = 0
) -> Memorisation:
    """From the distances to the nearest synthetic subject, of those trained on (T,) and not (H,).

    Equal distances count half. The smallest p-value is 1 / (``draws`` + 1). Raises ValueError where
    a set is empty or a distance is NaN.

    >>> memorisation(np.array([0.1, 0.2, 0.3]), np.array([0.4, 0.5, 0.6])).closeness
    1.0
    """
    distances = np.concatenate([train, held_out])
    if not len(train) or not len(held_out):
        raise ValueError("subjects trained on and held out are both needed")
    if np.isnan(distances).any():
        raise ValueError("a distance is not a number")
    ranks = _ranks(distances)

    def closeness(of_train: NDArray[np.bool_]) -> float:
        rest = ranks[~of_train]
        return float((rest.sum() - len(rest) * (len(rest) + 1) / 2) / (of_train.sum() * len(rest)))

    trained_on = np.arange(len(distances)) < len(train)
    found, rng = closeness(trained_on), generator(seed, "memorisation")
    chance = np.array([closeness(rng.permutation(trained_on)) for _ in range(draws)])
    low, high = np.quantile(chance, [0.025, 0.975])
    as_large = int((chance >= found - 1e-9).sum())
    return Memorisation(found, float(low), float(high), (as_large + 1) / (draws + 1))


def _ranks(values: Distances) -> NDArray[np.float64]:
    """From 1; equal values share the mean of theirs.

    >>> _ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[where]
    return ranks
