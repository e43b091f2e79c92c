from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.aggregation import mean, robust
from fedcore.aggregation.robust import Contribution, aggregate
from fedcore.params import BLOCK

RULES = {
    "median": robust.median(),
    "trimmed number": robust.trimmed_mean(2),
    "trimmed share": robust.trimmed_mean(0.3),
    "krum": robust.krum(1),
    "multi_krum": robust.multi_krum(1),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def held(rows, *, scale=1.0, module="head"):
    """A site a row, named in the order of the rows."""
    return {
        f"site-{index:02d}": Contribution(
            {f"{module}.w": np.asarray(row, np.float32)}, {module: 1.0}, scale
        )
        for index, row in enumerate(rows)
    }


def center(rule, sites):
    sums, _ = aggregate(rule, sites)
    return mean.divide(sums.trained(), sums.weights)


def values(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.mark.parametrize("n", [3, 4, 7, 8])
def test_median_is_numpys(n):
    rows = values(n, 50)
    assert np.array_equal(
        center(robust.median(), held(rows))["head.w"],
        np.median(rows.astype(np.float64), axis=0).astype(np.float32),
    )


@pytest.mark.parametrize(("trim", "n", "cut"), [
    (1, 3, 1), (2, 5, 2), (2, 9, 2), (0.1, 30, 3), (0.29, 100, 29), (0.2, 3, 1), (0.2, 6, 2),
    (0.49, 4, 1),
])  # fmt: skip
def test_trimmed_mean_is_the_mean_of_what_is_left(trim, n, cut):
    rows = values(n, 20)
    left = np.sort(rows.astype(np.float64), axis=0)[cut : n - cut]
    result = center(robust.trimmed_mean(trim), held(rows))["head.w"]
    np.testing.assert_allclose(result, left.mean(axis=0), rtol=1e-6)


def krum_by_the_book(rows, f):
    """Blanchard et al. 2017, Section 4, one score after the other."""
    scores = []
    for i, row in enumerate(rows):
        distances = sorted(((row - other) ** 2).sum() for j, other in enumerate(rows) if i != j)
        scores.append(sum(distances[: len(rows) - f - 2]))
    return np.argsort(scores, kind="stable")


@pytest.mark.parametrize(("n", "f"), [(5, 1), (8, 2), (9, 3), (12, 1)])
def test_krum_is_blanchards(n, f):
    rows = values(n, 30, seed=n)
    order = krum_by_the_book(rows.astype(np.float64), f)
    assert np.array_equal(center(robust.krum(f), held(rows))["head.w"], rows[order[0]])
    sums, counted = aggregate(robust.multi_krum(f), held(rows))
    best = sorted(order[: n - f - 2])
    assert sums.weights["head"] == n - f - 2
    np.testing.assert_allclose(sums.arrays["head.w"], rows[best].sum(axis=0, dtype=np.float64))
    assert [site for site, by in counted.items() if by["head"]] == [f"site-{i:02d}" for i in best]


def test_of_equal_scores_the_first_site_is_chosen():
    _, counted = aggregate(robust.krum(1), held(np.ones((5, 3))))
    assert [by["head"] for by in counted.values()] == [1, 0, 0, 0, 0]


def test_krum_measures_over_the_whole_module():
    """A liar in one parameter is left out of the module's other parameters too."""
    rng = np.random.default_rng(0)
    sites = {
        f"s{i}": Contribution(
            {"head.a": rng.normal(size=4).astype(np.float32),
             "head.b": rng.normal(size=4).astype(np.float32) + (100 if i == 2 else 0)},
            {"head": 1.0},
        )
        for i in range(6)
    }  # fmt: skip
    _, counted = aggregate(robust.multi_krum(1), sites)
    assert counted["s2"]["head"] == 0


@every_rule
def test_clipping_comes_before_the_rule(rule):
    rows = values(7, 40)
    assert np.array_equal(
        center(rule, held(rows, scale=0.25))["head.w"],
        center(rule, held(rows * np.float32(0.25)))["head.w"],
    )


@every_rule
def test_each_module_over_the_sites_that_trained_it(rule):
    """Two scanners: what one site lacks is decided among the others, as if it were not there."""
    rows, pet = values(8, 10), values(8, 6, seed=1)
    both = {
        site: Contribution(
            {**one.update, **({} if index == 3 else {"encoder.pet.w": pet[index]})},
            {**one.weights, **({} if index == 3 else {"encoder.pet": 1.0})},
        )
        for index, (site, one) in enumerate(held(rows).items())
    }
    result = center(rule, both)
    assert np.array_equal(result["head.w"], center(rule, held(rows))["head.w"])
    alone = center(rule, held(np.delete(pet, 3, axis=0), module="encoder"))["encoder.w"]
    assert np.array_equal(result["encoder.pet.w"], alone)


@every_rule
def test_a_module_of_too_few_sites_stays_as_it_is(rule):
    sites = held(values(rule.fewest, 3))
    last = f"site-{rule.fewest - 1:02d}"
    assert "head.w" in center(rule, sites)
    silent = {**sites, last: Contribution(sites[last].update, {"head": 0.0})}
    for few in (silent, {site: one for site, one in sites.items() if site != last}, {}):
        sums, counted = aggregate(rule, few)
        assert sums.trained() == {}
        assert all(by == {"head": 0.0} for by in counted.values())


@every_rule
def test_a_weight_counts_no_more_than_another(rule):
    sites = held(values(7, 10))
    heavy = {**sites, "site-00": Contribution(sites["site-00"].update, {"head": 1e9})}
    assert np.array_equal(center(rule, heavy)["head.w"], center(rule, sites)["head.w"])


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(7)), st.sampled_from(sorted(RULES)))
def test_the_coordinates_do_not_depend_on_the_order_of_the_sites(order, name):
    """The caller fixes the order; of Krum's sum the last bit may depend on it, of the rest none."""
    rows = values(7, 10)
    rows[:, 0] = [0.0, -0.0, 0.0, -0.0, 1, -1, 0.0]
    there, here = (center(RULES[name], held(r))["head.w"] for r in (rows, rows[list(order)]))
    assert there.tobytes() == here.tobytes()


@every_rule
def test_arrays_larger_than_a_block_and_without_dimensions(rule):
    rows, n = values(7, 2 * BLOCK + 3), 7
    sites = {
        f"s{i}": Contribution(
            {"w": rows[i].reshape(1, -1), "scale": np.float32(i).reshape(())},
            {"w": 1.0, "scale": 1.0},
        )
        for i in range(n)
    }
    result = center(rule, sites)
    assert result["w"].shape == (1, 2 * BLOCK + 3)
    assert np.array_equal(result["w"][0], center(rule, held(rows))["head.w"])
    assert result["scale"].shape == ()
    empty = center(rule, held(np.zeros((7, 0))))
    assert empty["head.w"].shape == (0,)


@every_rule
def test_beside_the_updates_there_is_one_sum_and_a_few_blocks(rule):
    n, d = 7, 8 * BLOCK
    sites = held(values(n, d))
    tracemalloc.start()
    aggregate(rule, sites)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * d + 3 * n * 8 * BLOCK + 100_000


@pytest.mark.parametrize("make", [
    lambda: robust.trimmed_mean(0), lambda: robust.trimmed_mean(0.5),
    lambda: robust.trimmed_mean(0.0), lambda: robust.krum(0), lambda: robust.multi_krum(-1),
])  # fmt: skip
def test_parameters_that_leave_nobody_out(make):
    with pytest.raises(ValueError, match="is"):
        make()


@pytest.mark.parametrize("n", range(3, 9))
def test_moved_by_fewer_than_half_only_within_the_honest_values(n):
    """The breakdown point of the median, exactly: (n - 1) // 2 liars cannot leave the honest range,
    and n // 2 + 1 of them can."""
    median = robust.median()
    for liars, side in itertools.product(range(n), (-1e30, 1e30)):
        rows = np.concatenate([values(n - liars, 5), np.full((liars, 5), side)])
        result = center(median, held(rows))["head.w"]
        honest = rows[: n - liars]
        inside = (result >= honest.min(axis=0)) & (result <= honest.max(axis=0))
        assert inside.all() == (liars <= (n - 1) // 2)
