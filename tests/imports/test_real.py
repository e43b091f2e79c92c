"""Real scans: two patients' CT, PET and MR, and a brain MR. See shared/data/README.md."""

from __future__ import annotations

from typing import Any

import nibabel
import numpy as np
import pytest
import scans
from scans import DATA, outcomes, real_data

from fedcore.store.memory import MemoryStore


@pytest.fixture(scope="module")
def sarcomas() -> MemoryStore:
    store = MemoryStore()
    scans.tally(DATA / "sts", store)
    return store


@real_data
@pytest.mark.parametrize("patient", ["STS_001", "STS_002"])
@pytest.mark.parametrize(("folder", "name"), [
    ("CT", "ct/{0}_ct"), ("PET", "pet/{0}_trc-FDG_pet"), ("MR_T1", "anat/{0}_T1w"),
])  # fmt: skip
def test_its_voxels_are_those_of_the_nifti(
    sarcomas: MemoryStore, patient: str, folder: str, name: str
) -> None:
    """CT in HU and MR to the bit, SUV to float32's last digits; places to 0.1 µm."""
    subject = scans.SECRET.subject(patient)
    end = name.partition("/")[2].format("") + ".nii.gz"
    (key,) = [key for key in sarcomas.list(f"{subject}/") if key.endswith(end)]
    known: Any = nibabel.load(DATA / "sts" / patient / folder / "nifti" / "image.nii.gz")
    truth, found = known.get_fdata(), scans.image(sarcomas, key)
    back = np.linalg.inv(found[1]) @ known.affine
    assert np.allclose(np.abs(back[:3, :3]), np.eye(3), atol=1e-5)
    turned = tuple(slice(None, None, int(np.sign(back[axis, axis]))) for axis in range(3))
    corner = [0 if back[axis, axis] > 0 else truth.shape[axis] - 1 for axis in range(3)]
    assert np.allclose(back[:3, 3], corner, atol=1e-4)
    assert found[0].shape == truth.shape
    assert np.allclose(found[0][turned], truth, rtol=1e-6, atol=1e-6 if folder == "PET" else 0)


@real_data
def test_the_nifti_beside_it_is_the_same_modality_again(sarcomas: MemoryStore) -> None:
    whats = [outcome.what for outcome in outcomes(sarcomas)]
    assert {what: whats.count(what) for what in whats} == {"used": 6, "surplus": 12}
    table = sarcomas.get("participants.tsv").decode()
    assert len(table.splitlines()) == 3
    assert "STS" not in table


@real_data
def test_the_tumours_of_the_nifti(tmp_path: Any) -> None:
    """Without the DICOM: each mask with the image in its folder."""
    import shutil

    for path in (DATA / "sts" / "STS_002").rglob("*.nii.gz"):
        target = tmp_path / path.relative_to(DATA / "sts")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    store = scans.bring(tmp_path)
    masks = [o for o in outcomes(store) if any("_mask" in file for file in o.files)]
    assert sorted(str(o.modality) for o in masks) == ["ct", "pet", "t1"]
    known: Any = nibabel.load(DATA / "sts/STS_002/CT/nifti/mask.nii.gz")
    found = scans.image(store, next(o for o in masks if o.modality == "ct").files[0])
    assert found[0].sum() == (known.get_fdata() > 0).sum() > 1000


@real_data
def test_a_real_brain(tmp_path: Any) -> None:
    store = scans.bring(DATA / "brain_mr_dicom")
    used = scans.only(store)
    assert (used.what, used.modality, used.shape) == ("used", "pd", (256, 256, 20))
