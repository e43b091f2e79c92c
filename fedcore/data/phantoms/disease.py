"""What a simulated federation is about: classes, people, hospitals and files, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Population(NamedTuple):
    """Who has a diagnosis: mean age and its standard deviation (years), share of women."""

    age: float
    deviation: float
    women: float


@dataclass(frozen=True)
class Device:
    """What every scanner and camera has.

    ``orientation``: where the stored axes point to, one of R L, one of A P, one of S I.
    ``slice_step``: every how many slices one is stored.
    """

    name: str
    orientation: str = "RAS"
    slice_step: int = 1


@dataclass(frozen=True)
class Hospital:
    """A site before its patients come: see ``cohort.SiteSpec``."""

    name: str
    size: int
    scanners: tuple[Device, ...]
    lacks: tuple[str, ...] = ()
    age_shift: float = 0.0
    damaged: bool = False


@dataclass(frozen=True, repr=False)
class Disease:
    """Everything about an anatomy's phantoms but how they are made.

    ``people``: diagnosis → who has it. ``paths``: modality → where its file lies below a subject's
    folder, with the subject's id for ``{0}``. ``step``: modality → what one stored unit stands for,
    if not 1. ``structures``: outline → its value in a phantom's label. ``readme``: with {site} and
    {size}. ``sidecars``: modality → (file, content). ``ignored``: what BIDS does not know.
    ``scanned``: ``module:function``, (SiteSpec, Person, seed) → Phantom; a name, so that choosing a
    disease does not import all others' anatomies.
    """

    name: str
    purpose: str
    people: Mapping[str, Population]
    hospitals: tuple[Hospital, ...]
    paths: Mapping[str, str]
    readme: str
    scanned: str
    voxel_mm: float = 3.0
    step: Mapping[str, float] = field(default_factory=dict)
    structures: Mapping[str, int] = field(default_factory=dict)
    sidecars: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The diagnoses."""
        return tuple(self.people)

    @property
    def modalities(self) -> tuple[str, ...]:
        """In the order in which a subject has them."""
        return tuple(self.paths)

    def __repr__(self) -> str:
        return f"Disease({self.name!r})"
