import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, ornt_transform
from nibabel.processing import resample_from_to
from scipy import ndimage
from scipy.spatial.transform import Rotation

from fedcore.data import nifti, preprocess
from fedcore.data.intensities import normalise
from fedcore.data.preprocess import (
    Grid,
    centred_grid,
    covering_grid,
    resample,
    resample_mask,
    within,
)
from fedcore.errors import DataError

RNG = np.random.default_rng(1)


def smooth(shape: tuple[int, ...], sigma: float = 2.0) -> Any:
    image = ndimage.gaussian_filter(RNG.normal(size=shape), sigma)
    return (image / image.std()).astype(np.float32)


def blob(shape: tuple[int, ...], affine: Any, place_mm: Any, sigma_mm: float) -> Any:
    """A Gaussian around a place in world coordinates."""
    indices = np.moveaxis(np.indices(shape), 0, -1)
    distance = np.linalg.norm(nibabel.affines.apply_affine(affine, indices) - place_mm, axis=-1)
    return np.exp(-0.5 * (distance / sigma_mm) ** 2).astype(np.float32)


def test_the_middle_of_the_grid_is_the_middle_of_the_field_of_view() -> None:
    affine = np.array([[-2.0, 0, 0, 30], [0, 0, 3, 7], [0, 4, 0, -8], [0, 0, 0, 1]])
    grid = centred_grid((11, 12, 13), affine, shape=(4, 5, 6), spacing_mm=1.5)
    middle = nibabel.affines.apply_affine(affine, [5, 5.5, 6])
    np.testing.assert_allclose(grid.centre_mm, middle)
    np.testing.assert_allclose(nibabel.affines.apply_affine(grid.affine, [1.5, 2, 2.5]), middle)


@pytest.mark.parametrize("shape", [(9, 10, 11), (8, 8, 8)])
def test_an_image_on_the_grid_stays_as_it_is(shape: tuple[int, int, int]) -> None:
    image = smooth(shape)
    grid = Grid(shape, 1.7, (3.1, -80.3, 12.9))
    np.testing.assert_allclose(resample(image, grid.affine, grid), image, atol=1e-5)


def test_a_larger_grid_pads_with_the_lowest_value_and_a_smaller_one_crops() -> None:
    image = smooth((8, 8, 8)) - 100
    grid = Grid((8, 8, 8), 2.0, (5.0, 6.0, 7.0))
    padded = resample(image, grid.affine, replace(grid, shape=(12, 8, 10)))
    np.testing.assert_allclose(padded[2:10, :, 1:9], image, atol=1e-4)
    assert padded[:2] == pytest.approx(image.min())
    cropped = resample(image, grid.affine, replace(grid, shape=(4, 8, 6)))
    np.testing.assert_allclose(cropped, image[2:6, :, 1:7], atol=1e-4)


ORIENTATIONS = st.permutations(range(3)).flatmap(
    lambda order: st.tuples(*[st.sampled_from(p) for p in [("RL", "AP", "SI")[i] for i in order]])
)


@settings(max_examples=15, deadline=None)
@given(
    ORIENTATIONS,
    st.tuples(*[st.floats(1.0, 4.0)] * 3),
    st.tuples(*[st.floats(-20, 20)] * 3),
    st.tuples(*[st.floats(-12, 12)] * 3),
)
def test_a_landmark_lands_where_it_is(axes: Any, sizes: Any, angles: Any, place_mm: Any) -> None:
    shape = tuple(int(90 / size) for size in sizes)
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = rotation @ np.diag(sizes)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))
    image = nibabel.Nifti1Image(blob(shape, affine, place_mm, 6.0), affine).as_reoriented(turn)
    grid = Grid((32, 32, 32), 2.5, (0.0, 0.0, 0.0))
    result = resample(image.get_fdata(dtype=np.float32), image.affine, grid)
    expected = np.linalg.inv(grid.affine) @ [*place_mm, 1]
    centre = ndimage.center_of_mass(np.where(result > 0.1, result, 0))
    np.testing.assert_allclose(centre, expected[:3], atol=0.1)


@settings(max_examples=20, deadline=None)
@given(ORIENTATIONS)
def test_flipping_axes_and_affine_together_changes_nothing(axes: Any) -> None:
    image, affine = smooth((20, 16, 12)), np.diag([1.5, 2.0, 3.0, 1.0])
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))
    flipped = nibabel.Nifti1Image(image, affine).as_reoriented(turn)
    grid = centred_grid(image.shape, affine, shape=(10, 11, 12), spacing_mm=3.0)
    again = centred_grid(flipped.shape, flipped.affine, shape=(10, 11, 12), spacing_mm=3.0)
    np.testing.assert_allclose(grid.affine, again.affine)
    np.testing.assert_allclose(
        resample(flipped.get_fdata(dtype=np.float32), flipped.affine, grid),
        resample(image, affine, grid),
        atol=1e-4,
    )


def test_the_fast_way_and_the_3d_filters_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    image, affine = smooth((21, 24, 15)), np.diag([1.0, 1.3, 4.0, 1.0])
    grid = centred_grid(image.shape, affine, shape=(12, 9, 20), spacing_mm=2.6)
    fast = resample(image, affine, grid)
    monkeypatch.setattr(preprocess, "_ALIGNED_VOXELS", -1.0)
    np.testing.assert_allclose(fast, resample(image, affine, grid), atol=1e-4)


def test_agrees_with_nibabel_where_nothing_is_blurred() -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("z", 10, degrees=True).as_matrix() * 3.0
    image = smooth((12, 13, 14))
    grid = centred_grid(image.shape, affine, shape=(8, 8, 8), spacing_mm=2.0)
    theirs = resample_from_to(
        nibabel.Nifti1Image(image, affine), (grid.shape, grid.affine), order=1
    )
    np.testing.assert_allclose(resample(image, affine, grid), theirs.get_fdata(), atol=1e-4)


def test_detail_too_fine_for_the_grid_is_averaged_not_aliased() -> None:
    stripes = np.zeros((40, 40, 40), np.float32)
    stripes[::2] = 1.0
    grid = centred_grid(stripes.shape, np.eye(4), shape=(8, 8, 8), spacing_mm=4.0)
    inner = resample(stripes, np.eye(4), grid)[1:-1]
    np.testing.assert_allclose(inner, 0.5, atol=0.02)


def test_where_image_and_grid_do_not_meet_there_is_only_background() -> None:
    image = smooth((8, 8, 8))
    far = resample(image, np.eye(4), Grid((4, 4, 4), 2.0, (500.0, 0.0, 0.0)))
    assert (far == image.min()).all()


def head(noise: float = 0.02) -> Any:
    """A ball of two tissues in air."""
    x, y, z = np.indices((24, 24, 24)) - 11.5
    radius = np.sqrt(x**2 + y**2 + z**2)
    image = np.where(radius < 10, 1.0, 0.0) + np.where(radius < 6, 0.5, 0.0)
    return (image + noise * RNG.normal(size=image.shape)).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(0, 1e3))
def test_mr_does_not_depend_on_gain_and_offset(gain: float, offset: float) -> None:
    image = head()
    offset *= gain
    scaled = image * np.float32(gain) + np.float32(offset)
    np.testing.assert_allclose(normalise(scaled, "mr"), normalise(image, "mr"), atol=0.01)


def test_mr_foreground_has_mean_0_and_deviation_1_and_one_hot_voxel_changes_little() -> None:
    image = head()
    inside = image > 0.5
    z = normalise(image, "mr")
    assert z[inside].mean() == pytest.approx(0, abs=0.05)
    assert z[inside].std() == pytest.approx(1, abs=0.05)
    assert np.ptp(z[image < 0.1]) < 0.01
    image[12, 12, 12] = 1000
    np.testing.assert_allclose(normalise(image, "mr")[inside], z[inside], atol=0.3)


def test_pet_window_is_clipped_to_0_and_1() -> None:
    image = np.array([-0.1, 0, 3, 3, 3, 3, 6, 6, 20], np.float32).reshape(3, 3, 1)
    expected = [0, 0, 0.25, 0.25, 0.25, 0.25, 0.5, 0.5, 1]
    np.testing.assert_allclose(normalise(image, "pet", (0, 12)).ravel(), expected)
    assert normalise(image, "pet", (0, 12)).dtype == np.float32


def test_ct_outside_the_window_says_nothing() -> None:
    """Air and bone are neutral: clipped, the skull would be the strongest edge of every head."""
    image = np.array([-1000, -1000, -50, 50, 50, 50, 50, 150, 2000], np.float32)
    expected = [0.5, 0.5, 0, 0.5, 0.5, 0.5, 0.5, 1, 0.5]
    found = normalise(image.reshape(3, 3, 1), "ct", (-50, 150))
    np.testing.assert_allclose(found.ravel(), expected)


@pytest.mark.parametrize(
    ("image", "kind", "window", "reason"),
    [
        (head() * 20_000, "pet", (0.0, 12.0), "not in SUV"),  # Bq/ml
        (head() * 1024, "ct", (-50.0, 150.0), "not in HU"),  # stored values, air at 0
        (head() - 3000, "ct", (-50.0, 150.0), "no contrast"),
        ((head(0) > 0.5).astype(np.float32), "mr", None, "no contrast"),  # a mask
        ((np.arange(1000) > 5).astype(np.float32), "mr", None, "no contrast"),
    ],
)
def test_intensities_that_cannot_be_right_are_refused(
    image: Any, kind: Any, window: Any, reason: str
) -> None:
    with pytest.raises(DataError) as caught:
        normalise(image, kind, window)
    assert caught.value.reason == reason


TURNED = np.eye(4)
TURNED[:3, :3] = Rotation.from_euler("xyz", [20, -35, 10], degrees=True).as_matrix() * [1, 2, 3]
TURNED[:3, 3] = 12, -40, 7


def test_a_mask_stays_a_mask_and_keeps_its_size() -> None:
    """Also half a voxel aside, where every edge is a tie."""
    mask = np.zeros((30, 32, 34), bool)
    mask[8:20, 9:21, 10:22] = True
    for aside in (0.0, 0.25, 0.5, 0.75):
        grid = Grid((40, 40, 40), 1.0, (15.0 + aside, 16.0 + aside, 17.0 + aside))
        found = resample_mask(mask, np.eye(4), grid)
        assert found.dtype == bool
        assert found.sum() == pytest.approx(mask.sum(), rel=0.025)  # corners are rounded
    turned = resample_mask(mask, TURNED, covering_grid(mask.shape, TURNED, 1.0))
    assert turned.sum() == pytest.approx(6 * mask.sum(), rel=0.02)


def test_the_same_grid_gives_the_same_mask() -> None:
    mask = RNG.random((12, 13, 14)) > 0.5
    grid = Grid((12, 13, 14), 1.0, (5.5, 6.0, 6.5))
    np.testing.assert_array_equal(resample_mask(mask, np.eye(4), grid), mask)


def test_a_covering_grid_covers_and_knows_where_the_image_is() -> None:
    shape = (20, 14, 9)
    grid = covering_grid(shape, TURNED, 2.0)
    ones = resample_mask(np.ones(shape, bool), TURNED, grid)
    assert ones.sum() * 8 == pytest.approx(np.prod(shape) * 6, rel=0.08)
    inside = within(shape, TURNED, grid)
    assert (inside & ones).sum() > 0.97 * ones.sum()
    assert not inside.all()
    assert within(shape, TURNED, Grid((3, 3, 3), 1.0, (900.0, 0.0, 0.0))).sum() == 0


STS = Path(os.environ.get("FEDCORE_TEST_DATA", Path(__file__).parents[3] / "shared/data")) / "sts"


@pytest.mark.skipif(not STS.exists(), reason=f"no real patients at {STS}: set FEDCORE_TEST_DATA")
@pytest.mark.parametrize("patient", ["STS_001", "STS_002"])
@pytest.mark.parametrize(("other", "goal"), [("PET", 0.93), ("MR_T1", 0.99)])
def test_outlines_of_one_tumour_agree_on_one_grid(patient: str, other: str, goal: float) -> None:
    masks = [
        nifti.read((STS / patient / modality / "nifti/mask.nii.gz").read_bytes())
        for modality in ("CT", other)
    ]
    grid = covering_grid(masks[0].voxels.shape, masks[0].affine, 2.0)
    one, two = (resample_mask(mask.voxels > 0.5, mask.affine, grid) for mask in masks)
    assert 2 * (one & two).sum() / (one.sum() + two.sum()) >= goal
