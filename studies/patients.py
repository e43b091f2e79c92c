"""The two real patients of ``shared/data``, where a checkout has them, as sites of one subject.

Soft-tissue sarcomas (Vallières et al. 2015, https://doi.org/10.1088/0031-9155/60/14/5471, CC BY
3.0): CT, FDG-PET and T1 of each, and the outline of the tumour on each. They are no part of the
project.
"""

from __future__ import annotations

import os
from pathlib import Path

from fedcore.data.layout import mask_key
from fedcore.store.memory import MemoryStore

FOLDER = (
    Path(os.environ.get("FEDCORE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")) / "sts"
)

_PATHS = {"CT": "ct/{0}_ct.nii.gz", "PET": "pet/{0}_pet.nii.gz", "MR_T1": "anat/{0}_T1w.nii.gz"}
_DRAWN_ON = "CT"


def patients(folder: Path = FOLDER) -> dict[str, MemoryStore]:
    """Each one's files by the patient's name, laid out as BIDS; none if there is no such folder."""
    return {place.name: _site(place) for place in sorted(folder.glob("STS_*"))}


def _site(place: Path) -> MemoryStore:
    subject, store = f"sub-{place.name.removeprefix('STS_')}", MemoryStore()
    store.put("participants.tsv", f"participant_id\n{subject}\n".encode())
    for modality, path in _PATHS.items():
        image, source = f"{subject}/{path.format(subject)}", place / modality / "nifti"
        store.put(image, (source / "image.nii.gz").read_bytes())
        if modality == _DRAWN_ON:
            store.put(mask_key(image, "tumour"), (source / "mask.nii.gz").read_bytes())
    return store
