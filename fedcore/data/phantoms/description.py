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

_PARTICIPANTS = {
    "sex": {"Description": "sex", "Levels": {"F": "female", "M": "male"}},
    "age": {"Description": "age; 89 stands for 89 and above", "Units": "year"},
    "scanner": {"Description": "scanner room in which all the subject's scans were made"},
    "diagnosis": {"Description": "what the simulation put into the head"},
    "consent": {
        "Description": "purposes consented to, separated by semicolons; n/a = consent withdrawn"
    },
}


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
        **{file: content for modality, (file, content) in spec.disease.sidecars.items()
           if modality in spec.modalities},
    }  # fmt: skip
    files = {key: json.dumps(value, indent=1).encode() + b"\n" for key, value in documents.items()}
    return files | {
        "README": spec.disease.readme.format(site=spec.name, size=spec.size).encode(),
        ".bidsignore": "".join(f"{glob}\n" for glob in spec.disease.ignored).encode(),
        "participants.tsv": _table(_row(person) for person in persons),
    }


def _row(person: Person) -> tuple[str, ...]:
    consent = ";".join(person.consent) or "n/a"
    return (person.label, person.sex, str(person.age), person.scanner.name, person.diagnosis,
            consent)  # fmt: skip


def _table(rows: Iterable[tuple[str, ...]]) -> bytes:
    return "".join("\t".join(row) + "\n" for row in [_COLUMNS, *rows]).encode()
