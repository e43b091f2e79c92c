"""RTSTRUCT, SEG and NIfTI masks → a mask on the grid of the image that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from scipy import ndimage

from fedcore.data import nifti
from fedcore.imports.headers import lenient, several, text
from fedcore.imports.reasons import Reason, Unfit
from fedcore.imports.rules import Rules

Mask = NDArray[np.uint8]
Affine = NDArray[np.float64]
_LPS = np.array([-1.0, -1.0, 1.0])
_OFF_SLICE = 0.5  # voxels: a contour further from every slice is on another grid
_CONTOURS = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_TOUCHING = 1e-6


@dataclass(frozen=True)
class Grid:
    """The image that a mask is for."""

    shape: tuple[int, int, int]
    affine: Affine


def referenced(head: Dataset) -> set[str]:
    """The series that an RTSTRUCT or SEG was drawn on, by their UIDs; none in a damaged one."""
    try:
        named = [str(e.value) for e in head.iterall() if e.keyword == "SeriesInstanceUID"]
    except Exception:  # a damaged value raises whatever it likes
        return set()
    return set(named) - {text(head, "SeriesInstanceUID")}


def drawn(path: Path, grid: Grid, rules: Rules) -> dict[str, Mask]:
    """Name → mask of every structure in an RTSTRUCT or SEG that the rules want.

    Structures of one name are united. Raises Unfit.
    """
    try:
        with lenient():
            dataset = dcmread(path, force=True)
            kind = text(dataset, "Modality")
            read = _structures(dataset, grid, rules) if kind == "RTSTRUCT" \
                else _segments(path, grid, rules)  # fmt: skip
            found: dict[str, Mask] = {}
            for name, mask in read:
                found[name] = np.maximum(found[name], mask) if name in found else mask
    except Unfit:
        raise
    except Exception as error:  # whatever a damaged file makes the libraries raise
        raise Unfit(
            Reason.MASK_OPEN, f"the {kind} cannot be read: {type(error).__name__}"
        ) from error
    if not any(mask.any() for mask in found.values()):
        raise Unfit(Reason.MASK_EMPTY, f"none of its {_count(dataset)} structures is in the image")
    return found


def from_nifti(data: bytes, grid: Grid) -> Mask:
    """A NIfTI mask, whatever is above 0, on the image's grid. Raises DataError."""
    volume = nifti.read(data)
    mask = _resampled(volume.voxels > 0, volume.affine, grid)
    if not mask.any():
        raise Unfit(Reason.MASK_EMPTY, "nothing of the mask lies in the image")
    return mask


def _count(dataset: Dataset) -> int:
    return sum(
        len(several(dataset, name)) for name in ("StructureSetROISequence", "SegmentSequence")
    )


def _structures(dataset: Dataset, grid: Grid, rules: Rules) -> Iterator[tuple[str, Mask]]:
    wanted: Mapping[int, str] = {
        int(roi.ROINumber): name
        for roi in dataset.StructureSetROISequence
        if (name := rules.mask(text(roi, "ROIName"))) is not None
    }
    for roi in several(dataset, "ROIContourSequence"):
        name = wanted.get(int(roi.ReferencedROINumber))
        if name is not None:
            yield name, rasterised(_polygons(roi), grid)


def _polygons(roi: Dataset) -> Iterator[NDArray[np.float64]]:
    """Closed contours (N, 3), RAS+ mm."""
    for contour in several(roi, "ContourSequence"):
        kind = text(contour, "ContourGeometricType")
        if kind not in _CONTOURS:
            if kind == "POINT":
                continue
            raise Unfit(Reason.MASK_OPEN, f"a contour of type {kind or 'none'}")
        points = np.array([float(value) for value in contour.ContourData]).reshape(-1, 3)
        if len(points) >= 3:
            yield points * _LPS


def rasterised(polygons: Iterator[NDArray[np.float64]], grid: Grid) -> Mask:
    """Voxels whose middle lies inside an odd number of a slice's contours: holes stay holes.

    The contours lie in planes of the grid, along whichever of its axes.
    Raises Unfit for contours that lie in none, or between two slices.
    """
    to_voxels = np.linalg.inv(grid.affine)
    mask = np.zeros(grid.shape, np.uint8)
    for polygon in polygons:
        points = polygon @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        axis = int(np.ptp(points, axis=0).argmin())
        height = float(points[:, axis].mean())
        if np.ptp(points[:, axis]) > 2 * _OFF_SLICE:
            raise Unfit(Reason.MASK_OPEN, "a contour lies in no plane of the image")
        slice_ = round(height)
        if not 0 <= slice_ < grid.shape[axis]:
            continue
        plane = np.moveaxis(mask, axis, 0)[slice_]  # a view: what is drawn stays
        plane ^= _filled(np.delete(points, axis, axis=1), plane.shape)
    return mask


def _filled(polygon: NDArray[np.float64], shape: tuple[int, ...]) -> Mask:
    """Even-odd rule, scan line by scan line: 1 where the pixel's middle is inside."""
    inside = np.zeros(shape, np.uint8)
    x, y = polygon[:, 0], polygon[:, 1]
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    first, last = max(0, int(np.ceil(y.min()))), min(shape[1] - 1, int(np.floor(y.max())))
    for line in range(first, last + 1):
        level = line + _TOUCHING  # a corner on the line would count twice, or not at all
        crosses = (y <= level) != (next_y <= level)
        share = (level - y[crosses]) / (next_y[crosses] - y[crosses])
        at = np.sort(x[crosses] + share * (next_x[crosses] - x[crosses]))
        for left, right in zip(at[::2], at[1::2], strict=False):
            inside[max(0, int(np.ceil(left))) : max(0, int(np.floor(right)) + 1), line] ^= 1
    return inside


def _segments(path: Path, grid: Grid, rules: Rules) -> Iterator[tuple[str, Mask]]:
    import highdicom

    segmentation: Any = highdicom.seg.segread(path)
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    for number in segmentation.segment_numbers:
        described = segmentation.get_segment_description(number)
        name = rules.mask(described.segment_label)
        if name is None:
            continue
        volume = segmentation.get_volume(segment_numbers=[number])
        mask = np.asarray(volume.array)[..., 0] > 0
        yield name, _resampled(mask, to_ras @ volume.affine, grid)


def _resampled(mask: NDArray[np.bool_], affine: Affine, grid: Grid) -> Mask:
    """Nearest neighbour on the image's grid, 0 outside."""
    matrix = np.linalg.inv(affine) @ grid.affine
    found: Mask = ndimage.affine_transform(
        mask.astype(np.uint8), matrix[:3, :3], matrix[:3, 3], grid.shape, order=0,
        mode="grid-constant", cval=0,
    )  # fmt: skip
    return found
