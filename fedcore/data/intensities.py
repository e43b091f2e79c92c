"""Intensities that mean the same at every site, by modality. Pure functions of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedcore.config.task import Kind
from fedcore.errors import DataError

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]

LANDMARKS = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)
"""Percentiles of the foreground that ``nyul`` maps: of L4 in Nyúl et al. 2000, every decile."""

_CLIP = (0.5, 99.95)  # percentiles of the foreground; a small bright lesion is not an outlier
_NOTHING = {"ct": 0.5, "pet": 0.0}  # what says nothing in a window of [0, 1]; MR: its darkest


def normalise(
    image: FloatArray,
    kind: Kind,
    window: Sequence[float] | None = None,
    *,
    landmarks: Sequence[float] | None = None,
    mask: Mask | None = None,
) -> FloatArray:
    """``image`` (X, Y, Z) as a model takes it, float32.

    MR: z-score within the foreground, clipped to the foreground's 0.5th and 99.95th percentile,
    so that air has one value; with ``landmarks`` the foreground's percentiles LANDMARKS are mapped
    to these, linearly in between and beyond (``nyul``). PET: ``window`` (SUV) to [0, 1], clipped.
    CT: ``window`` (HU) to [0, 1]; what is outside it gets the middle, 0.5.

    ``mask``: takes the place of the foreground, and what is outside says nothing: MR is as dark
    there as it gets, CT 0.5, PET 0.

    Raises DataError where no contrast is left, or where most of a CT or PET lies above the window
    and is therefore hardly in that unit.
    """
    if kind == "mr":
        inside = foreground(image) if mask is None else np.sort(image[mask])
        if inside.size == 0:
            raise DataError("the image has no foreground", reason="no contrast")
        scaled = z_score(image, inside) if landmarks is None else nyul(image, inside, landmarks)
    else:
        scaled = _windowed(image, kind, window)
    if mask is not None:
        scaled[~mask] = _NOTHING.get(kind, scaled[mask].min(initial=np.inf))
        _require_contrast(scaled)
    return scaled


def percentiles(ordered: FloatArray, percents: Iterable[float]) -> list[np.float32]:
    """By nearest rank, of values in ascending order."""
    return [ordered[round(percent / 100 * (ordered.size - 1))] for percent in percents]


def nyul(image: FloatArray, inside: FloatArray, landmarks: Sequence[float]) -> FloatArray:
    """``image`` with the percentiles of ``inside`` (ascending) at ``landmarks``.

    Nyúl, Udupa & Zhang 2000, *New variants of a method of MRI scale standardization*,
    https://doi.org/10.1109/42.836373. Clipped as the z-score is; beyond the first and the last
    landmark the nearest segment goes on. Raises DataError where two landmarks' percentiles are so
    few that nothing can be mapped.
    """
    found = np.array(percentiles(inside, LANDMARKS), np.float64)
    # Percentiles that coincide (many voxels of one value) are one point: the middle of theirs.
    knots, where = np.unique(found, return_inverse=True)
    if knots.size < 3:
        raise DataError("the foreground has hardly any contrast", reason="no contrast")
    values = np.bincount(where, np.asarray(landmarks, np.float64)) / np.bincount(where)
    low, high = map(float, percentiles(inside, _CLIP))
    first = values[0] + (low - knots[0]) * (values[1] - values[0]) / (knots[1] - knots[0])
    last = values[-1] + (high - knots[-1]) * (values[-1] - values[-2]) / (knots[-1] - knots[-2])
    if low < knots[0]:
        knots, values = np.r_[low, knots], np.r_[first, values]
    if high > knots[-1]:
        knots, values = np.r_[knots, high], np.r_[values, last]
    mapped: FloatArray = np.interp(image.ravel(), knots, values).astype(np.float32)
    return mapped.reshape(image.shape)


def standard(insides: Iterable[FloatArray]) -> tuple[float, ...]:
    """Landmarks for a plan: the mean of those of images of one modality, each from 0 to 1.

    ``insides``: of each image the intensities that count, ascending, as ``foreground`` gives them.

    Raises DataError if there is no image.
    """
    scales = []
    for inside in insides:
        if not inside.size:
            continue
        found = np.array(percentiles(inside, LANDMARKS), np.float64)
        if found[0] < found[-1]:
            scales.append((found - found[0]) / (found[-1] - found[0]))
    if not scales:
        raise DataError("there is no image to learn landmarks from", reason="no usable image")
    return tuple(float(value) for value in np.mean(scales, axis=0).round(4))


def foreground(image: FloatArray) -> FloatArray:
    """The foreground's values in ascending order.

    It starts a tenth up from the 2nd to the 98th percentile (BET, Smith 2002).
    """
    ordered = np.sort(image, axis=None)
    low, high = percentiles(ordered, (2, 98))
    return ordered[np.searchsorted(ordered, low + 0.1 * (high - low), side="right") :]


def z_score(image: FloatArray, foreground: FloatArray) -> FloatArray:
    """``image`` in standard deviations from the mean of ``foreground`` (ascending), clipped to its
    0.5th and 99.95th percentile. Raises DataError if there is no contrast."""
    low, high = percentiles(foreground, _CLIP)
    inside = foreground.clip(low, high).astype(np.float64)
    _require_contrast(inside)
    mean, deviation = np.float32(inside.mean()), np.float32(inside.std())
    z: FloatArray = (image.clip(low, high) - mean) / deviation
    return z


def _windowed(image: FloatArray, kind: str, window: Sequence[float] | None) -> FloatArray:
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


def _require_contrast(values: NDArray[np.floating]) -> None:
    if values.min() == values.max():
        raise DataError("all intensities are the same", reason="no contrast")
