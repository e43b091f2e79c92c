import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fedcore.data.intensities import LANDMARKS, foreground, normalise, nyul, percentiles, standard
from fedcore.errors import DataError

STANDARD = (0.0, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 1.0)


def image(seed: int = 0) -> np.ndarray:
    """Air, and a skewed foreground."""
    rng = np.random.default_rng(seed)
    found = rng.normal(2, 0.5, (20, 22, 18)).astype(np.float32)
    found[4:16, 4:18, 3:15] = 100 + rng.gamma(2.0, 40.0, (12, 14, 12)).astype(np.float32)
    return found


MASK = np.zeros((20, 22, 18), bool)
MASK[6:14, 6:14, 5:12] = True


@pytest.mark.parametrize("landmarks", [None, STANDARD])
@pytest.mark.parametrize("mask", [None, MASK])
def test_a_scanners_gain_and_offset_do_not_matter(landmarks, mask):
    one = normalise(image(), "mr", landmarks=landmarks, mask=mask)
    other = normalise(3.7 * image() + 50, "mr", landmarks=landmarks, mask=mask)
    assert_allclose(one, other, atol=2e-4)


def test_a_z_score_is_that_of_the_mask():
    found = normalise(image(), "mr", mask=MASK)
    assert abs(found[MASK].mean()) < 1e-3
    assert abs(found[MASK].std() - 1) < 1e-3
    assert set(found[~MASK]) == {found[MASK].min()}, "outside says nothing"


def test_percentiles_land_on_the_standard_and_order_stays():
    found = normalise(image(), "mr", landmarks=STANDARD)
    inside = np.sort(found[image() > 50])
    assert_allclose(percentiles(inside, LANDMARKS), STANDARD, atol=0.02)
    order = np.argsort(image(), axis=None)
    assert (np.diff(found.ravel()[order]) >= 0).all()


def test_histograms_of_two_scanners_become_alike():
    """A gamma curve is what z-scores cannot undo."""
    curved = (image(1) / image(1).max()) ** 0.6
    plain = [np.sort(normalise(i, "mr")[image() > 50]) for i in (image(0), curved)]
    mapped = [
        np.sort(normalise(i, "mr", landmarks=STANDARD)[image() > 50]) for i in (image(0), curved)
    ]
    apart = [np.abs(a - b).mean() / a.std() for a, b in (plain, mapped)]
    assert apart[1] < apart[0] / 3


def test_percentiles_that_coincide_are_one_point():
    flat = image()
    flat[4:12, 4:18, 3:15] = 150.0
    found = nyul(flat, foreground(flat), STANDARD)
    assert np.isfinite(found).all()
    assert len({float(v) for v in found[4:12, 4:18, 3:15].ravel()}) == 1
    with pytest.raises(DataError, match="hardly any contrast"):
        nyul(flat, np.full(9, 150, np.float32), STANDARD)


def test_landmarks_are_learnt_on_a_scale_of_their_own():
    learnt = standard(foreground(gain * image(seed)) for seed, gain in enumerate((1, 20, 0.1)))
    assert learnt[0] == 0
    assert learnt[-1] == 1
    assert list(learnt) == sorted(learnt)
    assert_allclose(learnt, standard([foreground(image())]), atol=0.05)
    with pytest.raises(DataError, match="no image"):
        standard([np.zeros(0, np.float32)])


def test_windows_clip_and_say_nothing_outside_the_mask():
    suv = np.linspace(0, 30, 1000, dtype=np.float32).reshape(10, 10, 10) ** 2 / 60
    found = normalise(suv, "pet", (0, 12))
    assert_array_equal(found[suv >= 12], 1)
    inside = suv < 5
    assert_array_equal(normalise(suv, "pet", (0, 12), mask=inside)[~inside], 0)
    hu = np.linspace(-1000, 1500, 1000, dtype=np.float32).reshape(10, 10, 10)
    masked = normalise(hu, "ct", (-1000, 1500), mask=hu > 0)
    assert_array_equal(masked[hu <= 0], 0.5)


def test_an_empty_mask_is_no_foreground():
    with pytest.raises(DataError, match="no foreground"):
        normalise(image(), "mr", mask=np.zeros_like(MASK))
