"""Whether an alignment can be right. What cannot be told from figures is left to a human."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedcore.data import registration
from fedcore.data.preprocess import Affine, resample_mask, within
from fedcore.data.registration import Level, Pyramid

MAX_SHIFT_MM, MAX_TURN_DEGREES, MAX_STRETCH = 40.0, 25.0, 0.06
"""More than a head moves between two series, or between CT and MR on two tables; of the axes'
lengths, more than scanners and distortion differ."""

MIN_OVERLAP = 0.7
"""Dice of the two heads, where both images are. One head's was 0.97 and more on all pairs tried."""

MIN_PEAK = 1.4
"""What the mutual information is of what is left 6 mm aside. Of one head 1.5 and more on every pair
of modalities tried; of two people's 1.26 at most, since their outlines fit and nothing within. See
docs/preprocessing.md for what was measured."""

_ASIDE = 2  # voxels of the finest level


def align(fixed: Pyramid, moving: Pyramid, how: str) -> tuple[Affine, dict[str, float]]:
    """The alignment, and its measures. Raises as ``registration.rigid``.

    ``how``: "rigid" or "affine". What fits within is measured before anything is stretched: one
    person's head can be stretched until it is much like another's.
    """
    found = registration.rigid(fixed, moving)
    measured = measures(fixed, moving, found)
    if how == "affine":
        found = registration.affine(fixed, moving, found)
        measured = measures(fixed, moving, found) | {"peak": measured["peak"]}
    return found, measured


def measures(fixed: Pyramid, moving: Pyramid, alignment: Affine) -> dict[str, float]:
    """What there is to see of an alignment.

    ``before`` and ``after``: mutual information (nats) within the reference's head, where both
    images are. ``peak``: ``after``, over its mean with the image 6 mm aside on each of six sides.
    ``overlap``: Dice of the heads. ``shift_mm``: how far the head's surface and inside move, the
    mean; ``turn_degrees``; ``stretch``: the largest change of length, as a share.
    """
    one, other = fixed.levels[-1], moving.levels[-1]
    image, seen = registration.moved(other, one.grid, alignment)
    both = one.head & seen
    after = registration.mutual_information(one.image[both], image[both])
    aside = [
        registration.mutual_information(one.image[both], np.roll(image, side, axis)[both])
        for axis in range(3)
        for side in (-_ASIDE, _ASIDE)
    ]
    lengths = np.linalg.svd(alignment[:3, :3], compute_uv=False)
    found = {
        "before": registration.similarity(one, other, np.eye(4)),
        "after": after,
        "peak": after / max(float(np.mean(aside)), 1e-9),
        "overlap": _overlap(one, other, alignment),
        "shift_mm": _shift(one, alignment),
        "turn_degrees": _turn(alignment),
        "stretch": float(np.abs(lengths - 1).max()),
    }
    return {name: round(value, 4) for name, value in found.items()}


def concerns(measured: Mapping[str, float]) -> list[str]:
    """Why an alignment is doubtful, in words; empty if nothing speaks against it.

    >>> good = {"before": 0.2, "after": 0.4, "peak": 1.9, "overlap": 0.9, "shift_mm": 4.0,
    ...         "turn_degrees": 3.0, "stretch": 0.0}
    >>> concerns(good)
    []
    >>> concerns(good | {"peak": 1.1, "shift_mm": 62.0})
    ['moved by 62 mm, more than 40', 'nothing within fits: 6 mm aside it is as good (peak 1.10)']
    """
    found = []
    if measured["after"] < measured["before"]:
        found.append(
            f"fits less well than before ({measured['after']:.3f}, was {measured['before']:.3f})"
        )
    if measured["shift_mm"] > MAX_SHIFT_MM:
        found.append(f"moved by {measured['shift_mm']:.0f} mm, more than {MAX_SHIFT_MM:g}")
    if measured["turn_degrees"] > MAX_TURN_DEGREES:
        found.append(f"turned by {measured['turn_degrees']:.0f}°, more than {MAX_TURN_DEGREES:g}")
    if measured["stretch"] > MAX_STRETCH:
        found.append(f"stretched by {measured['stretch']:.0%}, more than {MAX_STRETCH:.0%}")
    if measured["overlap"] < MIN_OVERLAP:
        found.append(f"the heads overlap by {measured['overlap']:.2f} (Dice) only")
    if measured["peak"] < MIN_PEAK:
        found.append(f"nothing within fits: 6 mm aside it is as good (peak {measured['peak']:.2f})")
    return found


def _overlap(one: Level, other: Level, alignment: Affine) -> float:
    affine = np.linalg.inv(alignment) @ other.grid.affine
    head = resample_mask(other.head, affine, one.grid)
    both = within(other.image.shape, affine, one.grid) & one.seen
    whole = (head & both).sum() + (one.head & both).sum()
    return float(2 * (head & one.head & both).sum() / whole) if whole else 0.0


def _shift(level: Level, alignment: Affine) -> float:
    points = np.argwhere(level.head) @ level.grid.affine[:3, :3].T + level.grid.affine[:3, 3]
    if not len(points):
        return 0.0
    change = points @ (alignment[:3, :3] - np.eye(3)).T + alignment[:3, 3]
    return float(np.linalg.norm(change, axis=1).mean())


def _turn(alignment: Affine) -> float:
    """Of the nearest rotation, by its trace."""
    left, _, right = np.linalg.svd(alignment[:3, :3])
    cosine = (np.trace(left @ right) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
