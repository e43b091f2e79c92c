from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedcore.aggregation import mean
from fedcore.params import BLOCK

few = settings(max_examples=40, deadline=None)
values = hnp.arrays(np.float32, (3, 2), elements=st.floats(-1e6, 1e6, width=32))
factors = st.floats(0.01, 100.0)


def combine(updates, weights, scales, like):
    total = mean.start(like)
    for update, weight, scale in zip(updates, weights, scales, strict=True):
        total = mean.add(total, update, weight, scale=scale)
    return mean.divide(total.trained(), total.weights)


@few
@given(st.lists(st.tuples(values, factors, st.floats(0.0, 1.0)), min_size=1, max_size=8))
def test_is_the_weighted_mean(sites):
    arrays, weights, scales = zip(*sites, strict=True)
    result = combine(
        [{"head.w": array} for array in arrays],
        [{"head": weight} for weight in weights],
        scales,
        like={"head.w": arrays[0]},
    )
    scaled = [array.astype(np.float64) * scale for array, scale in zip(arrays, scales, strict=True)]
    expected = np.average(scaled, axis=0, weights=weights)
    assert result["head.w"].dtype == np.float32
    size = np.average(np.abs(scaled), axis=0, weights=weights)
    assert (np.abs(result["head.w"] - expected) <= 1e-7 * size + 1e-30).all()


@few
@given(st.lists(st.tuples(values, factors), min_size=1, max_size=6))
def test_same_order_gives_the_same_bits(sites):
    def once():
        return combine(
            [{"head.w": array} for array, _ in sites],
            [{"head": weight} for _, weight in sites],
            [0.3] * len(sites),
            like={"head.w": sites[0][0]},
        )["head.w"].tobytes()

    assert once() == once()


def test_weighs_each_module_over_the_sites_that_trained_it():
    like = {name: np.zeros(1, np.float32) for name in ("encoder.pet.w", "encoder.ct.w", "head.w")}
    north = {"encoder.pet.w": np.float32([6]), "head.w": np.float32([1])}
    south = {"head.w": np.float32([5])}
    result = combine(
        [north, south],
        [{"encoder.pet": 2.0, "head": 1.0}, {"head": 3.0}],
        [1.0, 1.0],
        like,
    )
    assert result == {"encoder.pet.w": np.float32([6]), "head.w": np.float32([4])}


def test_a_module_of_weight_zero_is_absent():
    like = {"head.w": np.zeros(1, np.float32)}
    total = mean.add(mean.start(like), {"head.w": np.float32([1])}, {"head": 0.0})
    assert mean.divide(total.trained(), total.weights) == {}


def test_sums_in_float64():
    like = {"w": np.zeros(1, np.float32)}
    total = mean.start(like)
    for value in (2.0**25, 1.0, -(2.0**25)):
        total = mean.add(total, {"w": np.float32([value])}, {"w": 1.0})
    assert total.arrays["w"][0] == 1.0  # float32 sums give 0


def test_products_are_float64():
    weight, value = 1 + 2.0**-30, np.float32(1 + 2.0**-20)
    like = {"w": np.zeros(1, np.float32)}
    total = mean.add(mean.start(like), {"w": np.array([value])}, {"w": weight})
    assert total.arrays["w"][0] == float(value) * weight


def test_arrays_larger_than_a_block_and_without_dimensions():
    like = {"w": np.zeros((2, BLOCK), np.float32), "scale": np.zeros((), np.float32)}
    update = {
        "w": np.arange(2 * BLOCK, dtype=np.float32).reshape(2, BLOCK),
        "scale": np.float32(3).reshape(()),
    }
    result = combine([update], [{"w": 2.0, "scale": 1.0}], [1.0], like)
    assert np.array_equal(result["w"], update["w"])
    assert result["scale"].shape == ()
    assert result["scale"] == 3


def test_reads_views_that_are_read_only_and_strided():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    array.flags.writeable = False
    like = {"w": np.zeros((4, 3), np.float32)}
    assert np.array_equal(combine([{"w": array.T}], [{"w": 1.0}], [1.0], like)["w"], array.T)


@pytest.mark.parametrize("weights", [{"head": 1.0}, {"head": 1.0, "tail": 1.0}])
def test_adds_nothing_if_a_name_or_weight_is_unknown(weights):
    total = mean.start({"head.w": np.zeros(1, np.float32)})
    update = {"head.w": np.float32([1]), "tail.w": np.float32([1])}
    with pytest.raises(KeyError):
        mean.add(total, update, weights)
    assert total.arrays["head.w"] == 0
