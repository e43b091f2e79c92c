"""Do the slices of a series make one volume? From their headers, before a pixel is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.data import nifti
from fedcore.imports.headers import Frame, Instance
from fedcore.imports.reasons import Reason, Unfit

_ANGLE = 1e-3  # of direction cosines: scanners write six digits
_SAME_PLACE_MM = 0.01
_UNEVEN = 0.05  # of the usual step; oblique positions are rounded
_GAP = 1.5  # usual steps: from here on a slice is missing
_BLOCK = 3  # steps that make a stack of their own, in a head CT that is finer at the base
_TILT_DEGREES = 0.5

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Geometry:
    """``affine`` (4, 4): column, row, slice (by place) → RAS+ mm, exact for even stacks.

    ``even``: whether all steps are equal. ``tilt``: degrees between step and normal; the affine
    holds it as a shear. ``slices``: how many. ``spare``: files that repeat a slice, left out when
    their pixels are equal.
    """

    affine: Array
    slices: int
    even: bool
    tilt: float
    spare: tuple[tuple[Instance, Instance], ...] = ()


def check(instances: Sequence[Instance], min_slices: int) -> Geometry:
    """The geometry of a series. Raises Unfit with the first thing that is wrong with it."""
    placed = [(frame, instance) for instance in instances for frame in instance.frames]
    if not placed or any(not instance.frames for instance in instances):
        raise Unfit(Reason.NO_POSITION, "a slice has no ImagePositionPatient or orientation")
    _check_uniform(instances)
    normal = _normal([frame for frame, _ in placed])
    placed.sort(key=lambda item: float(np.dot(normal, item[0].position)))
    placed, spare = _without_repeats(placed, normal)
    if len(placed) < min_slices:
        raise Unfit(Reason.TOO_FEW, f"{len(placed)} slices; at least {min_slices} make a volume")
    rows, columns = instances[0].size
    if 4 * rows * columns * len(placed) > nifti.MAX_BYTES:
        raise Unfit(Reason.TOO_LARGE, f"{columns} × {rows} × {len(placed)} voxels")
    positions = np.array([frame.position for frame, _ in placed])
    even = _check_steps(positions @ normal)
    tilt = _tilt(positions, normal)
    if not even and tilt:
        raise Unfit(Reason.IRREGULAR, "a tilted stack with uneven steps")
    return Geometry(_affine(placed[0], positions), len(placed), even, tilt, tuple(spare))


def _check_uniform(instances: Sequence[Instance]) -> None:
    first = instances[0]
    if min(first.size) < 1 or not first.spacing:
        raise Unfit(Reason.NO_POSITION, "Rows, Columns or PixelSpacing is missing")
    low, high = nifti.VOXEL_MM
    if not all(low <= edge <= high for edge in first.spacing):
        raise Unfit(Reason.NO_POSITION, f"pixels of {first.spacing} mm; {low} to {high} are real")
    for instance in instances:
        alike = len(instance.spacing) == len(first.spacing) and np.allclose(
            instance.spacing, first.spacing, rtol=1e-3
        )
        if instance.size != first.size or not alike:
            raise Unfit(Reason.MIXED, "matrix or pixel spacing differ between slices")


def _normal(frames: Sequence[Frame]) -> Array:
    """The slices' common normal. Raises Unfit unless all lie parallel, with sound directions."""
    first = np.array(frames[0].orientation)
    row, column = first[:3], first[3:]
    unit = abs(np.linalg.norm(row) - 1) < 0.01 and abs(np.linalg.norm(column) - 1) < 0.01
    if not unit or abs(row @ column) > 0.01:
        raise Unfit(Reason.ORIENTATION, f"directions {first.tolist()} are not two unit vectors at "
                    "right angles")  # fmt: skip
    if any(np.abs(np.array(f.orientation) - first).max() > _ANGLE for f in frames):
        raise Unfit(Reason.MIXED, "slices are not parallel: a localizer, or several stacks")
    normal: Array = np.cross(row, column)
    return normal / np.linalg.norm(normal)


Placed = tuple[Frame, Instance]


def _without_repeats(
    placed: list[Placed], normal: Array
) -> tuple[list[Placed], list[tuple[Instance, Instance]]]:
    """One slice per place. Raises Unfit if places are taken several times over."""
    by_place: dict[int, list[Placed]] = defaultdict(list)
    place, before = -1, -np.inf
    for item in placed:
        distance = float(np.dot(normal, item[0].position))
        if distance - before > _SAME_PLACE_MM:
            place, before = place + 1, distance
        by_place[place].append(item)
    repeated = [items for items in by_place.values() if len(items) > 1]
    if len(repeated) > len(by_place) / 2:
        most = max(map(len, repeated))
        raise Unfit(Reason.VOLUMES, f"{len(placed)} slices at {len(by_place)} places, up to {most} "
                    "at one: echoes, times or directions in one series")  # fmt: skip
    if any(items[0][1] is other[1] for items in repeated for other in items[1:]):
        raise Unfit(Reason.VOLUMES, "frames of one file lie at the same place")
    spare = [(items[0][1], other[1]) for items in repeated for other in items[1:]]
    return [items[0] for items in by_place.values()], spare


def _check_steps(distances: Array) -> bool:
    """Whether all steps are equal. Raises Unfit for gaps, and for steps without any order."""
    steps = np.diff(distances)
    usual = float(np.median(steps))
    off = np.abs(steps - usual) > max(_UNEVEN * usual, _SAME_PLACE_MM * 2)
    if not off.any():
        return True
    changes = np.flatnonzero(np.abs(np.diff(steps)) > max(_UNEVEN * usual, 2 * _SAME_PLACE_MM))
    blocks = np.diff([-1, *changes, len(steps) - 1])
    if blocks.min() >= _BLOCK:
        return False
    wide = steps[off & (steps > _GAP * usual)]
    if wide.size:
        missing = int(sum(round(step / usual) - 1 for step in wide))
        raise Unfit(Reason.MISSING, f"{missing} of {missing + len(distances)} slices are missing: "
                    f"steps of {usual:.2f} mm, and of up to {wide.max():.2f} mm")  # fmt: skip
    raise Unfit(Reason.IRREGULAR, f"steps from {steps.min():.3f} to {steps.max():.3f} mm")


def _tilt(positions: Array, normal: Array) -> float:
    """Degrees between the step from slice to slice and their normal; 0 where there is none."""
    step = positions[-1] - positions[0]
    sideways = float(np.linalg.norm(step - (step @ normal) * normal))
    angle = float(np.degrees(np.arctan2(sideways, step @ normal)))
    return round(angle, 2) if angle > _TILT_DEGREES else 0.0


def _affine(first: Placed, positions: Array) -> Array:
    frame, instance = first
    along_row, along_column = np.array(frame.orientation).reshape(2, 3)
    between_rows, between_columns = instance.spacing
    affine = np.eye(4)
    affine[:3, 0] = along_row * between_columns
    affine[:3, 1] = along_column * between_rows
    affine[:3, 2] = (positions[-1] - positions[0]) / (len(positions) - 1)
    affine[:3, 3] = positions[0]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
