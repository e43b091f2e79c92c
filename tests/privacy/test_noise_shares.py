"""Shares of noise: enough over every set of survivors, and counted for what they are."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.errors import ConfigError
from fedcore.params import modules
from fedcore.privacy import accounting, clipping, fixed_point, noise_shares
from fedcore.privacy.division import Division, division

SITES = 5
THRESHOLD = 3
LIKE = {"body.w": np.zeros((100, 60), np.float32), "head.w": np.zeros(40, np.float32)}


def shared(**fields: object) -> Division:
    wanted: dict[str, object] = {
        "mode": "masks", "bound": 1.0, "sites": SITES, "bits": 20, "noise_multiplier": 1.5,
        "threshold": THRESHOLD, **fields,
    }  # fmt: skip
    return division(LIKE, **wanted)  # type: ignore[arg-type]


def update(site: int) -> dict[str, np.ndarray]:
    """Of norm 1; site 0 trained the head alone."""
    rng = np.random.default_rng(site)
    made = {name: rng.normal(size=array.shape) for name, array in LIKE.items()}
    if site == 0:
        del made["body.w"]
    norm = math.sqrt(sum(float((array**2).sum()) for array in made.values()))
    return {name: (array / norm).astype(np.float32) for name, array in made.items()}


def words(divided: Division, site: int, noise: bytes | None) -> np.ndarray:
    one = update(site)
    weights = dict.fromkeys(modules(one), 1.0)
    parts = divided.divide(one, weights, LIKE, bytes([site] * 32), noise)
    assert parts.masked is not None
    return parts.masked


def test_over_any_survivors_the_noise_has_the_variance_that_is_claimed() -> None:
    divided, plain = shared(), shared(noise_multiplier=0.0)
    grid = divided.grid
    assert grid is not None
    noisy = [words(divided, site, bytes([100 + site] * 32)) for site in range(SITES)]
    clean = [words(plain, site, None) for site in range(SITES)]
    wanted = 1.5 * noise_shares.sensitivity(grid.largest, 6040)
    assert wanted <= grid.noise * math.sqrt(THRESHOLD) < wanted + THRESHOLD
    for size in range(THRESHOLD, SITES + 1):
        for survivors in combinations(range(SITES), size):
            total = np.add.reduce([noisy[site] for site in survivors], dtype=grid.dtype)
            bare = np.add.reduce([clean[site] for site in survivors], dtype=grid.dtype)
            added = (total - bare).view(f"int{grid.word}").astype(float)
            params, weights = added[:-2], added[-2:]
            assert not weights.any(), "the sum of the weights is exact"
            claimed = noise_shares.effective(1.5, THRESHOLD, size) * wanted / 1.5
            assert params.std() == pytest.approx(claimed, rel=6 / math.sqrt(2 * params.size))
            assert params.std() > wanted * (1 - 6 / math.sqrt(2 * params.size))
            assert abs(params.mean()) < 6 * claimed / math.sqrt(params.size)


def test_a_module_that_nobody_trained_shows_neither_sum_nor_noise() -> None:
    divided = shared()
    alone = words(divided, 0, bytes(32))
    sums, weights = fixed_point.unflatten(alone, LIKE, divided.grid)  # type: ignore[arg-type]
    assert set(sums) == {"head.w"}
    assert weights == {"head": 1.0}
    assert (alone[:6000] != 0).mean() > 0.99, "though its values have noise as well"


def test_the_words_have_room_for_the_noise() -> None:
    assert shared(bits=29, noise_multiplier=0.0).grid.dtype == np.uint32
    assert shared(bits=29, noise_multiplier=1.5).grid.dtype == np.uint64
    for summands in (2, 5, 300):
        grid = fixed_point.grid(16, 1.0, summands, noise=100_000)
        most = summands * grid.largest + 12 * grid.noise * math.sqrt(summands)
        assert most < grid.modulus / 2


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 400), st.floats(0.01, 100), st.integers(8, 24), st.integers(0, 2**32 - 1),
    st.booleans(),
)  # fmt: skip
def test_no_rounded_vector_is_longer_than_the_sensitivity(
    dimension: int, scale: float, bits: int, seed: int, spiky: bool
) -> None:
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=dimension) * (rng.random(dimension) < 0.05 if spiky else 1)
    vector = {"w": (scale * vector).astype(np.float32)}
    factor = clipping.factor(clipping.l2_norm(vector), 1.0)
    clipped = vector["w"] * factor if factor < 1 else vector["w"]
    grid = fixed_point.grid(bits, 1.0, 4)
    integers = fixed_point.encode(clipped, grid, seed.to_bytes(32, "big"))
    integers = integers.view(f"int{grid.word}").astype(object)
    squared = sum(int(value) ** 2 for value in integers)
    assert squared <= noise_shares.sensitivity(grid.largest, dimension) ** 2


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-3, 1e3), st.integers(1, 1 << 31), st.integers(2, 100))
def test_a_share_is_the_least_that_is_enough(
    noise_multiplier: float, sensitivity: int, threshold: int
) -> None:
    share = noise_shares.stddev(noise_multiplier, sensitivity, threshold)
    wanted = noise_multiplier * sensitivity
    assert math.sqrt(threshold) * share >= wanted * (1 - 1e-12)
    assert share == 4 or math.sqrt(threshold) * (share - 1) < wanted * (1 + 1e-12)


def exact_delta(shares: int, s: int, shift: int, epsilon: float) -> float:
    """δ(ε) of a sum of discrete Gaussians, of a value that moves by ``shift``, by convolution."""
    values = np.arange(-14 * s, 14 * s + 1)
    one = np.exp(-(values.astype(float) ** 2) / (2 * s**2))
    total = np.ones(1)
    for _ in range(shares):
        total = np.convolve(total, one / one.sum())
    padded = np.pad(total, shift)
    moved = np.roll(padded, shift)
    return float(np.maximum(padded - math.exp(epsilon) * moved, 0).sum())


@pytest.mark.parametrize(("shares", "s", "shift"), [(1, 40, 40), (3, 30, 60), (5, 20, 25)])
def test_it_is_as_private_as_the_gaussian_up_to_the_excess(shares: int, s: int, shift: int) -> None:
    """Counted exactly, in one dimension: the epsilon of the Gaussian, and ``excess`` on top."""
    multiplier = s * math.sqrt(shares) / shift
    above = noise_shares.excess(s, shares, 1)
    for delta in (1e-3, 1e-5, 1e-8):
        claimed = accounting.epsilon([accounting.GaussianEvent(multiplier)], delta)
        # One unit more or less of what is whole numbers moves the loss by this much:
        unit = shift / (s**2 * shares)
        assert exact_delta(shares, s, shift, claimed + above) <= delta
        assert exact_delta(shares, s, shift, claimed - above - unit) > 0.5 * delta


def test_a_grid_too_coarse_to_count_so_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"8 bits are too coarse for noise_by: sites.*set bits"):
        shared(bits=8)


def test_without_a_key_there_is_no_update_without_noise() -> None:
    with pytest.raises(ValueError, match="share of the noise has no key"):
        words(shared(), 1, None)


def test_whom_colluding_sites_leave_how_much() -> None:
    assert noise_shares.effective(2.0, 3, survivors=5, colluding=2) == 2.0
    assert noise_shares.effective(2.0, 4, survivors=4, colluding=3) == 1.0
