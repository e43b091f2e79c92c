"""The sampler against the exact probabilities: it decides without a float, so it must meet them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fedcore.privacy import discrete_gaussian as dg

KEY = bytes(range(32))


def probabilities(s: int) -> tuple[np.ndarray, np.ndarray]:
    """The whole numbers up to 12 s, and how likely each is."""
    values = np.arange(-12 * s, 12 * s + 1)
    weights = np.exp(-(values.astype(float) ** 2) / (2 * s**2))
    return values, weights / weights.sum()


@pytest.mark.parametrize("s", [1, 2, 3, 7, 40])
def test_every_value_is_as_likely_as_it_should_be(s: int) -> None:
    values, wanted = probabilities(s)
    drawn = dg.sample(s, 200_000, KEY)
    counts = np.bincount(drawn + 12 * s, minlength=values.size)
    assert counts.size == values.size, "nothing beyond 12 s"
    often = wanted * drawn.size > 10
    rest = [counts[~often].sum(), wanted[~often].sum() * drawn.size]
    seen, expected = [*counts[often], rest[0]], [*(wanted[often] * drawn.size), rest[1]]
    assert stats.chisquare(seen, expected, sum_check=False).pvalue > 1e-4


@pytest.mark.parametrize("s", [1000, 757_201, 1 << 40])
def test_moments_are_the_gaussians(s: int) -> None:
    n = 200_000
    scaled = dg.sample(s, n, KEY) / s
    assert abs(scaled.mean()) < 6 / np.sqrt(n)
    assert scaled.var() == pytest.approx(1, abs=6 * np.sqrt(2 / n))
    assert stats.kurtosis(scaled) == pytest.approx(0, abs=6 * np.sqrt(24 / n))
    assert stats.kstest(scaled, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(scaled[:-1], scaled[1:])[0, 1]) < 6 / np.sqrt(n)


def test_a_wrong_sampler_would_be_seen() -> None:
    """The yardsticks themselves: a rounded Gaussian of s = 1 is another distribution."""
    rounded = np.rint(np.random.default_rng(0).normal(0, 1, 200_000)).astype(int)
    values, wanted = probabilities(1)
    counts = np.bincount(rounded + 12, minlength=values.size)
    often = wanted * rounded.size > 10
    seen, expected = counts[often], wanted[often] * rounded.size
    assert stats.chisquare(seen, expected, sum_check=False).pvalue < 1e-9


def test_the_same_key_draws_the_same_and_another_does_not() -> None:
    one = dg.sample(1000, 70_000, KEY)
    assert np.array_equal(one, dg.sample(1000, 70_000, KEY))
    other = dg.sample(1000, 70_000, bytes(32))
    assert abs(np.corrcoef(one, other)[0, 1]) < 6 / np.sqrt(one.size)
    assert one[:5].tolist() == [-311, -245, -526, 1234, 1626], "on every machine"


def test_whole_numbers_below_a_limit_are_as_likely_each() -> None:
    """Also below a limit of which 2^64 is no multiple: a quarter of the words is drawn again."""
    limit = 3 << 61
    drawn = dg._Coins(KEY).below(limit, 30_000)
    assert stats.kstest(drawn / limit, "uniform").pvalue > 1e-4
    small = dg._Coins(KEY).below(np.arange(1, 7).repeat(20_000), 120_000)
    for limit, of in enumerate(small.reshape(6, -1), start=1):
        assert stats.chisquare(np.bincount(of, minlength=limit)).pvalue > 1e-4 or limit == 1
        assert of.max() == limit - 1


@pytest.mark.parametrize("stddev", [0, -1, (1 << 40) + 1])
def test_other_parameters_are_refused(stddev: int) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        dg.sample(stddev, 1, KEY)
    assert dg.sample(1, 0, KEY).size == 0
