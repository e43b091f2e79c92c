"""Where a subject's image lies with respect to the reference: rigid, then affine, by mutual
information (Mattes et al. 2003, https://doi.org/10.1109/TMI.2003.809072; SimpleITK's).

An alignment is one matrix from the reference's millimetres to the image's, so that an image or a
mask is still resampled only once. The same voxels give the same bits: one thread, all voxels of a
coarse grid in place of random ones, a fixed number of steps at most.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedcore.config.task import Kind
from fedcore.data import brain
from fedcore.data.nifti import Volume
from fedcore.data.preprocess import Affine, FloatArray, Grid, covering_grid, resample, within
from fedcore.errors import ConfigError, DataError

LEVELS_MM = (6.0, 3.0)
"""Voxels of the two passes. A 1 mm brain gains nothing from a finer one: 0.03 mm are reached."""

BINS = 32
STEPS = 100
_CT_WINDOW = (-200.0, 400.0)  # HU: else soft tissue would be one bin of the histogram
_FIRST_STEP_MM, _LAST_STEP_MM = 4.0, 0.005
_SHORTER = 0.7  # a step after the way has turned; 0.5 stops too early, up to 1.2 mm away
_MARGIN = 2  # voxels of air around the head: they hold the outline


@dataclass(frozen=True)
class Level:
    """An image on cubic voxels, and the head in it."""

    image: FloatArray
    grid: Grid
    head: NDArray[np.bool_]
    seen: NDArray[np.bool_]


@dataclass(frozen=True)
class Pyramid:
    """An image as the registration sees it, coarse first."""

    levels: tuple[Level, ...]
    volume: Volume
    kind: Kind


def pyramid(volume: Volume, kind: Kind) -> Pyramid:
    """``volume`` in LEVELS_MM, its outliers clipped."""
    voxels, affine = volume
    levels = []
    limits = _CT_WINDOW if kind == "ct" else np.percentile(voxels[::2, ::2, ::2], (0.5, 99.5))
    low, high = map(np.float32, limits)
    for spacing in LEVELS_MM:
        grid = covering_grid(voxels.shape, affine, spacing)
        image = resample(voxels, affine, grid)
        body = brain.head(image, kind)
        seen = within(voxels.shape, affine, grid)
        levels.append(Level(image.clip(low, high), grid, body, seen))
    return Pyramid(tuple(levels), volume, kind)


def rigid(fixed: Pyramid, moving: Pyramid) -> Affine:
    """(4, 4), millimetres of ``fixed`` → millimetres of ``moving``: turned and shifted.

    Starts from where the scanner says that both are, or, where that is a better start, with the
    middles of both heads on each other. Raises DataError where the two have nothing in common, and
    ConfigError where SimpleITK is not installed.
    """
    sitk = _simple_itk()
    start = sitk.Euler3DTransform()
    start.SetCenter(tuple(map(float, head_centre(fixed.levels[0]))))
    start.SetTranslation(tuple(map(float, _start(fixed, moving))))
    return _matrix(_refined(sitk, start, fixed, moving))


def affine(fixed: Pyramid, moving: Pyramid, start: Affine) -> Affine:
    """(4, 4), as ``rigid``, from its result on: stretched and sheared too. Raises as ``rigid``."""
    sitk = _simple_itk()
    centre = head_centre(fixed.levels[0])
    transform = sitk.AffineTransform(3)
    transform.SetCenter(tuple(map(float, centre)))
    transform.SetMatrix(tuple(map(float, start[:3, :3].ravel())))
    shift = start[:3, :3] @ centre + start[:3, 3] - centre
    transform.SetTranslation(tuple(map(float, shift)))
    return _matrix(_refined(sitk, transform, fixed, moving))


def library() -> dict[str, str]:
    """What registers, and its version. Raises ConfigError where it is not installed."""
    return {"SimpleITK": _simple_itk().Version.VersionString()}


def head_centre(level: Level) -> NDArray[np.float64]:
    """Millimetres, of the head's middle; of the image's where there is no head."""
    middle = (np.array(level.image.shape) - 1) / 2
    if level.head.any():
        middle = np.array(ndimage.center_of_mass(level.head))
    return np.asarray(level.grid.affine[:3, :3] @ middle + level.grid.affine[:3, 3])


def moved(level: Level, onto: Grid, alignment: Affine) -> tuple[FloatArray, NDArray[np.bool_]]:
    """An image on the grid of another that ``alignment`` leads from, and what of that it sees."""
    affine = np.linalg.inv(alignment) @ level.grid.affine
    return resample(level.image, affine, onto), within(level.image.shape, affine, onto)


def mutual_information(one: FloatArray, other: FloatArray) -> float:
    """In nats, of two lists of intensities, by a histogram of BINS by BINS."""
    joint = np.histogram2d(one, other, BINS)[0]
    if joint.sum() == 0:
        return 0.0
    joint /= joint.sum()
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    known = joint > 0
    return float((joint[known] * np.log(joint[known] / apart[known])).sum())


def similarity(fixed: Level, moving: Level, alignment: Affine) -> float:
    """Mutual information within the head of ``fixed``, where both images are."""
    image, seen = moved(moving, fixed.grid, alignment)
    both = fixed.head & seen
    return mutual_information(fixed.image[both], image[both])


def translation(offset: Sequence[float] | NDArray[np.float64]) -> Affine:
    """(4, 4)."""
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix


def _start(fixed: Pyramid, moving: Pyramid) -> NDArray[np.float64]:
    one, other = fixed.levels[0], moving.levels[0]
    offsets = [np.zeros(3), head_centre(other) - head_centre(one)]
    return max(offsets, key=lambda offset: similarity(one, other, translation(offset)))


def _refined(sitk: Any, transform: Any, fixed: Pyramid, moving: Pyramid) -> Any:
    """``transform``, better by one pass a level."""
    step = _FIRST_STEP_MM
    for one, other in zip(fixed.levels, moving.levels, strict=True):
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(BINS)
        method.SetMetricSamplingStrategy(method.NONE)  # every voxel: nothing is drawn
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(step, _LAST_STEP_MM, STEPS, _SHORTER)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(transform, inPlace=True)
        region = ndimage.binary_dilation(one.head, iterations=_MARGIN) & one.seen
        method.SetMetricFixedMask(_image(sitk, region.astype(np.uint8), one.grid))
        try:
            method.Execute(_image(sitk, one.image, one.grid), _image(sitk, other.image, other.grid))
        except RuntimeError as error:
            raise DataError(
                f"nothing to align by: {str(error).strip().splitlines()[-1]}",
                reason="alignment failed",
            ) from error
        step = float(one.grid.edges_mm.min()) / 4
    return transform


def _image(sitk: Any, voxels: NDArray[Any], grid: Grid) -> Any:
    """In ITK's millimetres, which are taken for RAS+ here, as everywhere in fedcore."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    image.SetSpacing(grid.edges_mm.tolist())
    image.SetOrigin(tuple(map(float, grid.affine[:3, 3])))
    return image


def _matrix(transform: Any) -> Affine:
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(tuple(unit))) - origin for unit in np.eye(3)]
    matrix = translation(origin)
    matrix[:3, :3] = np.array(columns).T
    return matrix


def _simple_itk() -> Any:
    try:
        sitk: Any = importlib.import_module("SimpleITK")
    except ImportError as error:
        raise ConfigError(
            "the plan aligns images (task.preprocessing.align), which needs SimpleITK: "
            "pip install 'fedcore[site]'"
        ) from error
    # Threads would add up the metric in any order. Of the whole process: the metric does not heed
    # what its registration is told.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return sitk
