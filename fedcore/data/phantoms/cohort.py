"""Who lies in the scanners of a simulated federation: sites, their scanners, their patients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedcore import seeds
from fedcore.data.partition import dirichlet_counts
from fedcore.data.phantoms.brain import BRAIN
from fedcore.data.phantoms.disease import Device, Disease

_OTHER_PURPOSE = "teaching"


@dataclass(frozen=True)
class SiteSpec:
    """One simulated hospital.

    ``counts``: diagnosis → subjects. ``modalities``: those it has at all. ``missing_rate``: the
    chance that a subject lacks one of them, never the only one. ``age_shift``: years.
    ``voxel_mm``: how fine its bodies are. ``damaged``: three of its files are broken, each in its
    own way.
    """

    name: str
    counts: Mapping[str, int]
    scanners: tuple[Device, ...]
    modalities: tuple[str, ...] = BRAIN.modalities
    missing_rate: float = 0.04
    age_shift: float = 0.0
    voxel_mm: float = 3.0
    damaged: bool = False
    disease: Disease = BRAIN

    @property
    def size(self) -> int:
        """Number of subjects."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Person:
    """One row of participants.tsv. ``consent`` lists purposes; none = consent was withdrawn.

    ``scanner``: the Device of the disease's own kind.
    """

    label: str
    diagnosis: str
    sex: str
    age: int
    scanner: Any
    modalities: tuple[str, ...]
    consent: tuple[str, ...]


def demo_federation(
    seed: int,
    scale: float = 1.0,
    *,
    disease: Disease = BRAIN,
    alpha: float = 3.0,
    voxel_mm: float | None = None,
    damage: bool = True,
) -> list[SiteSpec]:
    """A disease's hospitals: they differ in scanners, modalities, patients and care.

    ``scale`` multiplies the number of subjects (at least 2 of each class stay). ``alpha``: of the
    Dirichlet that draws each site's mix of classes. ``voxel_mm``: unset = the disease's. Without
    ``damage`` every file is sound.
    """
    minimum = max(2, round(8 * min(scale, 1.0)))
    sizes = {
        site.name: max(round(scale * site.size), minimum * len(disease.classes))
        for site in disease.hospitals
    }
    counts = dirichlet_counts(sizes, disease.classes, alpha=alpha, seed=seed, minimum=minimum)
    return [
        SiteSpec(
            site.name, counts[site.name], site.scanners,
            modalities=tuple(m for m in disease.modalities if m not in site.lacks),
            age_shift=site.age_shift, voxel_mm=voxel_mm or disease.voxel_mm,
            damaged=site.damaged and damage, disease=disease,
        )
        for site in disease.hospitals
    ]  # fmt: skip


def people(spec: SiteSpec, seed: int) -> list[Person]:
    """Everyone at the site, in the order of their labels.

    One of them has withdrawn consent, and one has given it for another purpose than the
    disease's.
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
    mean, deviation, women = spec.disease.people[diagnosis]
    # Ages above 89 identify people (HIPAA); BIDS asks to cap them there.
    age = int(np.clip(rng.normal(mean + spec.age_shift, deviation), 18, 89))
    missing = rng.random() < spec.missing_rate * len(spec.modalities)
    missing = missing and len(spec.modalities) > 1  # who was not scanned at all is no subject
    lacks = str(rng.choice(spec.modalities)) if missing else None
    purpose = spec.disease.purpose
    return Person(
        label=f"sub-{index + 1:04d}",
        diagnosis=diagnosis,
        sex="F" if rng.random() < women else "M",
        age=age,
        scanner=spec.scanners[rng.integers(len(spec.scanners))],
        modalities=tuple(name for name in spec.modalities if name != lacks),
        consent=(purpose, _OTHER_PURPOSE) if rng.random() < 0.5 else (purpose,),
    )
