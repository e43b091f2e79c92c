from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.params import BLOCK
from fedcore.privacy import fixed_point

KEY = bytes(range(32))


def sum_of(encoded: list[np.ndarray]) -> np.ndarray:
    return np.add.reduce(encoded, dtype=encoded[0].dtype)


@pytest.mark.parametrize(
    ("bits", "summands", "dtype"),
    [(16, 1, "uint16"), (8, 256, "uint16"), (8, 257, "uint32"), (20, 10, "uint32"),
     (20, 4096, "uint32"), (20, 4097, "uint64"), (32, 1, "uint32"), (32, 2, "uint64"),
     (53, 2048, "uint64")],
)  # fmt: skip
def test_the_word_is_the_smallest_that_holds_the_sum(bits, summands, dtype):
    grid = fixed_point.grid(bits, 1.0, summands)
    assert grid.dtype == np.dtype(dtype)
    assert grid.modulus == 2 ** (8 * grid.dtype.itemsize)


@pytest.mark.parametrize(
    ("bits", "summands", "words"),
    [(1, 2, "bits is 1"), (54, 2, "2 to 53"), (53, 2049, "set bits to 52"), (40, 2**25, "39")],
)
def test_a_sum_that_no_word_holds_is_refused_with_the_way_out(bits, summands, words):
    with pytest.raises(ValueError, match=words):
        fixed_point.grid(bits, 1.0, summands)


@settings(deadline=None)
@given(
    bits=st.integers(2, 53), summands=st.integers(1, 70), bound=st.floats(1e-6, 1e6),
    sign=st.sampled_from([-1, 1]), wide=st.sampled_from([np.float32, np.float64]),
    key=st.binary(min_size=32, max_size=32),
)  # fmt: skip
def test_the_largest_summands_do_not_overflow(bits, summands, bound, sign, wide, key):
    grid = fixed_point.grid(bits, bound, summands)
    extreme = np.full(3, sign * bound, wide)
    encoded = fixed_point.encode(extreme, grid, key)
    as_integers = encoded.view(f"int{grid.word}").astype(object)
    assert all(abs(value) <= 2 ** (bits - 1) - 1 for value in as_integers)
    total = sum_of([encoded] * summands)
    assert (
        total.view(f"int{grid.word}").astype(object).tolist() == (as_integers * summands).tolist()
    )
    error = summands * (grid.step + bound * 2.0**-23)
    assert np.abs(fixed_point.decode(total, grid) - sign * bound * summands).max() <= error


@settings(deadline=None)
@given(st.data())
def test_a_sum_is_exact_whatever_the_order_and_near_the_sum_of_the_values(data):
    count = data.draw(st.integers(1, 12))
    grid = fixed_point.grid(data.draw(st.integers(2, 32)), 1.0, count)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    values = rng.uniform(-1, 1, (count, 50))
    encoded = [
        fixed_point.encode(row, grid, bytes([index]) * 32) for index, row in enumerate(values)
    ]
    total = sum_of(encoded)
    assert (total == sum_of(encoded[::-1])).all()
    exact = sum(word.view(f"int{grid.word}").astype(object) for word in encoded)
    decoded = fixed_point.decode(total, grid)
    assert decoded == pytest.approx((exact * grid.step).astype(float), rel=1e-12)
    assert np.abs(decoded - values.sum(axis=0)).max() <= count * grid.step * (1 + 1e-9)


def test_rounding_is_unbiased():
    """The mean of many roundings of 0.3 steps is 0.3 steps, and no step the other way."""
    grid = fixed_point.grid(8, 1.0, 1)
    draws = 400_000
    for part in (0.3, -0.3, 0.999, 0.001):
        values = np.full(draws, (5 + part) * grid.step)
        steps = fixed_point.encode(values, grid, KEY).view(np.int16)
        assert set(steps.tolist()) <= {4, 5, 6}
        up = part % 1
        standard_error = np.sqrt(up * (1 - up) / draws)
        assert abs(steps.mean() - (5 + part)) < 10 * standard_error


def test_the_same_key_gives_the_same_words_and_another_others():
    grid = fixed_point.grid(20, 1.0, 10)
    values = np.linspace(-1, 1, 3 * BLOCK + 17)
    again = fixed_point.encode(values, grid, KEY)
    assert (fixed_point.encode(values, grid, KEY) == again).all()
    assert (fixed_point.encode(values, grid, bytes(32)) != again).any()
    into = np.empty(values.size, grid.dtype)
    assert fixed_point.encode(values, grid, KEY, out=into) is into
    assert (into == again).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1.001, -1.001])
@pytest.mark.parametrize("place", [0, BLOCK, 2 * BLOCK + 4])
def test_what_does_not_fit_is_refused_and_not_clamped(wrong, place):
    values = np.zeros(2 * BLOCK + 5, np.float32)
    values[place] = wrong
    with pytest.raises(ValueError, match="does not fit"):
        fixed_point.encode(values, fixed_point.grid(20, 1.0, 2), KEY)


def test_decode_refuses_words_of_another_size():
    with pytest.raises(ValueError, match="uint32 is wanted"):
        fixed_point.decode(np.zeros(3, np.uint64), fixed_point.grid(20, 1.0, 10))


LIKE = {
    "encoder.mri.conv": np.zeros((3, 4), np.float32),
    "encoder.pet.conv": np.zeros(7, np.float32),
    "head.bias": np.zeros((), np.float32),
    "head.weight": np.zeros((2, 2), np.float32),
}


def update_of(seed: int, *without: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.uniform(-1, 1, array.shape).astype(np.float32)
        for name, array in LIKE.items()
        if not name.startswith(without or ("nothing",))
    }


def test_flattened_updates_add_up_to_weighted_sums_and_weights_by_module():
    grid = fixed_point.grid(30, 1.0, 3)
    full, lacking = update_of(1), update_of(2, "encoder.pet")
    weights = [
        {"encoder.mri": 1.0, "encoder.pet": 0.25, "head": 0.5},
        {"encoder.mri": 0.5, "head": 1.0},
    ]
    words = [
        fixed_point.flatten(update, told, LIKE, grid, bytes([index]) * 32)
        for index, (update, told) in enumerate(zip((full, lacking), weights, strict=True))
    ]
    assert words[0].shape == (fixed_point.length(LIKE),) == (12 + 7 + 1 + 4 + 3,)
    sums, told = fixed_point.unflatten(sum_of(words), LIKE, grid)
    assert told == pytest.approx({"encoder.mri": 1.5, "encoder.pet": 0.25, "head": 1.5}, abs=1e-8)
    assert list(sums) == sorted(LIKE)
    for name, module in [("encoder.mri.conv", "encoder.mri"), ("head.weight", "head")]:
        wanted = weights[0][module] * full[name].astype(float) + weights[1][module] * lacking[name]
        assert sums[name] == pytest.approx(wanted, abs=2 * grid.step)
        assert sums[name].shape == LIKE[name].shape
    assert sums["encoder.pet.conv"] == pytest.approx(0.25 * full["encoder.pet.conv"], abs=grid.step)


def test_a_module_that_nobody_trained_is_left_out():
    grid = fixed_point.grid(20, 1.0, 2)
    update = update_of(1, "encoder.pet")
    words = fixed_point.flatten(update, {"encoder.mri": 1.0, "head": 1.0}, LIKE, grid, KEY)
    sums, weights = fixed_point.unflatten(words, LIKE, grid)
    assert weights == {"encoder.mri": 1.0, "head": 1.0}, "whole weights come out exactly"
    assert set(sums) == {"encoder.mri.conv", "head.bias", "head.weight"}


def test_the_clipping_factor_is_applied_before_rounding():
    grid = fixed_point.grid(20, 0.5, 2)
    update = {"w": np.full(5, 1000.0, np.float32)}
    words = fixed_point.flatten(update, {"w": 0.5}, update, grid, KEY, scale=0.001)
    sums, _ = fixed_point.unflatten(words, update, grid)
    assert sums["w"] == pytest.approx(0.5, abs=grid.step)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"encoder.mri": 1.0, "encoder.pet": 1.0}, "weights for"),
        ({"encoder.mri": 1.0, "encoder.pet": 1.0, "head": 1.5}, "does not fit"),
        ({"encoder.mri": 1.0, "encoder.pet": 1.0, "head": -0.5}, "negative weight"),
        ({"encoder.mri": 1.0, "encoder.pet": 1.0, "head": np.nan}, "does not fit"),
    ],
)
def test_weights_that_could_not_be_summed_are_refused(weights, words):
    with pytest.raises(ValueError, match=words):
        fixed_point.flatten(update_of(1), weights, LIKE, fixed_point.grid(20, 9.0, 2), KEY)


def test_unflatten_refuses_another_length():
    grid = fixed_point.grid(20, 1.0, 2)
    with pytest.raises(ValueError, match="is wanted"):
        fixed_point.unflatten(np.zeros(5, grid.dtype), LIKE, grid)
