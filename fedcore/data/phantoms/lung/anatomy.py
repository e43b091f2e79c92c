"""A thorax out of formulas: ellipses, domes and branching tubes, bent anew for each subject.

Millimetres, RAS+, the origin in the middle of the chest at the height of the hila. Sizes are those
of an adult in an anatomy atlas, to a centimetre; no scan and no template is in it. The arms are up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedcore.data.phantoms.fields import FloatArray, smooth
from fedcore.data.phantoms.findings import Point

EXTENT_MM = np.array([330.0, 230.0, 280.0])
_BODY, _CAVITY = (158.0, 106.0), (126.0, 80.0)  # half axes at the height of the hila
_RIB_EVERY, _RIB_MM, _RIB_SLOPE = 27.0, 11.0, 0.55
_HILUM: tuple[Point, Point] = ((32.0, -8.0, -2.0), (-34.0, -10.0, 2.0))  # right, left
_HEART, _HEART_MM = (-20.0, 22.0, -42.0), (52.0, 44.0, 50.0)


@dataclass(frozen=True)
class Thorax:
    """A chest on a grid of cubic voxels. Arrays (X, Y, Z) are distances in mm, negative inside.

    ``body``: the skin. ``cavity``: the ribs' inner side. ``lung``: the pleura. ``hilum``: how far
    the nearer hilum is, never negative. ``tissues``: the fraction of each voxel that each fills;
    they add up to 1.
    """

    body: FloatArray
    cavity: FloatArray
    lung: FloatArray
    hilum: FloatArray
    tissues: dict[str, FloatArray]
    voxel_mm: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """(X, Y, Z)."""
        width, depth, height = self.body.shape
        return width, depth, height

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel → millimetres, RAS+."""
        matrix = np.diag([self.voxel_mm] * 3 + [1.0])
        matrix[:3, 3] = -self.voxel_mm * (np.array(self.shape) - 1) / 2
        return matrix

    def axes_mm(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Coordinates of the voxels along x, y and z, shaped to broadcast over (X, Y, Z)."""
        return _axes(self.shape, self.voxel_mm)


def thorax(voxel_mm: float, sex: str, rng: np.random.Generator) -> Thorax:
    """One subject's chest: larger, fatter, turned and bent by chance, smaller in women."""
    width, depth, height = (int(n) for n in np.round(EXTENT_MM / voxel_mm))
    shape = (width, depth, height)
    size = rng.normal(0.94 if sex == "F" else 1.0, 0.04)
    fat_mm = rng.uniform(8.0, 26.0)
    at = _Places(shape, voxel_mm, size, rng)
    x, y, z = at.x, at.y, at.z
    narrow = np.sqrt(np.clip(1.0 - (np.maximum(z + 10.0, 0.0) / 165.0) ** 2, 0.2, 1.0))
    cavity = _ellipse(x, y, _CAVITY[0] * narrow, _CAVITY[1] * narrow)
    shoulders = 1.0 + 0.12 * np.clip((z - 50.0) / 80.0, 0.0, 1.0)
    body = _ellipse(x, y, _BODY[0] * shoulders + fat_mm - 17.0, _BODY[1] + fat_mm - 17.0)
    lung = np.maximum(cavity + 3.0, _mediastinum(x, y, z))
    lung = np.maximum(lung, _diaphragm(x, y, z, rng))
    part = _Parts(voxel_mm)
    parts: list[tuple[str, FloatArray]] = [
        ("fat", part.inside(body + 2.0)),
        ("muscle", part.inside(np.maximum(body + fat_mm, cavity - 26.0))),
        ("bone", part.inside(_skeleton(x, y, z, cavity))),
        ("soft", part.inside(cavity)),
        ("liver", part.inside(np.maximum(cavity + 5.0, _under(x, y, z, lung)))),
        ("lung", part.inside(lung)),
        ("blood", part.inside(_great_vessels(x, y, z))),
        ("heart", part.inside(_ball(x, y, z, _HEART, _HEART_MM))),
        ("bone", part.inside(_spine(x, y, z))),
    ]
    trees = [_tree(at, hilum, rng) for hilum in _HILUM]
    vessels = np.maximum.reduce([tree for tree, _ in trees])
    airways = np.maximum.reduce([_trachea(at), *(airway for _, airway in trees)])
    parts += [("vessel", vessels * part.inside(lung - 4.0)), ("airway", airways)]
    hilum = np.minimum.reduce([
        np.sqrt((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) for a, b, c in _HILUM
    ]).astype(np.float32)  # fmt: skip
    return Thorax(body, cavity, lung, hilum, _stacked(parts, part.inside(body)), voxel_mm)


class _Places:
    """Where each voxel is in the unbent chest: x, y, z in mm, (X, Y, Z)."""

    def __init__(
        self, shape: tuple[int, int, int], voxel_mm: float, size: float, rng: np.random.Generator
    ) -> None:
        self.shape, self.voxel_mm = shape, voxel_mm
        shift = rng.normal(0.0, (4.0, 4.0, 7.0))
        scale = size * rng.normal(1.0, 0.03, 3)
        self.x, self.y, self.z = (
            ((axis - moved) / by + 3.5 * smooth(rng, shape, 5)).astype(np.float32)
            for axis, moved, by in zip(_axes(shape, voxel_mm), shift, scale, strict=True)
        )


class _Parts:
    """Fractions of voxels out of distances."""

    def __init__(self, voxel_mm: float) -> None:
        self.voxel_mm = voxel_mm

    def inside(self, edge: FloatArray) -> FloatArray:
        fraction: FloatArray = np.clip(0.5 - edge / self.voxel_mm, 0.0, 1.0).astype(np.float32)
        return fraction


def _stacked(
    parts: list[tuple[str, FloatArray]], body: FloatArray
) -> dict[str, FloatArray]:  # fmt: skip
    """Each part laid over those before it; "soft" is the skin."""
    found: dict[str, FloatArray] = {"air": 1.0 - body, "soft": body}
    for name, fraction in parts:
        found = {known: array * (1.0 - fraction) for known, array in found.items()}
        found[name] = found.get(name, np.float32(0.0)) + fraction
    return found


def _axes(
    shape: tuple[int, int, int], voxel_mm: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    x, y, z = ((voxel_mm * (np.arange(size) - (size - 1) / 2)).astype(np.float32) for size in shape)
    return x[:, None, None], y[None, :, None], z[None, None, :]


def _ellipse(
    x: FloatArray, y: FloatArray, a: FloatArray | float, b: FloatArray | float
) -> FloatArray:
    """Distance to a cylinder along z, a little squarer than an ellipse."""
    r = (np.abs(x / a) ** 2.4 + np.abs(y / b) ** 2.4) ** (1 / 2.4)
    edge: FloatArray = ((r - 1.0) * np.minimum(a, b)).astype(np.float32)
    return edge


def _ball(x: FloatArray, y: FloatArray, z: FloatArray, at: Point, radii: Point) -> FloatArray:
    r = np.sqrt(sum(((v - c) / a) ** 2 for v, c, a in zip((x, y, z), at, radii, strict=True)))
    edge: FloatArray = ((r - 1.0) * min(radii)).astype(np.float32)
    return edge


def _mediastinum(x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
    """Distance outside of the lungs, towards the middle: the heart bulges to the left."""
    waist = 24.0 + 6.0 * np.abs(z - 30.0) / 60.0
    slab = waist + 10.0 * np.clip(-y / 60.0, 0.0, 1.0) - np.abs(x + 2.0)
    heart = -_ball(x, y, z, _HEART, tuple(r + 4.0 for r in _HEART_MM))  # type: ignore[arg-type]
    back = -_spine(x, y, z) - 2.0
    edge: FloatArray = np.maximum.reduce([slab, heart, back]).astype(np.float32)
    return edge


def _dome(x: FloatArray, y: FloatArray, rng: np.random.Generator | None) -> FloatArray:
    """Height of the diaphragm (mm), the right dome above the left one."""
    breath = 0.0 if rng is None else rng.uniform(-8.0, 10.0)
    right = -62.0 - 34.0 * (((x - 62.0) / 62.0) ** 2 + ((y - 5.0) / 72.0) ** 2)
    left = -72.0 - 34.0 * (((x + 66.0) / 60.0) ** 2 + ((y - 5.0) / 72.0) ** 2)
    top: FloatArray = (np.maximum(right, left) + breath).astype(np.float32)
    return top


def _diaphragm(
    x: FloatArray, y: FloatArray, z: FloatArray, rng: np.random.Generator
) -> FloatArray:  # fmt: skip
    edge: FloatArray = _dome(x, y, rng) - z
    return edge


def _under(x: FloatArray, y: FloatArray, z: FloatArray, lung: FloatArray) -> FloatArray:
    """Under the right dome, and thinning out to the left."""
    edge: FloatArray = np.maximum.reduce([
        z - _dome(x, y, None) - 12.0, -lung - 2.0, -(x + 30.0), -(y + 62.0)
    ]).astype(np.float32)  # fmt: skip
    return edge


def _skeleton(x: FloatArray, y: FloatArray, z: FloatArray, cavity: FloatArray) -> FloatArray:
    """Ribs, which fall towards the front, the sternum and the shoulder blades."""
    along = (z + _RIB_SLOPE * y + 400.0) % _RIB_EVERY
    band = np.abs(along - _RIB_EVERY / 2) - _RIB_MM / 2
    ribs = np.maximum.reduce([band, np.abs(cavity - 5.0) - 4.0, 20.0 - np.abs(x)])
    sternum = np.maximum.reduce([np.abs(x) - 17.0, np.abs(cavity - 5.0) - 6.0, 50.0 - y])
    blades = np.maximum.reduce([
        np.abs(np.abs(x) - 84.0 - 0.2 * (y + 80.0)) - 34.0, np.abs(cavity - 19.0) - 3.5, y + 40.0,
        10.0 - z,
    ])  # fmt: skip
    edge: FloatArray = np.minimum.reduce([ribs, sternum, blades]).astype(np.float32)
    return edge


def _spine(x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
    """Bodies with discs between them, the canal, an arch and a spinous process."""
    disc = 2.5 * (np.abs((z % 24.0) - 12.0) > 9.5)
    bodies = np.hypot(x / 1.15, y + 62.0) - 17.0 + disc
    arch = np.abs(np.hypot(x, y + 86.0) - 11.0) - 3.5
    process = np.maximum(np.abs(x) - 4.0, np.abs(y + 104.0) - 11.0)
    edge: FloatArray = np.minimum.reduce([bodies, arch, process]).astype(np.float32)
    return edge


def _great_vessels(x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
    """Ascending and descending aorta with the arch between them, the superior vena cava."""
    up = np.maximum(np.hypot(x - 10.0, y - 14.0) - 15.0, np.abs(z - 10.0) - 34.0)
    down = np.maximum(np.hypot(x + 22.0, y + 44.0) - 12.5, z - 42.0)
    turn = (y - 14.0 - (x - 10.0) * 1.8) / np.hypot(1.0, 1.8)
    arch = np.maximum.reduce([
        np.hypot(turn, z - 42.0) - 13.0, np.abs(x + 6.0) - 22.0, np.abs(y + 15.0) - 42.0
    ])  # fmt: skip
    cava = np.maximum(np.hypot(x - 32.0, y - 6.0) - 10.0, -(z - 5.0))
    edge: FloatArray = np.minimum.reduce([up, down, arch, cava]).astype(np.float32)
    return edge


def _trachea(at: _Places) -> FloatArray:
    """Down to the carina, and a main bronchus to each hilum."""
    lines = [((0.0, -12.0, 150.0), (0.0, -16.0, 22.0), 8.5)]
    lines += [((0.0, -16.0, 22.0), hilum, 6.0) for hilum in _HILUM]
    return _tubes(at, lines)


def _tree(at: _Places, hilum: Point, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """A lung's vessels, forking from the hilum outwards, and the first of its airways."""
    side = np.sign(hilum[0])
    tips = [
        (np.array(hilum), np.array(way) / np.linalg.norm(way))
        for way in ((side, 0.3, 0.9), (side, -0.5, 0.3), (side, 0.6, -0.3), (side, -0.6, -0.9),
                    (side, 0.0, 0.1))
    ]  # fmt: skip
    vessels: list[tuple[Point, Point, float]] = []
    airways: list[tuple[Point, Point, float]] = []
    radius, length = 5.0, 27.0
    for generation in range(6):
        forked = []
        for start, way in tips:
            end = start + rng.uniform(0.7, 1.2) * length * way
            vessels.append((_point(start), _point(end), radius))
            if generation < 2:
                airways.append((_point(start + 7.0), _point(end + 7.0), 0.62 * radius))
            for _ in range(2):
                turned = way + rng.normal(0.0, 0.5, 3)
                forked.append((end, turned / np.linalg.norm(turned)))
        tips, radius, length = forked, 0.72 * radius, 0.84 * length
    return _tubes(at, vessels), _tubes(at, airways)


def _point(place: NDArray[np.float64]) -> Point:
    x, y, z = map(float, place)
    return x, y, z


def _tubes(at: _Places, lines: list[tuple[Point, Point, float]]) -> FloatArray:
    """How much of each voxel lies in a tube (start, end, radius in mm): thin ones fill little."""
    found = np.zeros(at.shape, np.float32)
    for radius in sorted({line[2] for line in lines}):
        seen = np.ones(at.shape, bool)
        for start, end, _ in (line for line in lines if line[2] == radius):
            steps = max(2, int(2 * np.linalg.norm(np.subtract(end, start)) / at.voxel_mm))
            points = np.linspace(start, end, steps)
            index = np.round(points / at.voxel_mm + (np.array(at.shape) - 1) / 2).astype(int)
            index = index[((index >= 0) & (index < at.shape)).all(axis=1)]
            seen[tuple(index.T)] = False
        if seen.all():
            continue
        edge = ndimage.distance_transform_edt(seen, at.voxel_mm) - radius
        thin = min(1.0, np.pi * radius**2 / at.voxel_mm**2)
        found = np.maximum(found, thin * np.clip(0.5 - edge / at.voxel_mm, 0.0, 1.0))
    return found.astype(np.float32)
