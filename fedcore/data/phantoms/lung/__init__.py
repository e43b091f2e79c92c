"""Lung cancer on CT and FDG-PET: who comes to which hospital, and files."""

from __future__ import annotations

from fedcore.data.phantoms import sidecars
from fedcore.data.phantoms.disease import Disease, Hospital, Population
from fedcore.data.phantoms.scanner import SUV_STEP, Scanner

_HOSPITALS = (
    Hospital("north", 96, (
        Scanner("Borealis PET/CT", blur_mm=3.0, noise=2.0),
        Scanner("Borealis PET/CT low dose", blur_mm=3.5, slice_mm=5.0, noise=5.0, suv_scale=1.05),
    )),
    Hospital("east", 80, (
        Scanner("Orient CT", blur_mm=2.5, slice_mm=4.0, noise=3.0, orientation="LPS"),
    ), lacks=("pet",), age_shift=3.0),
    Hospital("south", 72, (
        Scanner("Austral digital PET/CT", blur_mm=2.5, noise=1.5, suv_scale=0.94,
                orientation="LAS"),
        Scanner("Austral PET/CT", blur_mm=4.0, noise=3.5, suv_scale=1.07),
    ), age_shift=-3.0),
    Hospital("west", 64, (
        Scanner("Zephyr PET/CT", blur_mm=4.0, slice_mm=6.0, noise=4.0, suv_scale=1.04,
                slice_step=2),
    ), damaged=True),
)  # fmt: skip

_README = """Synthetic scans of the site {site}: {size} subjects, none of whom exists.

Made by fedcore from formulas: a chest of ellipses, domes and branching tubes, bent anew for each
subject, with CT (HU) and FDG-PET (SUV) rendered from tissue fractions. Some have a tumour, others a
harmless finding. For tests and demonstrations of software, never for medical conclusions.
"""

LUNG = Disease(
    name="lung",
    purpose="lung-cancer-research",
    people={
        "none": Population(58.0, 13.0, 0.50),
        "adenocarcinoma": Population(64.0, 10.0, 0.55),
        "squamous": Population(68.0, 8.0, 0.30),
        "small-cell": Population(66.0, 8.0, 0.42),
    },
    hospitals=_HOSPITALS,
    paths={"ct": "ct/{0}_ct.nii.gz", "pet": "pet/{0}_trc-FDG_pet.nii.gz"},
    readme=_README,
    scanned="fedcore.data.phantoms.lung.chest:scanned",
    voxel_mm=5.0,
    step={"pet": SUV_STEP},
    structures={"node": 2, "tumour": 1},
    sidecars={"pet": ("trc-FDG_pet.json", sidecars.PET | {"BodyPart": "chest"})},
    ignored=("**/ct",),  # CT is not in BIDS yet
)
