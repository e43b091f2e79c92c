"""An OCT volume of the macula: layers as a device of low coherence shows them, with speckle.

Arrays (X, Y, Z) in RAS+: X to the patient's right, Y forward to the vitreous, Z up. Thicknesses as
in Chan et al. 2006, https://doi.org/10.1001/archopht.124.2.193, to some 10 µm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedcore.data.phantoms.fields import FloatArray, smooth
from fedcore.data.phantoms.retina.camera import Camera
from fedcore.data.phantoms.retina.signs import Eye, Spot

SHAPE, EDGES_MM = (64, 110, 20), (0.094, 0.016, 0.3)
"""6 mm across and up, 1.76 mm deep."""

_VITREOUS, _CHOROID = 22.0, 125.0
# From the vitreous down: name, thickness (mm) away from the fovea, brightness.
_LAYERS = (
    ("fibres", 0.030, 175.0), ("ganglia", 0.080, 118.0), ("inner nuclei", 0.036, 82.0),
    ("outer plexus", 0.030, 122.0), ("outer nuclei", 0.075, 66.0), ("ellipsoids", 0.022, 185.0),
    ("segments", 0.026, 108.0), ("pigment", 0.028, 215.0),
)  # fmt: skip
_INNER = ("fibres", "ganglia", "inner nuclei", "outer plexus")  # the fovea has none of them


def affine() -> NDArray[np.float64]:
    """(4, 4), voxel → millimetres, the fovea in the middle of X and Z."""
    matrix = np.diag([*EDGES_MM, 1.0])
    matrix[:3, 3] = [-edge * (size - 1) / 2 for edge, size in zip(EDGES_MM, SHAPE, strict=True)]
    return matrix


def volume(eye: Eye, camera: Camera, rng: np.random.Generator) -> FloatArray:
    """Brightness (X, Y, Z) in the device's own unit."""
    width, depth, height = SHAPE
    right = (np.arange(width) - (width - 1) / 2) * EDGES_MM[0]
    # The nose is at a right eye's left side, seen by the patient.
    x = (right if eye.left else -right)[:, None]
    y = ((np.arange(height) - (height - 1) / 2) * EDGES_MM[2])[None, :]
    thick = _thicknesses(eye, x, y, rng)
    floor = _floor(x, y, camera, rng)  # depth (mm) of the lower side of the pigment layer
    below = ((depth - 1 - np.arange(depth)) * EDGES_MM[1])[None, :, None]
    away = floor[:, None, :] - below  # above that side, in mm
    image = _stacked(thick, away, eye, x, y, rng)
    image = _holes(image, thick, away, eye, x, y)
    lost = _shadow(eye, x, y)[:, None, :]
    image = np.where(away < 0.03, image * lost, image)
    return _seen(image, camera, rng)


def _thicknesses(
    eye: Eye, x: FloatArray, y: FloatArray, rng: np.random.Generator
) -> dict[str, FloatArray]:
    """Layer → mm, (X, Z): thinned in the pit, by lost fibres, thickened by oedema."""
    away = np.hypot(x, y)
    pit = 1.0 - np.exp(-((away / rng.uniform(0.5, 0.65)) ** 2))
    ring = np.exp(-(((away - 1.1) / 0.8) ** 2))
    made = {}
    for name, mean, _ in _LAYERS:
        layer = mean * rng.normal(1.0, 0.06) * np.ones_like(away)
        if name in _INNER:
            layer = layer * pit
        if name == "ganglia":
            layer = layer * (0.7 + 0.6 * ring)
        if name == "fibres":
            layer = layer * (1.0 + 0.35 * np.clip(x, -1.5, 3.0))
        if name in ("fibres", "ganglia"):
            upper, lower = eye.rim
            kept = (
                np.where(y > 0, upper, lower) * (1 - np.exp(-((y / 0.4) ** 2)))
                + np.exp(-((y / 0.4) ** 2)) * (upper + lower) / 2
            )
            layer = layer * kept
        if name == "outer nuclei":
            layer = layer + 0.035 * np.exp(-((away / 0.4) ** 2))
            layer = layer + eye.swelling * np.exp(-((away / 1.3) ** 2))
        made[name] = layer.astype(np.float32)
    made["ellipsoids"] = made["ellipsoids"] * (1 - 0.9 * _cover(eye.atrophy, x, y))
    made["pigment"] = made["pigment"] * (1 - 0.7 * _cover(eye.atrophy, x, y))
    return made


def _floor(x: FloatArray, y: FloatArray, camera: Camera, rng: np.random.Generator) -> FloatArray:
    """The eye is round, the head tilted, and it moves between two B-scans."""
    tilt = rng.normal(0.0, 0.03, 2)
    middle = rng.uniform(0.95, 1.25)
    steps = camera.jitter_mm * rng.standard_normal((1, y.shape[1]))
    floor: FloatArray = middle + tilt[0] * x + tilt[1] * y - 0.012 * (x**2 + y**2) + steps
    return floor


def _stacked(
    thick: dict[str, FloatArray], away: FloatArray, eye: Eye, x: FloatArray, y: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:  # fmt: skip
    """Layers upon each other from below; drusen and fluid lift what is above them."""
    drusen, fluid = _domes(eye.drusen, x, y, 0.45), _domes(eye.fluid, x, y, 0.25)
    image = np.where(away < 0, _CHOROID * np.exp(np.minimum(away, 0) / 0.35), _VITREOUS)
    image = image * (1 + 0.25 * (away < 0) * smooth(rng, SHAPE, 16))
    image = _laid(image, away, np.zeros_like(drusen), drusen, 120.0)
    bottom = drusen
    for number, (name, _, brightness) in enumerate(reversed(_LAYERS)):
        level = brightness * rng.normal(1.0, 0.05)
        image = _laid(image, away, bottom, thick[name], level)
        bottom = bottom + thick[name]
        if number == 0:  # under the retina, on the pigment
            image = _laid(image, away, bottom, fluid, 28.0)
            bottom = bottom + fluid
    if eye.membrane:
        image = _laid(image, away, bottom, np.full_like(bottom, 0.02), 200.0)
    return image


def _laid(
    image: FloatArray, away: FloatArray, bottom: FloatArray, thickness: FloatArray, level: float
) -> FloatArray:
    """``level`` from ``bottom`` up, by the share of each voxel in depth."""
    edge = EDGES_MM[1]
    low, top = bottom[:, None, :], (bottom + thickness)[:, None, :]
    share = np.clip((away - low) / edge + 0.5, 0, 1) - np.clip((away - top) / edge + 0.5, 0, 1)
    laid: FloatArray = (image + share * (level - image)).astype(np.float32)
    return laid


def _holes(
    image: FloatArray, thick: dict[str, FloatArray], away: FloatArray, eye: Eye,
    x: FloatArray, y: FloatArray,
) -> FloatArray:  # fmt: skip
    """Cysts are dark, exudates bright, both in the nuclear and plexiform layers."""
    under = thick["pigment"] + thick["segments"] + thick["ellipsoids"]
    middle = (under + 0.5 * thick["outer nuclei"])[:, None, :]
    height = np.maximum(thick["outer nuclei"], 0.04)[:, None, :]
    for spots, level, tall in ((eye.cysts, 24.0, 0.45), (eye.exudates, 225.0, 0.2)):
        for a, b, radius in spots:
            flat = ((x - a) ** 2 + (y - b) ** 2)[:, None, :] / radius**2
            r = np.sqrt(flat + ((away - middle) / (tall * height)) ** 2)
            image = image + np.clip((1.0 - r) / 0.2, 0, 1) * (level - image)
    return image


def _shadow(eye: Eye, x: FloatArray, y: FloatArray) -> FloatArray:
    """(X, Z): how much light passes blood and hard exudates; atrophy lets more through."""
    blocked = np.maximum(_cover(eye.bleedings, x, y), 0.6 * _cover(eye.exudates, x, y))
    passed: FloatArray = (1 - 0.6 * blocked) * (1 + 0.6 * _cover(eye.atrophy, x, y))
    return passed


def _cover(spots: Sequence[Spot], x: FloatArray, y: FloatArray) -> FloatArray:
    """(X, Z): 1 in a spot, soft at its edge."""
    covered = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for a, b, radius in spots:
        share = np.clip((radius - np.hypot(x - a, y - b)) / 0.1 + 0.5, 0, 1)
        covered = np.maximum(covered, share.astype(np.float32))
    return covered


def _domes(spots: Sequence[Spot], x: FloatArray, y: FloatArray, steep: float) -> FloatArray:
    """(X, Z), mm: heights of domes, ``steep`` times their radius."""
    lifted = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for a, b, radius in spots:
        inside = np.clip(1 - ((x - a) ** 2 + (y - b) ** 2) / (radius + 0.05) ** 2, 0, 1)
        lifted = np.maximum(lifted, (steep * radius * np.sqrt(inside)).astype(np.float32))
    return lifted


def _seen(image: FloatArray, camera: Camera, rng: np.random.Generator) -> FloatArray:
    """Blur in depth, speckle (multiplied, so added to a logarithm), gain and offset."""
    blurred = ndimage.gaussian_filter(image, (0.4, camera.oct_blur, 0.0))
    grain = rng.standard_normal(SHAPE, dtype=np.float32) * np.float32(camera.speckle)
    bright = np.clip(blurred * np.exp(grain - camera.speckle**2 / 2), 0.0, 300.0)
    device: FloatArray = (camera.oct_gain * bright + camera.oct_offset).astype(np.float32)
    return device
