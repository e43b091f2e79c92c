"""Who lies in the scanners of the simulated federation: sites, their scanners, their patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fedcore import seeds
from fedcore.data.partition import dirichlet_counts
from fedcore.data.phantoms.contrast import MODALITIES
from fedcore.data.phantoms.lesions import CLASSES
from fedcore.data.phantoms.scanner import Scanner

PURPOSE = "brain-tumour-research"
_OTHER_PURPOSE = "teaching"

# diagnosis → (mean age, its standard deviation, share of women)
_PEOPLE: Mapping[str, tuple[float, float, float]] = {
    "none": (52.0, 15.0, 0.50),
    "glioma": (58.0, 13.0, 0.42),
    "meningioma": (62.0, 12.0, 0.70),
    "pituitary": (45.0, 14.0, 0.55),
}


@dataclass(frozen=True)
class SiteSpec:
    """One simulated hospital.

    ``counts``: diagnosis → subjects. ``modalities``: those it has at all. ``missing_rate``: the
    chance that a subject lacks one of them. ``age_shift``: years. ``damaged``: three of its files
    are broken, each in its own way.
    """

    name: str
    counts: Mapping[str, int]
    scanners: tuple[Scanner, ...]
    modalities: tuple[str, ...] = MODALITIES
    missing_rate: float = 0.04
    age_shift: float = 0.0
    voxel_mm: float = 3.0
    damaged: bool = False

    @property
    def size(self) -> int:
        """Number of subjects."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Person:
    """One row of participants.tsv. ``consent`` lists purposes; none = consent was withdrawn."""

    label: str
    diagnosis: str
    sex: str
    age: int
    scanner: Scanner
    modalities: tuple[str, ...]
    consent: tuple[str, ...]


_SITES = (
    SiteSpec("north", {}, (
        Scanner("Borealis 3T", blur_mm=2.5, gain=4.0, shading=0.12),
        Scanner("Borealis 1.5T", blur_mm=3.5, slice_mm=5.0, noise=1.5, gain=2.5, gamma=1.1),
    )),
    SiteSpec("east", {}, (
        Scanner("Orient 1.5T", slice_mm=4.0, noise=1.4, shading=0.15, gain=2.0, gamma=0.9,
                orientation="LPS"),
    ), modalities=("t1ce", "flair", "ct"), age_shift=3.0),
    SiteSpec("south", {}, (
        Scanner("Austral 3T", blur_mm=2.5, noise=0.8, shading=0.18, gain=6.0, suv_scale=0.93,
                orientation="LAS"),
        Scanner("Austral 3T open", blur_mm=3.5, noise=1.2, gain=3.0, gamma=0.85, suv_scale=1.06),
    ), age_shift=-3.0),
    SiteSpec("west", {}, (
        Scanner("Zephyr 1.5T", blur_mm=3.5, slice_mm=6.0, noise=1.3, shading=0.08, gain=1.5,
                gamma=1.15, suv_scale=1.04, slice_step=2),
    ), modalities=("t1ce", "flair", "pet"), damaged=True),
)  # fmt: skip
_SIZES = {"north": 96, "east": 80, "south": 72, "west": 64}


def demo_federation(
    seed: int, scale: float = 1.0, *, alpha: float = 3.0, voxel_mm: float = 3.0, damage: bool = True
) -> list[SiteSpec]:
    """The four hospitals of the demo: they differ in scanners, modalities, patients and care.

    ``scale`` multiplies the number of subjects (at least 2 of each class stay). ``alpha``: of the
    Dirichlet that draws each site's mix of classes. Without ``damage`` every file is sound.
    """
    minimum = max(2, round(8 * min(scale, 1.0)))
    sizes = {
        name: max(round(scale * size), minimum * len(CLASSES)) for name, size in _SIZES.items()
    }
    counts = dirichlet_counts(sizes, CLASSES, alpha=alpha, seed=seed, minimum=minimum)
    return [
        replace(site, counts=counts[site.name], voxel_mm=voxel_mm, damaged=site.damaged and damage)
        for site in _SITES
    ]


def people(spec: SiteSpec, seed: int) -> list[Person]:
    """Everyone at the site, in the order of their labels.

    One of them has withdrawn consent, and one has given it for another purpose than ``PURPOSE``.
    """
    rng = seeds.generator(seed, "people", spec.name)
    diagnoses = [name for name, count in spec.counts.items() for _ in range(count)]
    rng.shuffle(diagnoses)
    withdrawn, elsewhere = rng.choice(len(diagnoses), 2, replace=False)
    persons = [_person(spec, index, diagnosis, rng) for index, diagnosis in enumerate(diagnoses)]
    persons[withdrawn] = replace(persons[withdrawn], consent=())
    persons[elsewhere] = replace(persons[elsewhere], consent=(_OTHER_PURPOSE,))
    return persons


def _person(spec: SiteSpec, index: int, diagnosis: str, rng: np.random.Generator) -> Person:
    mean, deviation, women = _PEOPLE[diagnosis]
    # Ages above 89 identify people (HIPAA); BIDS asks to cap them there.
    age = int(np.clip(rng.normal(mean + spec.age_shift, deviation), 18, 89))
    missing = rng.random() < spec.missing_rate * len(spec.modalities)
    lacks = str(rng.choice(spec.modalities)) if missing else None
    return Person(
        label=f"sub-{index + 1:04d}",
        diagnosis=diagnosis,
        sex="F" if rng.random() < women else "M",
        age=age,
        scanner=spec.scanners[rng.integers(len(spec.scanners))],
        modalities=tuple(name for name in spec.modalities if name != lacks),
        consent=(PURPOSE, _OTHER_PURPOSE) if rng.random() < 0.5 else (PURPOSE,),
    )
