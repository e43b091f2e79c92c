"""One-vs-rest figures of a classifier with 95 % intervals, from counts alone.

- **Proportions** (accuracy, sensitivity, specificity): Wilson 1927,
  https://doi.org/10.1080/01621459.1927.10502953, which stays sensible at 0, at 1 and for few.
- **F1** of one class is 2p/(1+p) with p = TP/(TP+FP+FN). Given its denominator TP is binomial,
  so p has a Wilson interval, and F1, a monotone function of it, the transformed one.
- **AUC**: DeLong's variance (DeLong 1988, https://doi.org/10.2307/2531595) over the bins of score
  histograms, ties by midranks, and limits on the logit scale. Where that variance is zero or
  undefined (perfect separation, one subject in a class), the Wilson interval of min(m, n) trials:
  Var(AUC) ≤ AUC(1−AUC)/min(m, n) always holds (van Dantzig 1951).
- **Means over subjects** of a figure in [0, 1] (Dice): the same, with the variance between them.
- **Macro** figures are means over the classes that are defined. Their limits come from those of
  the classes by MOVER (Zou & Donner 2008, https://doi.org/10.1002/sim.3095), with d the distance
  of each class's value to its own limit and ρ the correlation between classes::

      limit = mean ± √(dᵀ ρ d) / K

  Closed form, so the same counts give the same bits, and unlike a bootstrap or a plain delta
  method it does not collapse to a point when no error was seen. ρ is that of the multinomial of
  the confusion counts by the delta method. For AUC it is that of the hard decisions, whose
  one-vs-rest AUC is (sensitivity + specificity)/2: histograms of each class do not hold the joint
  distribution of scores. This is exact for two classes (ρ = 1), and close for more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

FloatArray = NDArray[np.float64]
Metric = Literal["auc", "sensitivity", "specificity", "f1"]

Z = 1.959963984540054
"""97.5 % quantile of the normal distribution."""

_SMOOTHING = 0.1
"""Subjects added to each cell of the confusion counts before correlations are taken, so that they
exist where no error was seen."""


@dataclass(frozen=True)
class Estimates:
    """Values with their limits, of one shape. NaN where undefined."""

    value: FloatArray
    low: FloatArray
    high: FloatArray

    def plain(self) -> list[dict[str, float | None]]:
        """One ``{"value", "low", "high"}`` an element; None where undefined."""
        rows = np.stack([self.value, self.low, self.high], axis=-1).reshape(-1, 3)
        return [
            {name: None if np.isnan(x) else float(x) for name, x in zip(_FIELDS, row, strict=True)}
            for row in rows
        ]


_FIELDS = ("value", "low", "high")


def wilson(successes: FloatArray, trials: FloatArray) -> Estimates:
    """Proportions ``successes / trials`` with Wilson's limits; undefined where there is no trial.

    >>> wilson(np.array([8.0]), np.array([10.0])).plain()[0]["low"].__round__(4)
    0.4902
    """
    n = np.where(trials > 0, trials, np.nan)
    p = successes / n
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    # The formula's limit is p itself at 0 and 1, but for rounding.
    low = np.where(p == 0, 0.0, np.minimum(centre - half, p))
    high = np.where(p == 1, 1.0, np.maximum(centre + half, p))
    return Estimates(p, np.where(np.isnan(p), np.nan, low), np.where(np.isnan(p), np.nan, high))


def delong(positives: FloatArray, negatives: FloatArray) -> tuple[FloatArray, FloatArray]:
    """AUC and its variance from score histograms (..., bins) of both sides, ascending scores.

    Exactly DeLong's estimate for the binned scores. AUC is NaN where a side is empty, the
    variance where a side has fewer than two subjects.

    >>> auc, variance = delong(np.array([0.0, 1, 3]), np.array([2.0, 2, 0]))
    >>> float(auc), round(float(variance), 6)
    (0.9375, 0.005208)
    """
    m, n = (np.asarray(side.sum(axis=-1, keepdims=True)) for side in (positives, negatives))
    with np.errstate(invalid="ignore", divide="ignore"):
        below = (negatives.cumsum(axis=-1) - negatives / 2) / n
        above = (m - positives.cumsum(axis=-1) + positives / 2) / m
        auc = (positives * below).sum(axis=-1, keepdims=True) / m
        from_positives = (positives * (below - auc) ** 2).sum(axis=-1, keepdims=True) / (m - 1)
        from_negatives = (negatives * (above - auc) ** 2).sum(axis=-1, keepdims=True) / (n - 1)
        variance = np.where((m > 1) & (n > 1), from_positives / m + from_negatives / n, np.nan)
    return auc[..., 0], variance[..., 0]


def auc(positives: FloatArray, negatives: FloatArray) -> Estimates:
    """AUC with its limits from score histograms (..., bins) of positives and negatives."""
    value, variance = delong(positives, negatives)
    fewest = np.minimum(positives.sum(axis=-1), negatives.sum(axis=-1))
    return _on_the_logit_scale(value, variance, wilson(value * fewest, fewest))


def mean_of(total: FloatArray, squares: FloatArray, trials: FloatArray) -> Estimates:
    """Means of figures in [0, 1], of which sum and sum of squares are known; undefined of none.

    Limits on the logit scale from the variance between subjects; where that is zero or undefined
    Wilson's, since no figure in [0, 1] varies more than one that is 0 or 1.

    >>> mean_of(np.array([1.6]), np.array([1.3]), np.array([2.0])).plain()[0]["value"]
    0.8
    """
    n = np.where(trials > 0, trials, np.nan)
    value = np.clip(total / n, 0.0, 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.maximum(squares / n - value**2, 0.0) / (n - 1)
    return _on_the_logit_scale(value, variance, wilson(value * trials, trials))


def _on_the_logit_scale(value: FloatArray, variance: FloatArray, bound: Estimates) -> Estimates:
    """``value`` ± on the scale of its logit; the limits of ``bound`` where there is no variance."""
    with np.errstate(invalid="ignore", divide="ignore"):
        half = Z * np.sqrt(variance) / (value * (1 - value))
        low, high = expit(logit(value) - half), expit(logit(value) + half)
    usable = (variance > 0) & np.isfinite(variance)
    return Estimates(value, np.where(usable, low, bound.low), np.where(usable, high, bound.high))


def by_class(
    confusion: FloatArray, positives: FloatArray, negatives: FloatArray
) -> dict[Metric, Estimates]:
    """Each metric's estimates (K,), one class against the rest.

    ``confusion`` (K, K) has a row for each true class; ``positives`` and ``negatives`` (K, bins)
    are histograms of each class's score. A class that nobody has is undefined in all but
    specificity; one that everybody has, in AUC and specificity.
    """
    subjects, predicted, right = confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal()
    others = confusion.sum() - subjects
    jaccard = wilson(right, np.where(subjects > 0, subjects + predicted - right, 0))
    return {
        "auc": auc(positives, negatives),
        "sensitivity": wilson(right, subjects),
        "specificity": wilson(others - (predicted - right), others),
        "f1": Estimates(*(2 * p / (1 + p) for p in (jaccard.value, jaccard.low, jaccard.high))),
    }


def correlations(confusion: FloatArray) -> Mapping[Metric, FloatArray]:
    """The correlation (K, K) between the classes' estimates of each metric.

    Each metric is a ratio of two sums over the cells; a subject in a cell moves such a ratio by
    (numerator − ratio · denominator) / sum of the denominator: its influence.
    """
    counts = confusion + _SMOOTHING
    same = np.eye(len(counts))
    true, called = same[:, :, None], same[:, None, :]  # (class, row, column) of the counts
    influences: dict[Metric, FloatArray] = {
        "sensitivity": _influence(true * called, true, counts),
        "specificity": _influence((1 - true) * (1 - called), 1 - true, counts),
        "f1": _influence(2 * true * called, true + called, counts),
    }
    influences["auc"] = influences["sensitivity"] + influences["specificity"]
    return {metric: _correlation(values, counts) for metric, values in influences.items()}


def macro(estimates: Estimates, correlation: FloatArray) -> Estimates:
    """The mean of the defined classes with MOVER's limits, as arrays of shape ()."""
    defined = ~np.isnan(estimates.value)
    if not defined.any():
        return Estimates(*(np.array(np.nan) for _ in _FIELDS))
    value, rho = estimates.value[defined], correlation[np.ix_(defined, defined)]
    mean = value.mean()
    limits = []
    for sign, limit in ((-1, estimates.low), (1, estimates.high)):
        distance = limit[defined] - value
        limits.append(mean + sign * np.sqrt(max(distance @ rho @ distance, 0.0)) / len(value))
    return Estimates(np.asarray(mean), *map(np.asarray, limits))


def _influence(numerator: FloatArray, denominator: FloatArray, counts: FloatArray) -> FloatArray:
    over, under = ((part * counts).sum(axis=(1, 2), keepdims=True)
                   for part in (numerator, denominator))  # fmt: skip
    values: FloatArray = (numerator - over / under * denominator) / under
    return values


def _correlation(influence: FloatArray, counts: FloatArray) -> FloatArray:
    covariance = np.einsum("kij,lij,ij->kl", influence, influence, counts)
    deviation = np.sqrt(covariance.diagonal())
    correlation: FloatArray = covariance / np.outer(deviation, deviation)
    return correlation
