"""Noise in shares: every site adds a part, so that nobody sees a sum without noise.

Each site adds discrete Gaussian noise to its vector on the fixed-point grid, before the masks
(Kairouz, Liu and Steinke 2021, https://arxiv.org/abs/2102.06387, the distributed discrete
Gaussian). A share has the variance σ²/t, with σ the noise that the sum needs and t the threshold of
secure aggregation: no sum is opened over fewer sites than t, and one over more has more noise than
it needs, by the factor √(n/t).

**Sensitivity.** The grid rounds each of d values to one of its neighbours, by less than a unit, so
that a vector of L2 norm M units may come to M + √d. That is the bound here, the worst case; Kairouz
et al. round again until a smaller one holds, which gains where a unit is coarse. At 20 bits and
100,000 params it is 0.06 %.

**Accounting.** A sum of t discrete Gaussians of parameter s ≥ 4 is a discrete Gaussian of σ = s√t,
but for a factor within 10⁻⁶⁷ of 1 a value (their τ, theorem 1, which falls as exp(−π²s²)). And that
is a continuous Gaussian of σ rounded to whole numbers, which is as private as the continuous one,
but for a factor whose logarithm is (y²/σ² − 1)/24σ² of each value y, up to terms in σ⁻⁴. Over d
values that is, except with probability 2e⁻⁶⁰ (Laurent and Massart 2000, lemma 1), at most
(2√(60 d) + 120)/24σ². So a release counts as one of the Gaussian mechanism, and the epsilon is
larger by at most twice that: ``excess``, which is asked to be below ``NEGLIGIBLE``.

>>> unit = sensitivity(largest=(1 << 19) - 1, dimension=100_000)
>>> share = stddev(2.5, unit, threshold=3)
>>> unit, share, excess(share, 3, 100_000) < 1e-9
(524605, 757203, True)
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.privacy import discrete_gaussian

NEGLIGIBLE = 1e-5
"""Of epsilon, in one release."""

_LEAST = 4
"""Below this parameter a sum of discrete Gaussians is not close to a discrete Gaussian."""

_FLOAT32 = 22
"""Clipping in float32 may leave a norm above its bound by 2^-22 of it."""


def sensitivity(largest: int, dimension: int) -> int:
    """The L2 norm, in units of the grid, that one site's rounded vector of so many values can have.

    ``largest``: units that the clip norm has.
    """
    rounding = math.isqrt(max(dimension - 1, 0)) + 1  # √d, rounded up
    return largest + (largest >> _FLOAT32) + 1 + rounding


def stddev(noise_multiplier: float, sensitivity: int, threshold: int) -> int:
    """The parameter of a share: the least whole s with s²·t ≥ (noise_multiplier · sensitivity)²."""
    wanted = Fraction(noise_multiplier) ** 2 * sensitivity**2 / threshold
    return max(math.isqrt(math.ceil(wanted) - 1) + 1, _LEAST)


def effective(noise_multiplier: float, threshold: int, survivors: int, colluding: int = 0) -> float:
    """The noise_multiplier of a sum over so many sites, of whose shares the colluding ones know.

    >>> effective(2.0, threshold=4, survivors=4), effective(2.0, 3, survivors=4, colluding=1)
    (2.0, 2.0)
    """
    return noise_multiplier * math.sqrt((survivors - colluding) / threshold)


def excess(stddev: int, threshold: int, dimension: int) -> float:
    """By how much the epsilon of a release may lie above that of the Gaussian mechanism."""
    return (2 * math.sqrt(60 * dimension) + 120) / (12 * stddev**2 * threshold)


def add(words: NDArray[np.unsignedinteger[Any]], stddev: int, key: bytes) -> None:
    """Add a share to the words, in place, modulo their size: the same for the same 32-byte key."""
    noise = discrete_gaussian.sample(stddev, words.size, key)
    np.add(words, noise.view(np.uint64).astype(words.dtype), out=words)
