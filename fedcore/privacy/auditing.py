"""What one run shows of its epsilon: a lower bound by canaries, half of them in it by chance.

Steinke, Nasr and Jagielski 2023 (https://arxiv.org/abs/2305.08846). m canaries are each in the run
or not, by a fair coin; who sees only what was released guesses r of them, and is right v times. An
(epsilon, delta)-DP mechanism lets nobody guess as well as that but with a small probability
(theorem 5.2): if that is below p, the mechanism is not (epsilon, delta)-DP, with confidence 1 − p.

A bound below the claim proves nothing, as the guesser may be poor. One above it proves a fault. And
no number of right guesses among r shows more than about log(r / log(1/p)): of the largest epsilon
that m canaries can show, ``ceiling`` says it.

>>> round(lower_bound(canaries=1000, guesses=1000, correct=1000, delta=0.0), 2)
5.81
>>> round(lower_bound(canaries=1000, guesses=1000, correct=530, delta=0.0), 2)
0.01
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq
from scipy.special import expit

SHARES = (0.95, 0.5, 0.2, 0.1, 0.05, 0.02)
"""Of the canaries, how many to guess: the fewer, the surer. Not quite all, as the coin seldom puts
exactly half of them in. All of these are tried, and paid for."""

_MOST = 100.0


@dataclass(frozen=True)
class Found:
    """The best of the bounds, and the guesses that gave it."""

    epsilon: float
    guesses: int
    correct: int


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """The probability, at most, of so many right guesses of an (epsilon, delta)-DP mechanism.

    With f(v) = P[Binomial(r, 1/(1 + e^−ε)) ≥ v], it is f(v) + 2mδ · max_i (f(v − i) − f(v))/i.
    """
    if not 0 <= correct <= guesses <= canaries:
        raise ValueError(f"{correct} right of {guesses} guesses of {canaries} canaries")
    accuracy = expit(epsilon)
    beta = stats.binom.sf(correct - 1, guesses, accuracy)
    below = np.cumsum(stats.binom.pmf(np.arange(correct)[::-1], guesses, accuracy))
    alpha = np.max(below / np.arange(1, correct + 1), initial=0.0)
    return float(min(beta + 2 * canaries * delta * alpha, 1.0))


def lower_bound(canaries: int, guesses: int, correct: int, delta: float, p: float = 0.05) -> float:
    """The largest epsilon that these guesses rule out, with confidence 1 − ``p``; 0 if none."""

    def above(epsilon: float) -> float:
        return p_value(canaries, guesses, correct, epsilon, delta) - p

    if above(0.0) >= 0:
        return 0.0
    return float(brentq(above, 0.0, _MOST, xtol=1e-6))


def ceiling(canaries: int, delta: float, p: float = 0.05) -> float:
    """The epsilon that is shown if nearly every canary is guessed, and all of them rightly."""
    guesses = 2 * int(max(SHARES) * canaries / 2)
    return lower_bound(canaries, guesses, guesses, delta, p / len(SHARES))


def audit(
    scores: NDArray[Any], included: NDArray[np.bool_], delta: float, p: float = 0.05,
    shares: Sequence[float] = SHARES,
) -> Found:  # fmt: skip
    """Guess that the canaries of the highest ``scores`` are in, of the lowest out: (m,) each.

    As many of either, for each of the ``shares``; each is tested at p over their number, so that
    the best of them holds at ``p`` (Bonferroni).
    """
    order, best = np.argsort(scores, kind="stable"), Found(0.0, 0, 0)
    for share in shares:
        half = max(int(share * scores.size / 2), 1)
        correct = int((~included[order[:half]]).sum() + included[order[-half:]].sum())
        bound = lower_bound(scores.size, 2 * half, correct, delta, p / len(shares))
        if bound > best.epsilon:
            best = Found(bound, 2 * half, correct)
    return best
