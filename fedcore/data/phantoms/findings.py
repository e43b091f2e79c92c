"""What is found in a body: painted over healthy tissue, for some modalities to see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedcore.data.phantoms.fields import FloatArray, smooth

Point = tuple[float, float, float]


class Body(Protocol):
    """An anatomy on a grid of cubic voxels."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(X, Y, Z)."""

    @property
    def voxel_mm(self) -> float:
        """The edge of a voxel."""

    def axes_mm(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Coordinates along x, y and z, shaped to broadcast over (X, Y, Z)."""


@dataclass(frozen=True)
class Finding:
    """Something painted over healthy tissue.

    ``mask``: fraction of each voxel (X, Y, Z). ``looks``: modality → intensity; a modality that is
    not named does not show the finding. ``label``: its value in the label volume.
    """

    mask: FloatArray
    looks: Mapping[str, float]
    label: int = 0


def painted(image: FloatArray, findings: list[Finding], modality: str) -> FloatArray:
    """``image`` with those findings that ``modality`` shows."""
    for finding in findings:
        if modality in finding.looks:
            image = image + finding.mask * (np.float32(finding.looks[modality]) - image)
    return image


def happens(rng: np.random.Generator, chance: float) -> bool:
    """Whether a sign is there."""
    return bool(rng.random() < chance)


def somewhere(allowed: np.ndarray, body: Body, rng: np.random.Generator) -> Point:
    """The place (mm) of one of the allowed voxels."""
    voxel = np.unravel_index(rng.choice(np.flatnonzero(allowed)), allowed.shape)
    x, y, z = (axis.ravel()[i] for axis, i in zip(body.axes_mm(), voxel, strict=True))
    return float(x), float(y), float(z)


def distance(
    body: Body, centre: Point, radius_mm: float, unevenness: float, rng: np.random.Generator
) -> FloatArray:
    """Millimetres to the surface of an uneven ball (X, Y, Z), negative inside."""
    x, y, z = (axis - at for axis, at in zip(body.axes_mm(), centre, strict=True))
    uneven = np.clip(1.0 + unevenness * smooth(rng, body.shape, 14), 0.4, 1.8)
    found: FloatArray = np.sqrt(x**2 + y**2 + z**2) - np.float32(radius_mm) * uneven
    return found


def inside(edge: FloatArray, body: Body) -> FloatArray:
    """Fraction of each voxel within a surface, given the distance to it."""
    fraction: FloatArray = np.clip(0.5 - edge / body.voxel_mm, 0.0, 1.0)
    return fraction
