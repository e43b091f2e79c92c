"""From volumes of any grid to arrays of one grid in world coordinates.

Pure functions of arrays and affines. An affine takes voxel indices to RAS+ millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

FloatArray = NDArray[np.float32]
Affine = NDArray[np.float64]
Spacing = float | tuple[float, float, float]
"""Edges of a voxel (mm): of a cube one for all, else along X, Y and Z."""

_FWHM = 2 * np.sqrt(2 * np.log(2))  # of a Gaussian, in standard deviations
_ALIGNED_VOXELS = 1e-3
_HAIR = 1e-3  # voxels


@dataclass(frozen=True)
class Grid:
    """Voxels along the RAS+ axes: ``shape`` (X, Y, Z), edge or edges ``spacing_mm``, middle."""

    shape: tuple[int, int, int]
    spacing_mm: Spacing
    centre_mm: tuple[float, float, float]

    @property
    def edges_mm(self) -> Affine:
        """(3,), of a voxel along each axis."""
        return np.array(np.broadcast_to(self.spacing_mm, 3), np.float64)

    @property
    def affine(self) -> Affine:
        """(4, 4), voxel index → millimetres.

        >>> Grid((3, 3, 5), 2.0, (0.0, 0.0, 10.0)).affine[:3, 3].tolist()
        [-2.0, -2.0, 6.0]
        """
        matrix = np.diag([*self.edges_mm, 1.0])
        matrix[:3, 3] = self.centre_mm - self.edges_mm * (np.array(self.shape) - 1) / 2
        return matrix


def centred_grid(
    image_shape: Sequence[int], affine: Affine, *, shape: Sequence[int], spacing_mm: Spacing
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
    coarser = grid.edges_mm / np.linalg.norm(affine[:3, :3], axis=0)
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


def resample_mask(mask: NDArray[np.bool_], affine: Affine, grid: Grid) -> NDArray[np.bool_]:
    """``mask`` on ``grid``, False outside: where more than half of what lies around is mask.

    That is trilinear interpolation at one half. The nearest voxel would carry the stairs of a
    coarse mask over to a fine grid: of two outlines of one tumour, on CT and on PET, less agrees.
    """
    to_mask = np.linalg.inv(affine) @ grid.affine
    # Half-way between two voxels, as the middle of a grid often lies, both edges would be ties: a
    # hair's breadth aside one of them counts, and the mask keeps its size.
    matrix, offset = to_mask[:3, :3], to_mask[:3, 3] + _HAIR
    share = ndimage.affine_transform(
        mask.astype(np.float32), matrix, offset, grid.shape, order=1, mode="grid-constant"
    )
    return np.asarray(share > 0.5)


def resample_labels(labels: NDArray[np.uint8], affine: Affine, grid: Grid) -> NDArray[np.uint8]:
    """``labels`` on ``grid``, 0 outside: at each voxel the label that most of its surroundings has.

    Each label's share is resampled as an image is; of two equal ones the lower label counts.
    """
    aside = np.eye(4)
    aside[:3, 3] = -_HAIR  # as for a mask
    found = np.zeros(grid.shape, np.uint8)
    most, rest = np.zeros(grid.shape, np.float32), np.ones(grid.shape, np.float32)
    for value in np.unique(labels[labels > 0]):
        # A margin, so that what lies outside is 0 even of a label that is everywhere.
        margin = np.eye(4)
        margin[:3, 3] = -1
        mask = np.pad((labels == value).astype(np.float32), 1)
        share = resample(mask, affine @ margin @ aside, grid)
        rest -= share
        better = share > most
        found[better], most[better] = value, share[better]
    found[rest >= most] = 0
    return found


def within(shape: Sequence[int], affine: Affine, grid: Grid) -> NDArray[np.bool_]:
    """(X, Y, Z): which voxels of ``grid`` have their middle in an image's field of view."""
    to_image = np.linalg.inv(affine) @ grid.affine
    inside = np.ones(grid.shape, bool)
    axes = np.ogrid[tuple(slice(size) for size in grid.shape)]
    for row, size in zip(to_image[:3], shape, strict=True):
        index = sum(step * axis for step, axis in zip(row, axes, strict=False)) + row[3]
        inside &= (index >= -0.5) & (index <= size - 0.5)
    return inside


def covering_grid(shape: Sequence[int], affine: Affine, spacing_mm: Spacing) -> Grid:
    """The smallest grid of ``spacing_mm`` that covers an image's voxels."""
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape])).reshape(3, -1)
    world = affine[:3, :3] @ corners + affine[:3, 3:]
    low, high = world.min(axis=1), world.max(axis=1)
    width, depth, height = (int(n) for n in np.ceil((high - low) / np.asarray(spacing_mm)) + 1)
    x, y, z = map(float, (low + high) / 2)
    return Grid((width, depth, height), spacing_mm, (x, y, z))


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
