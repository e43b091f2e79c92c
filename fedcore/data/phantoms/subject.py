"""One subject: a person, the person's head, and what the scanner shows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore import seeds
from fedcore.data.phantoms import contrast, lesions
from fedcore.data.phantoms.anatomy import deformed, template
from fedcore.data.phantoms.cohort import Person, SiteSpec, people
from fedcore.data.phantoms.fields import FloatArray
from fedcore.data.phantoms.scanner import acquired


@dataclass(frozen=True)
class Phantom:
    """A synthetic subject. All volumes share one RAS+ grid (X, Y, Z) and its ``affine`` (mm).

    ``images``: modality → MR in the scanner's own unit, CT in HU, PET in SUV.
    ``label``: 0 healthy, 1 tumour, 2 oedema.
    """

    person: Person
    images: Mapping[str, FloatArray]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]


def subject(spec: SiteSpec, index: int, seed: int) -> Phantom:
    """The subject number ``index`` (from 0) of a site. Same arguments, same bits."""
    return scanned(spec, people(spec, seed)[index], seed)


def scanned(spec: SiteSpec, person: Person, seed: int) -> Phantom:
    """``person`` in the scanner. Every step has its own stream: none shifts another's draws."""

    def stream(*step: str) -> np.random.Generator:
        return seeds.generator(seed, "phantom", spec.name, person.label, *step)

    head = deformed(template(spec.voxel_mm), stream("anatomy"))
    healthy = contrast.tissues(head, stream("tissues"))
    tumour = lesions.tumour(person.diagnosis, head, stream("tumour"))
    incidental = lesions.incidental(person.diagnosis, person.age, head, stream("incidental"))
    images = {}
    for modality in person.modalities:
        ideal = contrast.rendered(healthy, modality, stream("contrast", modality))
        ideal = lesions.painted(ideal, [*incidental, *tumour], modality)
        images[modality] = acquired(
            ideal, modality, person.scanner, spec.voxel_mm, stream("scanner", modality)
        )
    return Phantom(person, images, _label(tumour, head.grey.shape), head.affine)


def _label(findings: Sequence[lesions.Finding], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    label = np.zeros(shape, np.uint8)
    for finding in findings:
        label[finding.mask > 0.5] = finding.label
    return label
