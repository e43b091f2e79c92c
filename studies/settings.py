"""Federations that differ in one thing at a time, and in all at once; one that is unfair to a
group; and the plan for them.

Four hospitals of equal size in each, so that a setting differs from the next in what it is named
after and in nothing else. The scans are drawn once a setting; seeds vary the training. Some forty
subjects of a hospital are trained on, as in the demo; more are held out, so that a hundredth of
AUC is not chance.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedcore.config import plan as plans
from fedcore.config.plan import Plan
from fedcore.data.phantoms.brain import BRAIN
from fedcore.data.phantoms.cohort import SiteSpec, demo_federation
from fedcore.data.phantoms.disease import Disease, Hospital
from fedcore.data.phantoms.scanner import Scanner
from fedcore.store.api import Store
from studies.federation import FOLDER, SEED, made

ALIKE, SKEWED = 1000.0, 0.4
"""Of the Dirichlet that draws the classes of each site."""

SIZE = 96
"""Subjects of a hospital."""

FRACTIONS = (0.42, 0.03, 0.55)

Sections = Mapping[str, Mapping[str, Any]]
"""What a method changes in a plan: section → fields."""

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
_HALF_LACKS_PET = (("pet",), (), ("pet",), ())
_MR_ALONE = ("ct", "pet")


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


EVERYTHING, PET_AT_HALF = "every modality", "PET absent at half of the sites"

PRESENCE: Mapping[str, tuple[Disease, float]] = {
    EVERYTHING: (_disease((_ONE_ROOM,) * 4, _EVERYTHING), ALIKE),
    PET_AT_HALF: (_disease((_ONE_ROOM,) * 4, _HALF_LACKS_PET), ALIKE),
}


MR_ALONE = "scanner shift, MR alone"

OF_MR: Mapping[str, tuple[Disease, float]] = {
    MR_ALONE: (_disease(_ROOMS, (_MR_ALONE,) * 4), ALIKE),
}
"""CT and PET have units, and tell scanners apart far less."""

(AGENT,) = _ONE_ROOM
NO_AGENT = replace(AGENT, name="Clinic 3T", agent=False)
"""An outpatient clinic's room, which gives no contrast agent and differs in nothing else: what is
bright on T1 elsewhere is dark there. That few are scanned in it is all that is unfair."""

UNFAIR = replace(BRAIN, hospitals=(
    *(Hospital(name, 112, (AGENT,) * 13 + (NO_AGENT,), _MR_ALONE) for name in _NAMES[:3]),
    Hospital(_NAMES[3], 112, (AGENT,) * 3 + (NO_AGENT,), _MR_ALONE),
))  # fmt: skip
"""Of four hospitals' subjects an eighth was scanned without; most of them at one hospital."""

FAIR = replace(BRAIN, hospitals=tuple(
    Hospital(name, 112, (AGENT, NO_AGENT), _MR_ALONE) for name in _NAMES
))  # fmt: skip
"""As many subjects, half of whom were scanned without."""

AS_THEY_COME = "as-they-come"
JUDGES = replace(BRAIN, hospitals=(
    Hospital(AS_THEY_COME, 256, (AGENT,) * 7 + (NO_AGENT,), _MR_ALONE),
    Hospital("without", 192, (NO_AGENT,), _MR_ALONE),
))  # fmt: skip
"""Nobody trains on these: patients as they come, and enough without agent to judge a group by."""


def federation(setting: str, seed: int) -> list[SiteSpec]:
    """The hospitals of a setting."""
    disease, alpha = {**SETTINGS, **PRESENCE, **OF_MR}[setting]
    return demo_federation(seed, disease=disease, alpha=alpha, voxel_mm=4.0, damage=False)


@functools.cache  # a process reads each site once
def sites_of(setting: str, seed: int = SEED) -> Mapping[str, Store]:
    """Their files by name, made if they are not there yet (a minute). ``seed``: of their people."""
    folder = setting.replace(" ", "-") + (f"-{seed}" if seed != SEED else "")
    return made(federation(setting, seed), FOLDER / folder, seed)


def small_plan(
    seed: int, changes: Sections, *,
    rounds: int = 12, coarse: bool = False, modalities: Sequence[str] | None = None,
    fractions: Sequence[float] = FRACTIONS,
) -> Plan:  # fmt: skip
    """The shipped plan on a coarser grid and unclipped, for so many rounds, with these changes.

    ``coarse``: a grid that is coarser still, for studies of many trainings. ``modalities``: those
    of the plan's that are kept; None = all.
    """
    text = (Path(__file__).parents[1] / "plans" / "brain_tumour.yaml").read_text(encoding="utf-8")
    fields = plans.parse(text).model_dump(mode="json")
    fields |= {"seed": seed, "rounds": rounds}
    fields["task"]["dataset"]["arguments"] |= {
        "shape": [28, 32, 28], "spacing_mm": 6.0, "fractions": list(fractions),
    }  # fmt: skip
    images = fields["task"]["modalities"]
    fields["task"]["modalities"] = {name: images[name] for name in modalities or images}
    fields["privacy"]["clip_norm"] = None
    fields["training"]["batch_size"] = 8  # half the time of batches of 4
    if coarse:  # half of the time; with fewer steps, mitigations are not learnt yet
        fields["task"]["dataset"]["arguments"] |= {"shape": [20, 24, 20], "spacing_mm": 8.0}
    for section, of in changes.items():
        fields[section] = fields[section] | of
    return Plan.model_validate(fields)
