"""Federations that differ in one thing at a time, and in all at once.

Four hospitals of equal size in each, so that a setting differs from the next in what it is named
after and in nothing else. The scans are drawn once a setting; seeds vary the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fedcore.data.phantoms.brain import BRAIN
from fedcore.data.phantoms.cohort import SiteSpec, demo_federation
from fedcore.data.phantoms.disease import Disease, Hospital
from fedcore.data.phantoms.scanner import Scanner

ALIKE, SKEWED = 1000.0, 0.4
"""Of the Dirichlet that draws the classes of each site."""

SIZE = 64
"""Subjects of a hospital."""

_NAMES = ("north", "east", "south", "west")
_ONE_ROOM = (Scanner("Borealis 3T", blur_mm=2.5),)
_ROOMS = tuple(
    (scanner,)
    for scanner in (
        Scanner("Borealis 3T", blur_mm=2.5, gamma=0.7, shading=0.05),
        Scanner("Orient 1.5T", blur_mm=5.0, slice_mm=6.0, noise=2.0, gamma=1.0, shading=0.2),
        Scanner("Austral 3T", blur_mm=2.5, gamma=1.5, shading=0.3, suv_scale=0.85),
        Scanner("Zephyr 1.5T", blur_mm=4.0, slice_mm=6.0, noise=2.5, gamma=1.2, suv_scale=1.15,
                slice_step=2),
    )
)  # fmt: skip
_EVERYTHING = ((), (), (), ())
_LACKING = (("ct",), ("pet",), ("pet", "flair"), ("t1ce",))


def _disease(rooms: tuple[tuple[Scanner, ...], ...], lacks: tuple[tuple[str, ...], ...]) -> Disease:
    hospitals = (
        Hospital(name, SIZE, room, lacks=lacking)
        for name, room, lacking in zip(_NAMES, rooms, lacks, strict=True)
    )
    return replace(BRAIN, hospitals=tuple(hospitals))


SETTINGS: Mapping[str, tuple[Disease, float]] = {
    "label skew": (_disease((_ONE_ROOM,) * 4, _EVERYTHING), SKEWED),
    "scanner shift": (_disease(_ROOMS, _EVERYTHING), ALIKE),
    "missing modality": (_disease((_ONE_ROOM,) * 4, _LACKING), ALIKE),
    "all": (_disease(_ROOMS, _LACKING), SKEWED),
}


def federation(setting: str, seed: int) -> list[SiteSpec]:
    """The hospitals of a setting."""
    disease, alpha = SETTINGS[setting]
    return demo_federation(seed, disease=disease, alpha=alpha, damage=False)
