"""The files of a BIDS dataset that describe it: everything that is not an image.

BIDS 1.10 (https://bids-specification.readthedocs.io). What is true of every subject stands once, at
the top, by the inheritance principle; that keeps a site's bucket at one object per scan.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedcore.data.phantoms.cohort import Person, SiteSpec

_COLUMNS = ("participant_id", "sex", "age", "scanner", "diagnosis", "consent")

_README = """Synthetic scans of the site {site}: {size} subjects, none of whom exists.

Made by fedcore from the MNI152 template (ICBM 152 nonlinear symmetric 2009a, Fonov et al. 2011,
Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, McGill University):
deformed heads, with T1 after contrast, FLAIR, CT (HU) and FDG-PET (SUV) rendered from tissue
fractions in the manner of SynthSeg (Billot et al. 2023). Some have a tumour, others a harmless
finding. For tests and demonstrations of software, never for medical conclusions.
"""

_PARTICIPANTS = {
    "sex": {"Description": "sex", "Levels": {"F": "female", "M": "male"}},
    "age": {"Description": "age; 89 stands for 89 and above", "Units": "year"},
    "scanner": {"Description": "scanner room in which all the subject's scans were made"},
    "diagnosis": {"Description": "what the simulation put into the head"},
    "consent": {
        "Description": "purposes consented to, separated by semicolons; n/a = consent withdrawn"
    },
}

_PET = {
    "Manufacturer": "fedcore",
    "ManufacturersModelName": "phantom",
    "Modality": "PT",
    "Units": "g/mL",
    "ScaleFactor": [1],
    "BodyPart": "brain",
    "TracerName": "FDG",
    "TracerRadionuclide": "F18",
    "InjectedRadioactivity": 200.0,
    "InjectedRadioactivityUnits": "MBq",
    "InjectedMass": "n/a",
    "InjectedMassUnits": "n/a",
    "SpecificRadioactivity": "n/a",
    "SpecificRadioactivityUnits": "n/a",
    "ModeOfAdministration": "bolus",
    "TimeZero": "10:00:00",
    "ScanStart": 2700,
    "InjectionStart": 0,
    "FrameTimesStart": [2700],
    "FrameDuration": [900],
    "AcquisitionMode": "static",
    "ImageDecayCorrected": True,
    "ImageDecayCorrectionTime": 0,
    "ReconMethodName": "synthetic",
    "ReconMethodParameterLabels": ["none"],
    "ReconMethodParameterUnits": ["none"],
    "ReconMethodParameterValues": [0],
    "ReconFilterType": "Gaussian",
    "ReconFilterSize": 5,
    "AttenuationCorrection": "none: no attenuation was simulated",
}

_MR = {"Manufacturer": "fedcore", "ManufacturersModelName": "phantom", "Modality": "MR"}


def described(spec: SiteSpec, persons: Sequence[Person]) -> dict[str, bytes]:
    """Key → bytes of every file of the dataset that is not an image."""
    documents: Mapping[str, Any] = {
        "dataset_description.json": {
            "Name": f"fedcore phantoms: {spec.name}",
            "BIDSVersion": "1.10.0",
            "DatasetType": "raw",
            "License": "CC0",
            "Authors": ["fedcore"],
            "GeneratedBy": [{"Name": "fedcore"}],
        },
        "participants.json": _PARTICIPANTS,
        "ce-gadolinium_T1w.json": _MR | {"ContrastBolusIngredient": "GADOLINIUM"},
        "FLAIR.json": _MR,
        "trc-FDG_pet.json": _PET,
    }
    absent = {"trc-FDG_pet.json"} if "pet" not in spec.modalities else set()
    files = {
        key: json.dumps(value, indent=1).encode() + b"\n"
        for key, value in documents.items()
        if key not in absent
    }
    return files | {
        "README": _README.format(site=spec.name, size=spec.size).encode(),
        # CT is not in BIDS yet.
        ".bidsignore": b"**/ct\n",
        "participants.tsv": _table(_row(person) for person in persons),
    }


def _row(person: Person) -> tuple[str, ...]:
    consent = ";".join(person.consent) or "n/a"
    return (person.label, person.sex, str(person.age), person.scanner.name, person.diagnosis,
            consent)  # fmt: skip


def _table(rows: Iterable[tuple[str, ...]]) -> bytes:
    return "".join("\t".join(row) + "\n" for row in [_COLUMNS, *rows]).encode()
