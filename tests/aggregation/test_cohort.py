from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.aggregation import cohort

sites = st.lists(st.text("abcdef", min_size=1, max_size=4), unique=True, max_size=10)


@settings(max_examples=50, deadline=None)
@given(sites, st.integers(1, 12) | st.none(), st.integers(0, 2**32), st.integers(0, 100))
def test_a_sorted_subset_whatever_the_order(population, size, seed, round_num):
    chosen = cohort.sample(population, size, seed, round_num)
    assert list(chosen) == sorted(set(chosen))
    assert set(chosen) <= set(population)
    assert len(chosen) == min(len(population), len(population) if size is None else size)
    assert chosen == cohort.sample(population[::-1], size, seed, round_num)


def test_uniform_over_rounds_and_changing():
    population = [f"site-{index}" for index in range(5)]
    rounds = [cohort.sample(population, 2, seed=7, round_num=n) for n in range(2000)]
    counts = Counter(rounds)
    assert len(counts) == 10  # every pair
    expected = 200
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_squared < 27.9  # 99.9 % point at 9 degrees of freedom; the seed is fixed


def test_depends_on_the_seed():
    population = [f"site-{index}" for index in range(20)]
    assert cohort.sample(population, 10, 1, 0) != cohort.sample(population, 10, 2, 0)
