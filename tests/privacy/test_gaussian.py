from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fedcore.privacy import gaussian


@pytest.mark.parametrize(
    "normals", [gaussian.os_normals(), gaussian.seeded_normals(3, "run")], ids=["os", "seeded"]
)
def test_normals_are_standard_normal(normals):
    values = normals(200_000)
    assert values.dtype == np.float64
    assert stats.kstest(values, "norm").pvalue > 1e-6
    # var(s²) = 2/(n−1): ten standard errors, so that chance never fails the test
    assert values.var() == pytest.approx(1.0, abs=10 * np.sqrt(2 / 200_000))
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 10 / np.sqrt(200_000)


def test_noise_has_the_stddev_and_mean_zero():
    stddev = gaussian.stddev(noise_multiplier=2.0, clip_norm=3.0, max_weight=0.5)
    assert stddev == 3.0
    sums = {"w": np.full((400, 500), 7.0)}
    noisy = gaussian.add_noise(sums, stddev, gaussian.os_normals())
    noise = noisy["w"] - 7.0
    assert noise.shape == (400, 500)
    assert noise.std() == pytest.approx(3.0, rel=0.02)
    assert abs(noise.mean()) < 10 * 3.0 / np.sqrt(200_000)
    assert (sums["w"] == 7.0).all()


def test_draws_in_name_order_whatever_the_order_of_the_mapping():
    sums = {"b": np.zeros(3), "a": np.zeros((2, 2)), "c": np.zeros(())}
    forward = gaussian.add_noise(sums, 1.0, gaussian.seeded_normals(1))
    backward = gaussian.add_noise(dict(reversed(sums.items())), 1.0, gaussian.seeded_normals(1))
    first = gaussian.seeded_normals(1)(4)
    assert np.array_equal(forward["a"].ravel(), first)
    assert all(np.array_equal(forward[name], backward[name]) for name in sums)
    assert forward["c"].shape == ()


def test_two_os_sources_never_agree():
    assert not np.array_equal(gaussian.os_normals()(100), gaussian.os_normals()(100))


def test_one_os_source_goes_on():
    normals = gaussian.os_normals()
    assert not np.array_equal(normals(100), normals(100))


def test_seeded_streams_differ_by_path():
    draws = [gaussian.seeded_normals(1, *path)(5).tolist() for path in [("r", 0), ("r", 1)]]
    assert draws[0] != draws[1]
    assert draws[0] == gaussian.seeded_normals(1, "r", 0)(5).tolist()


def test_inversion_is_finite_and_symmetric_at_the_ends():
    low = np.array([0, 2, 2**40, 2**63, 2**64 - 2], np.uint64)
    negative, positive = gaussian.to_normals(low), gaussian.to_normals(low | np.uint64(1))
    assert np.isfinite(negative).all()
    assert (negative <= 0).all()
    assert np.array_equal(negative, -positive)
    assert (np.diff(negative) > 0).all()
