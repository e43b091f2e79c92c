"""Healthy tissue → intensities: what each modality makes of the same head.

As in SynthSeg (Billot et al. 2023, https://doi.org/10.1016/j.media.2023.102789) every tissue draws
its mean anew for each subject and modality, here from ranges that a radiologist would accept.
Units: CT in Hounsfield units, PET in SUV (g/mL), MR relative to white matter on T1 at about 100.
The MR sequences suppress fat, so the scalp is dark.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedcore.data.phantoms.brain.anatomy import Anatomy
from fedcore.data.phantoms.fields import FloatArray, shown

MODALITIES = ("t1ce", "flair", "ct", "pet")
MR = frozenset({"t1ce", "flair"})

Range = tuple[float, float]

RANGES: Mapping[str, Mapping[str, Range]] = {
    "t1ce": {"air": (0, 1), "csf": (15, 28), "grey": (58, 70), "white": (86, 98),
             "skull": (14, 30), "scalp": (30, 50), "vessel": (115, 140)},
    "flair": {"air": (0, 1), "csf": (8, 20), "grey": (80, 92), "white": (62, 72),
              "skull": (14, 28), "scalp": (30, 50), "vessel": (20, 40)},
    "ct": {"air": (-1000, -1000), "csf": (4, 12), "grey": (36, 41), "white": (27, 31),
           "skull": (750, 1150), "scalp": (-30, 30), "vessel": (46, 54)},
    "pet": {"air": (0, 0), "csf": (0.8, 1.4), "grey": (6.2, 7.8), "white": (2.1, 2.9),
            "skull": (0.7, 1.2), "scalp": (0.8, 1.4), "vessel": (1.4, 2.0)},
}  # fmt: skip
"""Modality → tissue → range of the tissue's mean over subjects."""

NATIVE: Mapping[str, Range] = {"vessel": (20, 40)}
"""What T1 shows otherwise without a contrast agent: blood that flows is dark."""

TEXTURE: Mapping[str, float] = {"t1ce": 2.0, "flair": 2.5, "ct": 1.5, "pet": 0.35}
"""Standard deviation within a tissue, in the modality's unit."""


def tissues(head: Anatomy, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Fraction of each voxel (X, Y, Z) that is air, CSF, …: they add up to 1."""
    skull_mm, scalp_mm = rng.uniform(6.0, 9.0), rng.uniform(4.0, 7.0)
    inside = [
        np.clip((edge - head.depth) / head.voxel_mm + 0.5, 0.0, 1.0)
        for edge in (1.0, 1.0 + skull_mm, 1.0 + skull_mm + scalp_mm)
    ]
    vessel = _sagittal_sinus(head) * (1.0 - head.grey - head.white)
    grey, white = head.grey * inside[0], head.white * inside[0]
    return {
        "air": 1.0 - inside[2],
        "scalp": inside[2] - inside[1],
        "skull": inside[1] - inside[0],
        "vessel": vessel * inside[0],
        "grey": grey,
        "white": white,
        "csf": np.clip(inside[0] * (1.0 - vessel) - grey - white, 0.0, 1.0),
    }


def rendered(
    fractions: Mapping[str, FloatArray], modality: str, rng: np.random.Generator,
    *, agent: bool = True,
) -> FloatArray:  # fmt: skip
    """The healthy head (X, Y, Z) as ``modality`` would show it without scanner or noise.

    ``agent``: whether T1 was made with contrast agent.
    """
    otherwise = {} if agent or modality != "t1ce" else NATIVE
    return shown(fractions, {**RANGES[modality], **otherwise}, TEXTURE[modality], rng)


def _sagittal_sinus(head: Anatomy) -> FloatArray:
    """The superior sagittal sinus: under the vault, in the midline."""
    x, _, z = head.axes_mm()
    width: FloatArray = np.clip((5.0 - np.abs(x)) / head.voxel_mm + 0.5, 0.0, 1.0)
    under = np.clip((head.depth + 7.0) / head.voxel_mm, 0.0, 1.0)
    return np.where(z > 0.0, width * under, np.float32(0.0))
