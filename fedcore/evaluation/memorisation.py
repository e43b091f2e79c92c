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

**Over sites** (``collect``) only counts of subjects by distance leave, the same bins everywhere, so
that merged sites give what pooled subjects do, but for ties within a bin (1 % of a distance). Its
limits are then those of an AUC (``intervals.auc``): who was trained on cannot be drawn anew.

What it cannot see: a copy in which the distance sees no likeness, and one subject among many. It is
no bound on what can be told; that is what ``privacy.subject`` is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import DataError, UpdateRejected
from fedcore.evaluation import intervals
from fedcore.evaluation.slices import FloatArray, malformed
from fedcore.records import Statistics
from fedcore.seeds import generator

Distances = NDArray[np.floating[Any]]

KEY = "memorisation"

_BINS, _FAR = 512, 4.0  # equal steps of log2 of the distance, within ± 4


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


def collect(
    train: Distances | Sequence[float], held_out: Distances | Sequence[float], *, min_cell: int
) -> dict[str, FloatArray]:
    """One site's subjects by the distance to the nearest synthetic one: ``memorisation`` (2, 512),
    of those trained on and of those held out. Of fewer than ``min_cell`` of either, none is told.

    Raises DataError where a distance is not a number.

    >>> collect([0.5, 2.0], [1.0, 1.0], min_cell=2)["memorisation"].sum(axis=1).tolist()
    [2.0, 2.0]
    """
    sides = [np.asarray(side, np.float64) for side in (train, held_out)]
    if any(np.isnan(side).any() for side in sides):
        raise DataError(
            "a distance to a synthetic subject is not a number; did training diverge?",
            reason="distances that are not numbers",
        )
    found = np.zeros((2, _BINS))
    if min(map(len, sides)) >= min_cell:
        found = np.stack([_binned(side) for side in sides])
    return {KEY: found}


def layout() -> dict[str, tuple[int, ...]]:
    """What ``collect`` gives: name → shape."""
    return {KEY: (2, _BINS)}


def figures(statistics: Statistics) -> dict[str, Any]:
    """``{value, low, high, trained_on, held_out}``: ``closeness`` over the sites' subjects with its
    95 % limits, None where undefined, and how many subjects those are.

    Raises UpdateRejected where nobody counted so.

    >>> figures(collect([0.1, 0.2, 0.3], [0.4, 0.5, 0.6], min_cell=1))["value"]
    1.0
    """
    counts = np.asarray(statistics.get(KEY, np.zeros((2, _BINS))), np.float64)
    fault = malformed({KEY: counts}, {KEY: np.zeros((2, _BINS))})
    if fault is not None:
        raise UpdateRejected(f"statistics of the memorisation: {fault}")
    train, held_out = counts
    closeness = intervals.auc(held_out, train).plain()[0]
    return {**closeness, "trained_on": int(train.sum()), "held_out": int(held_out.sum())}


def _binned(distances: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        place = (np.clip(np.log2(distances) / _FAR, -1, 1) + 1) / 2 * _BINS
    bins = np.minimum(place.astype(np.int64), _BINS - 1)
    return np.bincount(bins, minlength=_BINS).astype(np.float64)


def _ranks(values: Distances) -> NDArray[np.float64]:
    """From 1; equal values share the mean of theirs.

    >>> _ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[where]
    return ranks
