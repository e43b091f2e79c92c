"""The test for memorisation: false alarms as rarely as it says, and no blindness to copies."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcore.evaluation.memorisation import Memorisation, memorisation

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
