"""What a source offers, whatever its format: visits of patients, each with scans and masks."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.imports.masks import Grid, Mask
from fedcore.imports.rules import Traits


@dataclass(frozen=True)
class Volume:
    """A scan as it will be written. ``described``: BIDS metadata. ``notes``: what was done."""

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    described: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scan:
    """One series. ``uid`` is the original; ``rank``: of two of a modality the higher is taken.

    ``read`` raises DataError with the reason why the scan cannot be used.
    """

    uid: str
    traits: Traits
    rank: tuple[float, ...]
    read: Callable[[], Volume]
    risk: str | None = None


@dataclass(frozen=True)
class MaskSource:
    """A mask, or several in one file. ``on``: the uids of the scans that it may belong to.

    ``read``: the image's grid → name → mask; raises DataError.
    """

    uid: str
    on: frozenset[str]
    read: Callable[[Grid], Mapping[str, Mask]]


@dataclass(frozen=True)
class Person:
    """What the headers say of a patient, as participants.tsv writes it."""

    sex: str = "n/a"
    age: str = "n/a"
    scanner: str = "n/a"


@dataclass(frozen=True)
class Visit:
    """A study. ``fingerprint`` changes with what is in it; ``content`` with which files it has."""

    patient: str
    uid: str
    date: datetime.date | None
    person: Person
    fingerprint: str
    content: str
    scans: tuple[Scan, ...]
    masks: tuple[MaskSource, ...] = ()
    label: str = ""
