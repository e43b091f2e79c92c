"""One subject: a person, and what the scanner or the camera shows of it."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore import seeds
from fedcore.data.phantoms.cohort import Person, SiteSpec, people
from fedcore.data.phantoms.findings import Finding


@dataclass(frozen=True)
class Phantom:
    """A synthetic subject. All volumes share one RAS+ grid (X, Y, Z) and its ``affine`` (mm).

    ``images``: modality → MR and OCT in the device's own unit, CT in HU, PET in SUV; of a photo
    8-bit colours (rows, columns, 3). ``label``: 0 healthy, else the disease's ``structures``.
    """

    person: Person
    images: Mapping[str, NDArray[Any]]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]


def subject(spec: SiteSpec, index: int, seed: int) -> Phantom:
    """The subject number ``index`` (from 0) of a site. Same arguments, same bits."""
    return scanned(spec, people(spec, seed)[index], seed)


def scanned(spec: SiteSpec, person: Person, seed: int) -> Phantom:
    """``person`` in the devices of the site. Same arguments, same bits."""
    phantom: Phantom = pkgutil.resolve_name(spec.disease.scanned)(spec, person, seed)
    return phantom


def streams(spec: SiteSpec, person: Person, seed: int) -> Callable[..., np.random.Generator]:
    """By the name of a step: every step has its own stream, and none shifts another's draws."""

    def stream(*step: str) -> np.random.Generator:
        return seeds.generator(seed, "phantom", spec.name, person.label, *step)

    return stream


def labelled(findings: Sequence[Finding], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Each finding's label where most of the voxel is in it, the last of them on top."""
    label = np.zeros(shape, np.uint8)
    for finding in findings:
        label[finding.mask > 0.5] = finding.label
    return label
