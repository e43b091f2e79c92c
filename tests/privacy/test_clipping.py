from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedcore.params import BLOCK
from fedcore.privacy import clipping

arrays = hnp.arrays(
    np.float32,
    hnp.array_shapes(max_dims=3, max_side=5),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
updates = st.dictionaries(st.sampled_from(["head.w", "head.b", "encoder.ct.w"]), arrays)


def exact_norm(update):
    return math.sqrt(math.fsum(float(v) ** 2 for a in update.values() for v in a.flat))


@settings(max_examples=50, deadline=None)
@given(updates)
def test_norm_is_accurate_to_float64(update):
    assert clipping.l2_norm(update) == pytest.approx(exact_norm(update), rel=1e-13)


@settings(max_examples=50, deadline=None)
@given(updates, st.floats(1e-6, 1e6))
def test_clipped_norm_is_at_most_clip_norm(update, clip_norm):
    scale = clipping.factor(clipping.l2_norm(update), clip_norm)
    assert 0 <= scale <= 1
    clipped = {name: array.astype(np.float64) * scale for name, array in update.items()}
    assert exact_norm(clipped) <= clip_norm * (1 + 1e-6)
    if exact_norm(update) < clip_norm * (1 - 1e-9):
        assert scale == 1


@settings(max_examples=50, deadline=None)
@given(arrays, st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
def test_norm_is_finite_only_if_every_value_is(array, bad, data):
    assert math.isfinite(clipping.l2_norm({"w": array}))
    array.flat[data.draw(st.integers(0, array.size - 1))] = bad
    assert not math.isfinite(clipping.l2_norm({"w": array}))


def test_norm_over_more_than_a_block():
    update = {"w": np.full((3, BLOCK), 2, np.float32)}
    update["w"][-1, -1] = np.float32(1e10)
    assert clipping.l2_norm(update) == pytest.approx(math.hypot(1e10, 2 * math.sqrt(3 * BLOCK - 1)))


def test_float32_squares_would_overflow():
    assert clipping.l2_norm({"w": np.array([3e38, 3e38], np.float32)}) == pytest.approx(
        math.sqrt(2) * 3e38, rel=1e-6
    )


def test_factor_of_nothing_and_of_no_clipping():
    assert clipping.factor(0.0, 1.0) == 1.0
    assert clipping.factor(5.0, None) == 1.0
    assert clipping.l2_norm({}) == 0.0


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_factor_refuses_what_is_not_finite(norm):
    with pytest.raises(ValueError, match="NaN or an infinity"):
        clipping.factor(norm, None)


def test_the_adapted_norm_comes_to_the_quantile_of_the_norms():
    """From above, from below, and with noise on the count."""
    rng = np.random.default_rng(0)
    norms = rng.lognormal(0.0, 1.0, size=2000)
    for quantile, start in ((0.5, 30.0), (0.9, 0.01), (0.2, 1.0)):
        clip_norm = start
        for _ in range(400):
            drawn = rng.choice(norms, size=20)
            within = (drawn <= clip_norm).sum() + rng.normal(0, 2.0)
            clip_norm = clipping.adapted(
                clip_norm, within, 20, quantile=quantile, learning_rate=0.1
            )
        assert (norms <= clip_norm).mean() == pytest.approx(quantile, abs=0.15)
