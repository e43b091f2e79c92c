"""A subject's files become what the model saw in training, or the reason why not is told."""

from __future__ import annotations

import gzip
from typing import Any

import heads
import nibabel
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fedcore.config.task import Task
from fedcore.data import bids, subjects
from fedcore.data.site import SiteData
from fedcore.errors import DataError
from fedcore.serving.scans import prepared
from fedcore.store.memory import MemoryStore

PATHS = {"ct": "ct/sub-1_ct.nii.gz", "t1": "anat/sub-1_T1w.nii.gz"}
LIMIT = 1 << 20


def task(**dataset: Any) -> dict[str, Any]:
    """As a manifest holds it."""
    wanted = {
        "classes": ["none", "glioma"],
        "modalities": {
            "t1": {"kind": "mr", "path": "anat/*_T1w.nii.gz"},
            "ct": {"kind": "ct", "path": "ct/*_ct.nii.gz", "window": [-1000, 1000]},
        },
        "model": {"function": "a.b:model"},
        "dataset": {
            "function": "fedcore.data.bids:dataset",
            "arguments": {"shape": [10, 12, 10], "spacing_mm": 5.0, "fractions": [1, 0, 0]},
            **dataset,
        },
    }
    dumped: dict[str, Any] = Task.model_validate(wanted).model_dump(mode="json")
    return {**dumped, "modalities": dict(sorted(dumped["modalities"].items()))}


def scan(modality: str, size: int = 16, shift_mm: float = 0.0) -> bytes:
    """A ball, off the middle, in the modality's unit; 4 mm voxels stored right to left."""
    affine = np.diag([-4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = np.array([2.0, -2.0, -2.0]) * (size - 1) + [shift_mm, 0, 0]
    x, y, z = np.meshgrid(*[np.arange(size)] * 3, indexing="ij")
    ball = np.maximum(0, 1 - ((x - 6) ** 2 + (y - 8) ** 2 + (z - 9) ** 2) / 25)
    voxels = 40.0 * ball - 1000 * (ball == 0) if modality == "ct" else 300.0 * ball
    return gzip.compress(nibabel.Nifti1Image(voxels.astype(np.float32), affine).to_bytes())


@pytest.mark.parametrize("names", [["ct", "t1"], ["t1"], ["ct"]])
def test_files_are_prepared_as_the_training_data_were(names: list[str]) -> None:
    """Bit for bit, whichever modality is missing."""
    site = MemoryStore()
    site.put("participants.tsv", b"participant_id\tdiagnosis\tconsent\nsub-1\tglioma\tstudy\n")
    files = {name: scan(name, shift_mm=3.0) for name in names}
    for name, data in files.items():
        site.put(f"sub-1/{PATHS[name]}", data)
    asked = task()
    data = bids.dataset(
        SiteData(Task.model_validate(asked), site, "study"), **asked["dataset"]["arguments"]
    )
    trained_on, _ = data["train"][0]
    found = prepared(files, asked, max_bytes=LIMIT)
    assert set(found) == set(names)
    for name, image in found.items():
        assert image.shape == (1, 1, 10, 12, 10)
        assert_array_equal(image[0], trained_on[name].numpy())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"t1": b"not an image"}, "t1: this is not a NIfTI file"),
        ({"t1": b""}, "t1: this is not a NIfTI file"),
        ({"t1": scan("t1")[:-20]}, "t1: the gzip data"),
        ({"t1": scan("t1", size=80)}, f"t1: more than {LIMIT} bytes unzipped"),
        ({"pet": scan("t1")}, "no input 'pet'; it takes ct, t1"),
        ({"ct": scan("ct"), "t1": scan("t1", shift_mm=900)}, "t1: off the grid"),
    ],
)
def test_what_cannot_be_used_is_named(files: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepared(files, task(), max_bytes=LIMIT)


def test_a_plan_with_its_own_dataset_function_wants_its_own_arrays() -> None:
    own = task(function="mystudy:dataset", arguments={})
    with pytest.raises(DataError, match=r"prepared by mystudy:dataset; send what that gives"):
        prepared({"t1": scan("t1")}, own, max_bytes=LIMIT)


def test_alignment_and_mask_are_those_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, a registration included."""
    monkeypatch.setattr(subjects, "cpus", lambda: 1)
    asked = heads.task("t1ce", "flair", reference="t1ce", align="rigid", brain_mask=True)
    files = {"t1ce": heads.scan(0, "t1ce"), "flair": heads.scan(0, "flair", 7.0)}
    site = MemoryStore()
    heads.site(site, {"sub-1": files})
    data = bids.dataset(SiteData(asked, site, "study"), fractions=[1, 0, 0])
    trained_on, _ = data["train"][0]
    found = prepared(files, asked.model_dump(mode="json"), max_bytes=1 << 24)
    assert set(found) == {"t1ce", "flair"} == set(trained_on)
    for name, image in found.items():
        assert_array_equal(image[0], trained_on[name].numpy())
