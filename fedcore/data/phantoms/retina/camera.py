"""The room where eyes are looked at: a fundus camera and an OCT device, and their signatures."""

from __future__ import annotations

from dataclasses import dataclass

from fedcore.data.phantoms.disease import Device


@dataclass(frozen=True)
class Camera(Device):
    """``pixels``: edge of the photo. ``field``: share of it that the disc of light fills.

    ``tint``: gain of red, green, blue. ``vignette``: how much darker its edge is. ``blur``: pixels.
    ``noise``: deviation of a grey value of 255. ``oct_gain``, ``oct_offset``: brightness becomes
    gain · b + offset. ``speckle``: deviation of the log of what is reflected; more averaging, less.
    ``oct_blur``: voxels in depth. ``jitter_mm``: how far the eye moves from one B-scan to the next.
    """

    pixels: int = 320
    field: float = 0.94
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    vignette: float = 0.3
    blur: float = 0.7
    noise: float = 4.0
    oct_gain: float = 1.0
    oct_offset: float = 0.0
    speckle: float = 0.3
    oct_blur: float = 0.6
    jitter_mm: float = 0.008
