"""The test for memorisation: false alarms as rarely as it says, and no blindness to copies."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcore.errors import DataError, UpdateRejected
from fedcore.evaluation.memorisation import (
    KEY,
    Memorisation,
    collect,
    figures,
    layout,
    memorisation,
)
from fedcore.evaluation.metrics import merge

Points = NDArray[np.float64]


def judged(synthetic: Points, train: Points, held_out: Points) -> Memorisation:
    def nearest(some: Points) -> Points:
        found: Points = np.linalg.norm(some[:, None] - synthetic[None], axis=2).min(axis=1)
        return found

    found = memorisation(nearest(train), nearest(held_out), draws=400)
    assert found.low < 0.5 < found.high
    return found


def people(rng: np.random.Generator, size: int) -> Points:
    return rng.normal(size=(size, 12))


def test_new_subjects_pass_and_the_alarm_is_false_as_rarely_as_it_says() -> None:
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found.append(judged(people(rng, 50), people(rng, 40), people(rng, 40)))
    assert np.mean([one.closeness for one in found]) == pytest.approx(0.5, abs=0.03)
    assert sum(one.found for one in found) <= 8  # 3 are expected; 9 or more in one of 250


@pytest.mark.parametrize("sizes", [(40, 40), (60, 15), (15, 60)])
def test_copies_with_a_little_noise_fail_whatever_the_sizes(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    train, held_out = (people(rng, size) for size in sizes)
    copies = np.tile(train, (3, 1)) + 0.3 * rng.normal(size=(3 * len(train), 12))
    found = judged(copies, train, held_out)
    assert found.found
    assert found.closeness > 0.95


def test_copies_of_a_third_of_them_among_as_many_new_ones_fail() -> None:
    rng = np.random.default_rng(2)
    train, held_out = people(rng, 60), people(rng, 60)
    synthetic = np.concatenate([people(rng, 20), train[:20] + 0.1 * rng.normal(size=(20, 12))])
    assert judged(synthetic, train, held_out).found


def test_a_hundred_copies_of_one_subject_are_one_piece_of_evidence() -> None:
    rng = np.random.default_rng(3)
    train, held_out = people(rng, 30), people(rng, 30)
    once = judged(train[:1], train, held_out)
    again = judged(np.repeat(train[:1], 100, axis=0), train, held_out)
    assert once == again


def test_ties_say_nothing() -> None:
    found = memorisation(np.ones(3), np.ones(6))
    assert (found.closeness, found.p_value) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("train", "held_out", "said"),
    [([], [1.0], "both needed"), ([1.0], [], "both needed"), ([1.0], [np.nan], "not a number")],
)
def test_what_cannot_be_judged_is_refused(
    train: list[float], held_out: list[float], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        memorisation(np.array(train), np.array(held_out))


def test_sites_that_count_say_what_pooled_distances_do() -> None:
    rng = np.random.default_rng(4)
    train, held_out = rng.gamma(20, 0.04, 120), rng.gamma(20, 0.05, 60)
    sites = [collect(train[i::3], held_out[i::3], min_cell=5) for i in range(3)]
    merged = merge(sites)
    assert {name: array.shape for name, array in merged.items()} == layout()
    np.testing.assert_array_equal(merged[KEY], collect(train, held_out, min_cell=5)[KEY])
    found = figures(merged)
    assert (found["trained_on"], found["held_out"]) == (120, 60)
    assert found["value"] == pytest.approx(memorisation(train, held_out).closeness, abs=0.01)
    assert 0.5 < found["low"] < found["value"] < found["high"]


def test_of_few_subjects_trained_on_or_held_out_nothing_is_told() -> None:
    assert not collect(np.ones(9), np.ones(4), min_cell=5)[KEY].any()
    assert not collect(np.ones(4), np.ones(9), min_cell=5)[KEY].any()
    nothing = figures(collect([], [], min_cell=5))
    assert (nothing["value"], nothing["trained_on"]) == (None, 0)


def test_a_copy_to_the_voxel_is_counted() -> None:
    assert figures(collect([0.0], [np.inf], min_cell=1))["value"] == 1.0


def test_what_is_no_distance_and_no_count_is_refused() -> None:
    with pytest.raises(DataError, match="did training diverge"):
        collect([np.nan], [1.0], min_cell=1)
    for wrong, said in ((np.zeros((2, 3)), "has shape"), (np.full((2, 512), 0.5), "whole numbers")):
        with pytest.raises(UpdateRejected, match=said):
            figures({KEY: wrong})
