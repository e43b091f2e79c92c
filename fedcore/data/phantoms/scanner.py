"""What a scanner makes of a head: blur, shading, noise, gain, contrast, and stored voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedcore.data.phantoms.disease import Device
from fedcore.data.phantoms.fields import FloatArray, smooth

_FWHM_PER_SIGMA = 2.3548
_WHITE = 100.0
SUV_STEP = 0.005
"""What one stored unit of a PET scan stands for."""


@dataclass(frozen=True)
class Scanner(Device):
    """The signature of one scanner room (its MR, CT and PET together).

    ``blur_mm``: FWHM in plane. ``slice_mm``: FWHM along z. ``noise``: 1 is a good day (3 % of
    white matter on MR, 3.5 HU, 4 % of SUV). ``shading``: sigma of the MR bias field's logarithm.
    ``gain``, ``gamma``: MR intensities become gain · 100 · (intensity / 100) ** gamma.
    ``suv_scale``: error of the PET calibration. ``agent``: whether the room gives the contrast
    agent that T1 is meant to be made with.
    """

    blur_mm: float = 3.0
    slice_mm: float = 3.0
    noise: float = 1.0
    shading: float = 0.1
    gain: float = 3.0
    gamma: float = 1.0
    suv_scale: float = 1.0
    agent: bool = True


def acquired(
    image: FloatArray, modality: str, scanner: Scanner, voxel_mm: float, rng: np.random.Generator
) -> FloatArray:
    """The scan (X, Y, Z) of an ideal ``image``: MR in the scanner's unit, CT in HU, PET in SUV."""
    # PET resolves about 5 mm whoever made it.
    widths = np.hypot([scanner.blur_mm] * 2 + [scanner.slice_mm], 5.0 if modality == "pet" else 0.0)
    image = ndimage.gaussian_filter(image, widths / _FWHM_PER_SIGMA / voxel_mm, mode="nearest")
    if modality not in ("ct", "pet"):
        return _magnetic_resonance(image, scanner, rng)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(scanner.noise)
    if modality == "ct":
        density: FloatArray = np.clip(image + 3.5 * noise, -1024.0, 3071.0)
        return density
    # Counting noise: its variance grows with the activity.
    counted = image + 0.1 * np.sqrt(np.abs(image)) * noise
    uptake: FloatArray = np.maximum(np.float32(scanner.suv_scale) * counted, 0.0)
    return uptake


Voxel = TypeVar("Voxel", bound=np.integer[Any])


def stored(
    image: NDArray[Voxel], affine: NDArray[np.float64], scanner: Device
) -> tuple[NDArray[Voxel], NDArray[np.float64]]:
    """Voxels and affine as the scanner writes them, from RAS+: its slices, its axis directions."""
    image = image[:, :, :: scanner.slice_step]
    to_given = np.diag([1.0, 1.0, scanner.slice_step, 1.0])
    for axis, (direction, positive) in enumerate(zip(scanner.orientation, "RAS", strict=True)):
        if direction != positive:
            image = np.flip(image, axis)
            to_given[axis, 3] = to_given[axis, axis] * (image.shape[axis] - 1)
            to_given[axis, axis] *= -1
    return image, affine @ to_given


def _magnetic_resonance(
    image: FloatArray, scanner: Scanner, rng: np.random.Generator
) -> FloatArray:
    """Shading by the coil, contrast, Rician noise (Gudbjartsson and Patz 1995), gain."""
    shading = np.exp(np.float32(scanner.shading) * smooth(rng, image.shape, 4))
    image = np.maximum(image, 0.0) * shading
    image = _WHITE * (image / _WHITE) ** np.float32(scanner.gamma)
    sigma = np.float32(0.03 * _WHITE * scanner.noise)
    real = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(image.shape, dtype=np.float32)
    signal: FloatArray = np.float32(scanner.gain) * np.hypot(real, imaginary)
    return signal
