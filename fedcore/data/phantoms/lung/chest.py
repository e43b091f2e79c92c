"""One chest on the PET/CT: healthy tissue, what is found in it, and what each modality shows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedcore.data.phantoms.cohort import Person, SiteSpec
from fedcore.data.phantoms.fields import FloatArray, shown
from fedcore.data.phantoms.findings import painted
from fedcore.data.phantoms.lung import lesions
from fedcore.data.phantoms.lung.anatomy import Thorax, thorax
from fedcore.data.phantoms.scanner import acquired
from fedcore.data.phantoms.subject import Phantom, labelled, streams

RANGES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "ct": {"air": (-1000, -1000), "lung": (-880, -800), "airway": (-990, -970), "fat": (-115, -90),
           "muscle": (40, 60), "soft": (-20, 30), "bone": (220, 420), "blood": (35, 50),
           "heart": (38, 52), "liver": (48, 66), "vessel": (30, 50)},
    "pet": {"air": (0, 0), "lung": (0.3, 0.6), "airway": (0.2, 0.4), "fat": (0.2, 0.4),
            "muscle": (0.5, 0.9), "soft": (0.9, 1.4), "bone": (0.9, 1.7), "blood": (1.4, 2.1),
            "heart": (1.4, 2.2), "liver": (1.9, 2.8), "vessel": (1.3, 1.9)},
}  # fmt: skip
"""Modality → tissue → range of the tissue's mean over subjects: HU, SUV of FDG an hour after."""

TEXTURE: Mapping[str, float] = {"ct": 9.0, "pet": 0.12}


def scanned(spec: SiteSpec, person: Person, seed: int) -> Phantom:
    """``person`` on the scanner."""
    stream = streams(spec, person, seed)
    chest = thorax(spec.voxel_mm, person.sex, stream("anatomy"))
    tumour = lesions.tumour(person.diagnosis, chest, stream("tumour"))
    incidental = lesions.incidental(person.diagnosis, person.age, chest, stream("incidental"))
    images = {}
    for modality in person.modalities:
        rng = stream("contrast", modality)
        ideal = shown(chest.tissues, RANGES[modality], TEXTURE[modality], rng)
        ideal = ideal + (_hanging(chest) if modality == "ct" else _heart(chest, rng))
        ideal = painted(ideal, [*incidental, *tumour], modality)
        images[modality] = acquired(
            ideal, modality, person.scanner, spec.voxel_mm, stream("scanner", modality)
        )
    return Phantom(person, images, labelled(tumour, chest.shape), chest.affine)


def _hanging(chest: Thorax) -> FloatArray:
    """HU: the lung is denser where its own weight presses it, at the back of who lies there."""
    _, y, _ = chest.axes_mm()
    denser: FloatArray = chest.tissues["lung"] * np.clip(-0.45 * y, -20.0, 45.0)
    return denser


def _heart(chest: Thorax, rng: np.random.Generator) -> FloatArray:
    """SUV: the wall of the left ventricle burns sugar, or fat, as it likes."""
    x, y, z = chest.axes_mm()
    r = np.sqrt(((x + 34.0) / 30.0) ** 2 + ((y - 20.0) / 27.0) ** 2 + ((z + 44.0) / 34.0) ** 2)
    wall = np.clip(1.0 - np.abs(r - 0.82) / 0.22, 0.0, 1.0)
    uptake: FloatArray = np.float32(rng.uniform(0.0, 8.0)) * wall * chest.tissues["heart"]
    return uptake
