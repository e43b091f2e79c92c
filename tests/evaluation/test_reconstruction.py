"""Errors of reconstruction add up over sites, and a few subjects' are not told."""

import numpy as np
import pytest

from fedcore.errors import DataError, UpdateRejected
from fedcore.evaluation.metrics import merge
from fedcore.evaluation.reconstruction import KEY, MOST, UNITS, collect, figures, layout

NAMES = ["ct", "pet"]


def test_merged_sites_are_as_pooled_subjects() -> None:
    errors = np.random.default_rng(0).gamma(2.0, 0.2, 30)
    sites = [collect({"pet": part}, NAMES, min_cell=5) for part in (errors[:11], errors[11:])]
    merged = merge(sites)
    np.testing.assert_array_equal(merged[KEY], collect({"pet": errors}, NAMES, min_cell=5)[KEY])
    assert {name: array.shape for name, array in merged.items()} == layout(NAMES)
    found = figures(merged, NAMES)
    assert found["ct"] == {"num_examples": 0, "value": None, "low": None, "high": None}
    half = 1.959964 * errors.std(ddof=1) / len(errors) ** 0.5
    assert found["pet"]["num_examples"] == 30
    assert found["pet"]["value"] == pytest.approx(errors.mean(), abs=1e-5)
    assert found["pet"]["low"] == pytest.approx(errors.mean() - half, abs=1e-4)
    assert found["pet"]["high"] == pytest.approx(errors.mean() + half, abs=1e-4)


def test_of_few_subjects_nothing_is_told() -> None:
    errors = {"ct": np.full(4, 0.5), "pet": np.full(5, 0.5)}
    assert collect(errors, NAMES, min_cell=5)[KEY].tolist() == [
        [0, 0, 0], [5, 2.5 * UNITS, 1.25 * UNITS],
    ]  # fmt: skip


def test_no_error_counts_for_more_than_the_largest() -> None:
    found = figures(collect({"ct": np.array([np.inf, 1e9])}, NAMES, min_cell=1), NAMES)
    assert found["ct"]["value"] == MOST


def test_what_is_not_a_number_is_no_count() -> None:
    with pytest.raises(DataError, match="did training diverge"):
        collect({"pet": np.array([0.1, np.nan])}, NAMES, min_cell=1)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((3, 3)), "has shape"),
        (np.array([[0, 0, 0], [1, 0.5, 0]]), "whole numbers"),
        (np.array([[0, 0, 0], [1, 17 * UNITS, 0]]), "not of these subjects"),
    ],
)
def test_what_nobody_counted_is_rejected(array: np.ndarray, said: str) -> None:
    with pytest.raises(UpdateRejected, match=said):
        figures({KEY: array}, NAMES)
