"""From volumes of any grid to arrays of one grid in world coordinates, with comparable intensities.

Pure functions of arrays and affines. An affine takes voxel indices to RAS+ millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from fedcore.errors import DataError

FloatArray = NDArray[np.float32]
Affine = NDArray[np.float64]

_FWHM = 2 * np.sqrt(2 * np.log(2))  # of a Gaussian, in standard deviations
_ALIGNED_VOXELS = 1e-3


@dataclass(frozen=True)
class Grid:
    """Cubic voxels along the RAS+ axes: ``shape`` (X, Y, Z), edge ``spacing_mm``, middle."""

    shape: tuple[int, int, int]
    spacing_mm: float
    centre_mm: tuple[float, float, float]

    @property
    def affine(self) -> Affine:
        """(4, 4), voxel index → millimetres.

        >>> Grid((3, 3, 5), 2.0, (0.0, 0.0, 10.0)).affine[:3, 3].tolist()
        [-2.0, -2.0, 6.0]
        """
        matrix = np.diag([self.spacing_mm] * 3 + [1.0])
        matrix[:3, 3] = self.centre_mm - self.spacing_mm * (np.array(self.shape) - 1) / 2
        return matrix


def centred_grid(
    image_shape: Sequence[int], affine: Affine, *, shape: Sequence[int], spacing_mm: float
) -> Grid:
    """The grid whose middle is that of an image's field of view; it crops or pads the image.

    The field of view depends on how a patient was placed, the foreground's centre of mass on
    contrast, noise and lesions too, hence on what is to be learnt.
    """
    middle = (np.array(image_shape) - 1) / 2
    x, y, z = map(float, affine[:3, :3] @ middle + affine[:3, 3])
    width, depth, height = shape
    return Grid((width, depth, height), spacing_mm, (x, y, z))


def resample(image: FloatArray, affine: Affine, grid: Grid) -> FloatArray:
    """``image`` (any shape, any orientation) on ``grid``: trilinear, the image's minimum outside.

    Where the grid is coarser the image is first blurred, from the point spread of its voxels to
    that of the grid's: σ² = (d_grid² − d_image²) / (8 ln 2), by axis (Cardoso et al. 2015, *Scale
    factor point spread function matching*, https://doi.org/10.1007/978-3-319-24571-3_81).
    """
    to_image = np.linalg.inv(affine) @ grid.affine
    matrix, offset = to_image[:3, :3], to_image[:3, 3]
    coarser = grid.spacing_mm / np.linalg.norm(affine[:3, :3], axis=0)
    sigmas = np.sqrt(np.maximum(coarser**2 - 1, 0)) / _FWHM
    background = image.min()
    result = image - background
    drift = np.abs(matrix - np.diag(np.diag(matrix))) @ np.array(grid.shape)
    if drift.max() < _ALIGNED_VOXELS:
        for axis in range(3):
            operator = _line_operator(
                image.shape[axis], grid.shape[axis], matrix[axis, axis], offset[axis], sigmas[axis]
            )
            lines = operator @ result.reshape(len(result), -1)
            # The axis that was first goes to the end: after three the order is the old one.
            result = lines.T.reshape(*result.shape[1:], -1)
    else:
        result = ndimage.gaussian_filter(result, sigmas, mode="nearest")
        result = ndimage.affine_transform(
            result, matrix, offset, grid.shape, order=1, mode="grid-constant"
        )
    return np.ascontiguousarray(result + background, dtype=np.float32)


def _line_operator(
    size: int, grid_size: int, step: float, offset: float, sigma: float
) -> sparse.csr_array:
    """What blurring and interpolating do to a line of voxels, as a matrix (grid_size, size).

    Both are linear and, with parallel axes, separable. Three products in place of two 3-D filters
    take a quarter of the time; sparse ones give the same bits for any number of BLAS threads.
    """
    unit = np.eye(size, dtype=np.float32)
    if sigma > 0:
        unit = ndimage.gaussian_filter1d(unit, sigma, axis=0, mode="nearest")
    return sparse.csr_array(
        ndimage.affine_transform(
            unit, [step, 1.0], [offset, 0.0], (grid_size, size), order=1, mode="grid-constant"
        )
    )


def normalise(
    image: FloatArray, kind: Literal["mr", "ct", "pet"], window: tuple[float, float] | None = None
) -> FloatArray:
    """Intensities that mean the same at every site, float32.

    MR: z-score within the foreground, clipped to the foreground's 0.5th and 99.95th percentile,
    so that air has one value. PET: ``window`` (SUV) to [0, 1], clipped. CT: ``window`` (HU) to
    [0, 1]; what is outside it gets the middle, 0.5.
    Raises DataError where no contrast is left, or where most of a CT or PET lies above the window
    and is therefore hardly in that unit.
    """
    if kind == "mr":
        return _z_score(image)
    if window is None:
        raise ValueError(f"a {kind} image needs a window")
    unit = "HU" if kind == "ct" else "SUV"
    low, high = window
    bright = np.sort(image[image > image.mean()])
    if bright.size and bright[bright.size // 2] >= high:
        raise DataError(
            f"half of the foreground is above {high:g}: the image is not in {unit}, or the "
            "plan's window does not fit",
            reason=f"not in {unit}",
        )
    scaled: FloatArray = (image.clip(low, high) - np.float32(low)) / np.float32(high - low)
    if kind == "ct":
        # Clipped, the skull's inner edge would be the strongest contrast of a head by far, and a
        # small network sees nothing else: what is outside the window says nothing instead.
        scaled[(image < low) | (image > high)] = 0.5
    _require_contrast(scaled)
    return scaled


def _z_score(image: FloatArray) -> FloatArray:
    """The foreground starts a tenth up from the 2nd to the 98th percentile (BET, Smith 2002)."""
    ordered = np.sort(image, axis=None)
    low, high = _percentiles(ordered, 2, 98)
    foreground = ordered[np.searchsorted(ordered, low + 0.1 * (high - low), side="right") :]
    if foreground.size == 0:
        raise DataError("the image has no foreground", reason="no contrast")
    low, high = _percentiles(foreground, 0.5, 99.95)  # a small bright lesion is not an outlier
    inside = foreground.clip(low, high).astype(np.float64)
    _require_contrast(inside)
    mean, deviation = np.float32(inside.mean()), np.float32(inside.std())
    z: FloatArray = (image.clip(low, high) - mean) / deviation
    return z


def _percentiles(ordered: FloatArray, *percents: float) -> list[np.float32]:
    """By nearest rank, of values in ascending order."""
    return [ordered[round(percent / 100 * (ordered.size - 1))] for percent in percents]


def _require_contrast(values: NDArray[np.floating]) -> None:
    if values.min() == values.max():
        raise DataError("all intensities are the same", reason="no contrast")
