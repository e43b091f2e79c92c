"""The bound of an audit in one run: its formula, what it finds, and how seldom it is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fedcore.privacy import auditing
from fedcore.privacy.accounting import calibrate


def literally(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Theorem 5.2 of Steinke et al. 2023, term by term."""
    q = 1 / (1 + math.exp(-epsilon))

    def tail(least: int) -> float:
        return sum(math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(max(least, 0), r + 1))

    alpha = max(((tail(v - i) - tail(v)) / i for i in range(1, m + 1)), default=0.0)
    return min(tail(v) + 2 * m * delta * alpha, 1.0)


@pytest.mark.parametrize(
    ("m", "r", "v"), [(10, 10, 10), (40, 20, 15), (60, 60, 45), (30, 7, 0), (30, 1, 1)]
)
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
def test_it_is_the_theorems_formula(m: int, r: int, v: int, epsilon: float, delta: float) -> None:
    found = auditing.p_value(m, r, v, epsilon, delta)
    assert found == pytest.approx(literally(m, r, v, epsilon, delta), rel=1e-9)


@pytest.mark.parametrize("guesses", [10, 100, 1000])
def test_all_right_shows_what_is_known_in_closed_form(guesses: int) -> None:
    """(1/(1 + e^−ε))^r = p."""
    accuracy = 0.05 ** (1 / guesses)
    wanted = math.log(accuracy / (1 - accuracy))
    found = auditing.lower_bound(2000, guesses, guesses, delta=0.0)
    assert found == pytest.approx(wanted, abs=1e-5)
    assert auditing.lower_bound(2000, guesses, guesses, delta=1e-4) < found
    assert auditing.lower_bound(2000, guesses, guesses, delta=0.0, p=0.01) < found


def test_guesses_no_better_than_chance_show_nothing() -> None:
    assert auditing.lower_bound(1000, 1000, 500, delta=1e-5) == 0.0
    assert auditing.lower_bound(1000, 1000, 510, delta=1e-5) == 0.0
    assert auditing.lower_bound(1000, 1000, 560, delta=1e-5) > 0.05
    with pytest.raises(ValueError, match="11 right of 10 guesses"):
        auditing.p_value(20, 10, 11, 1.0, 0.0)


def test_of_randomised_response_it_is_too_high_no_more_often_than_it_says() -> None:
    """That mechanism makes the theorem tight: the bound is above its epsilon in 5 % of the runs."""
    rng, epsilon, m = np.random.default_rng(0), 1.0, 500
    right = rng.binomial(m, 1 / (1 + math.exp(-epsilon)), size=400)
    bounds = [auditing.lower_bound(m, m, int(v), delta=0.0) for v in right]
    too_high = int((np.array(bounds) > epsilon).sum())
    assert stats.binomtest(too_high, len(bounds), 0.05).pvalue > 1e-3
    assert np.median(bounds) == pytest.approx(epsilon, abs=0.25), "and it is not far below"


@pytest.mark.parametrize("claim", [1.0, 4.0])
def test_of_the_gaussian_mechanism_it_is_below_the_claim_and_above_zero(claim: float) -> None:
    noise, rng = calibrate(claim, 1e-5, count=1), np.random.default_rng(1)
    included = rng.random(2000) < 0.5
    found = auditing.audit(included + noise * rng.normal(size=2000), included, 1e-5)
    assert 0.05 * claim < found.epsilon < claim
    assert found.correct > found.guesses / 2
    bare = auditing.audit(included + 1e-3 * rng.normal(size=2000), included, 1e-5)
    assert claim < bare.epsilon <= auditing.ceiling(2000, 1e-5)
    backwards = auditing.audit(-1.0 * included, included, 1e-5)
    assert backwards.epsilon == 0.0
