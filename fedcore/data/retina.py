"""OCT volumes and fundus photos as a model takes them, each on a grid of its own.

Neither says where in the patient it lies, so nothing is aligned. Pure functions of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from fedcore.config.task import Modality
from fedcore.data import nifti, photos
from fedcore.data.history import Step, oriented, resampled, step
from fedcore.data.intensities import Mask, z_score
from fedcore.data.nifti import Volume
from fedcore.data.photos import Photo
from fedcore.data.preprocess import FloatArray, Grid, covering_grid, resample
from fedcore.errors import DataError

BAND_MM = 0.4
"""From the brightest layer: the retina is some 0.3 mm thick, and that layer is in it."""

_SEARCH_MM = (0.3, 0.02, 0.3)
_SMOOTH_MM = (0.15, 0.02, 0.15)  # speckle is smaller
_DARK = 0.1  # of the brightest: less is outside of the field of view
_EDGE = 0.1  # of the widest line: less is a letter, or light that strayed
_LEAST_DEVIATION = 1 / 64  # of the full scale: the blue channel of many cameras is all but empty


def volume(
    modality: Modality, data: bytes, max_bytes: int | None = None
) -> tuple[FloatArray, list[Step]]:
    """A NIfTI file of an OCT volume as (X, Y, Z), and what was done. Raises DataError."""
    assert modality.shape is not None  # noqa: S101  # by ``Modality``
    assert modality.spacing_mm is not None  # noqa: S101
    scan = nifti.read(data, max_bytes=max_bytes, voxel_mm=nifti.OCT_VOXEL_MM)
    grid = retina_grid(scan, modality.shape, modality.spacing_mm)
    image = scaled_in_band(resample(*scan, grid), grid)
    normalised = step("normalise", kind="oct", normalise="z-score", within="retina")
    return image, [oriented(scan), resampled(grid), normalised]


def photo(
    modality: Modality, data: bytes, max_bytes: int | None = None
) -> tuple[FloatArray, list[Step]]:
    """A file of a fundus photo as (3, X, Y), and what was done. Raises DataError."""
    assert modality.shape is not None  # noqa: S101  # by ``Modality``
    taken = photos.read(data, max_bytes=max_bytes)
    pixels, field = framed(taken, modality.shape)
    placed = step("frame", taken=list(taken.shape[1::-1]), shape=list(modality.shape))
    normalised = step("normalise", kind="fundus", normalise="z-score", within="field of view")
    return standardised(pixels, field), [placed, normalised]


def framed(taken: Photo, shape: Sequence[int]) -> tuple[FloatArray, Mask]:
    """The photo's field of view, so that it fills ``shape`` (X, Y): (3, X, Y) in [0, 1], its mask.

    X runs to the right of the photo, Y down. All cameras' discs get one size, as in Gulshan et al.
    2016, https://doi.org/10.1001/jama.2016.17216; averaged, not sampled, where that is coarser.
    Raises DataError where nothing is lit.
    """
    lit = _lit(taken)
    rows, columns = _span(lit.sum(axis=1)), _span(lit.sum(axis=0))
    width, height = shape
    scale = max((columns[1] - columns[0]) / width, (rows[1] - rows[0]) / height)
    left, right = _around(columns, scale * width)
    top, bottom = _around(rows, scale * height)

    def cut(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # What is outside of the photo is black.
        part = Image.fromarray(pixels).crop((left, top, right, bottom))
        return np.asarray(part.resize((width, height), Image.Resampling.BILINEAR))

    colours = cut(taken).transpose(2, 1, 0).astype(np.float32) / np.float32(255)
    return colours, cut(lit.astype(np.uint8) * 255).T > 127


def standardised(pixels: FloatArray, field: Mask) -> FloatArray:
    """Each channel of (3, X, Y) less its mean, over its deviation in ``field``; 0 outside.

    What a camera's lamp, white balance and the lens of the eye do to a colour is mostly a gain and
    an offset by channel. Raises DataError if there is no contrast.
    """
    inside = pixels[:, field].astype(np.float64)
    if inside.size == 0 or inside.std(axis=1).max() < _LEAST_DEVIATION:
        raise DataError("the photo has hardly any contrast", reason="no contrast")
    mean = inside.mean(axis=1)[:, None, None]
    deviation = np.maximum(inside.std(axis=1), _LEAST_DEVIATION)[:, None, None]
    scaled: FloatArray = np.where(field, (pixels - mean) / deviation, 0.0).astype(np.float32)
    return scaled


def retina_grid(scan: Volume, shape: Sequence[int], spacing_mm: Sequence[float]) -> Grid:
    """The grid in the middle of an OCT volume, in depth (Y) around its retina.

    How deep the retina lies in the volume is where the operator put the chin rest.
    """
    search = covering_grid(scan.voxels.shape, scan.affine, _SEARCH_MM)
    found = brightest(resample(*scan, search), search)
    x, _, z = search.centre_mm
    y = float(search.affine[1, 3] + search.edges_mm[1] * np.median(found))
    (width, depth, height), (a, b, c) = shape, spacing_mm
    return Grid((width, depth, height), (a, b, c), (x, y, z))


def brightest(image: FloatArray, grid: Grid) -> NDArray[np.intp]:
    """(X, Z): in each A-scan the index along Y of its brightest layer, speckle smoothed."""
    smooth = ndimage.gaussian_filter(image, _SMOOTH_MM / grid.edges_mm, mode="nearest")
    found: NDArray[np.intp] = smooth.argmax(axis=1)
    return found


def band(image: FloatArray, grid: Grid) -> Mask:
    """(X, Y, Z): what is at most BAND_MM of depth away from the A-scan's brightest layer."""
    depth = np.arange(grid.shape[1])[None, :, None]
    away = np.abs(depth - brightest(image, grid)[:, None, :])
    return np.asarray(away * grid.edges_mm[1] <= BAND_MM)


def scaled_in_band(image: FloatArray, grid: Grid) -> FloatArray:
    """The z-score by the retina's mean and deviation, of the whole image.

    OCT devices store the logarithm of the reflectivity, or something like it, with a gain and an
    offset of their own; how much vitreous and sclera a volume holds must not change what a layer's
    brightness is. Raises DataError if there is no contrast.
    """
    return z_score(image, np.sort(image[band(image, grid)]))


def _lit(taken: Photo) -> Mask:
    """(rows, columns): where any colour is more than dark."""
    brightest = taken.max(axis=2)
    return np.asarray(brightest > max(_DARK * float(np.percentile(brightest, 98)), 1.0))


def _span(lines: NDArray[np.intp]) -> tuple[int, int]:
    """Of how many pixels each line has lit: the first that counts, and the one behind the last."""
    found = np.flatnonzero(lines > _EDGE * lines.max())
    if not found.size:
        raise DataError("nothing in the photo is lit", reason="no contrast")
    return int(found[0]), int(found[-1]) + 1


def _around(line: tuple[int, int], length: float) -> tuple[int, int]:
    """Where ``length`` pixels begin and end whose middle is that of ``line``."""
    middle = sum(line) / 2
    return round(middle - length / 2), round(middle + length / 2)
