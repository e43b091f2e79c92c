"""Brain tumours on contrast T1, FLAIR, CT and FDG-PET: who comes to which hospital, and files."""

from __future__ import annotations

from fedcore.data.phantoms import sidecars
from fedcore.data.phantoms.disease import Disease, Hospital, Population
from fedcore.data.phantoms.scanner import SUV_STEP, Scanner

PURPOSE = "brain-tumour-research"

_HOSPITALS = (
    Hospital("north", 96, (
        Scanner("Borealis 3T", blur_mm=2.5, gain=4.0, shading=0.12),
        Scanner("Borealis 1.5T", blur_mm=3.5, slice_mm=5.0, noise=1.5, gain=2.5, gamma=1.1),
    )),
    Hospital("east", 80, (
        Scanner("Orient 1.5T", slice_mm=4.0, noise=1.4, shading=0.15, gain=2.0, gamma=0.9,
                orientation="LPS"),
    ), lacks=("pet",), age_shift=3.0),
    Hospital("south", 72, (
        Scanner("Austral 3T", blur_mm=2.5, noise=0.8, shading=0.18, gain=6.0, suv_scale=0.93,
                orientation="LAS"),
        Scanner("Austral 3T open", blur_mm=3.5, noise=1.2, gain=3.0, gamma=0.85, suv_scale=1.06),
    ), age_shift=-3.0),
    Hospital("west", 64, (
        Scanner("Zephyr 1.5T", blur_mm=3.5, slice_mm=6.0, noise=1.3, shading=0.08, gain=1.5,
                gamma=1.15, suv_scale=1.04, slice_step=2),
    ), lacks=("ct",), damaged=True),
)  # fmt: skip

_README = """Synthetic scans of the site {site}: {size} subjects, none of whom exists.

Made by fedcore from the MNI152 template (ICBM 152 nonlinear symmetric 2009a, Fonov et al. 2011,
Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, McGill University):
deformed heads, with T1 after contrast, FLAIR, CT (HU) and FDG-PET (SUV) rendered from tissue
fractions in the manner of SynthSeg (Billot et al. 2023). Some have a tumour, others a harmless
finding. For tests and demonstrations of software, never for medical conclusions.
"""

BRAIN = Disease(
    name="brain",
    purpose=PURPOSE,
    people={
        "none": Population(52.0, 15.0, 0.50),
        "glioma": Population(58.0, 13.0, 0.42),
        "meningioma": Population(62.0, 12.0, 0.70),
        "pituitary": Population(45.0, 14.0, 0.55),
    },
    hospitals=_HOSPITALS,
    paths={
        "t1ce": "anat/{0}_ce-gadolinium_T1w.nii.gz",
        "flair": "anat/{0}_FLAIR.nii.gz",
        "ct": "ct/{0}_ct.nii.gz",
        "pet": "pet/{0}_trc-FDG_pet.nii.gz",
    },
    readme=_README,
    scanned="fedcore.data.phantoms.brain.head:scanned",
    step={"pet": SUV_STEP},
    structures={"oedema": 2, "tumour": 1},
    sidecars={
        "t1ce": ("ce-gadolinium_T1w.json", sidecars.MR | {"ContrastBolusIngredient": "GADOLINIUM"}),
        "flair": ("FLAIR.json", sidecars.MR),
        "pet": ("trc-FDG_pet.json", sidecars.PET | {"BodyPart": "brain"}),
    },
    ignored=("**/ct",),  # CT is not in BIDS yet
)
