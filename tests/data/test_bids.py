import gzip
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from nilearn.datasets import load_mni152_template

from fedcore.config.section import Function
from fedcore.config.task import Modality, Task
from fedcore.data import bids
from fedcore.data.participants import split_of
from fedcore.data.site import SiteData
from fedcore.errors import ConfigError, DataError, StoreUnavailable
from fedcore.store.memory import MemoryStore
from fedcore.training import local

FUNCTION = Function(function="a:b")
TASK = Task(
    classes=["none", "glioma"],
    groups=["sex", "age_band", "scanner"],
    modalities={
        "t1": Modality(path="anat/*_T1w.nii.gz", kind="mr"),
        "ct": Modality(path="ct/*_ct.nii.gz", kind="ct", window=(-1000, 1000)),
        "pet": Modality(path="pet/*_pet.nii.gz", kind="pet", window=(0, 12)),
    },
    model=FUNCTION,
    dataset=FUNCTION,
)
FOLDER = {"t1": "anat/{}_T1w.nii.gz", "ct": "ct/{}_ct.nii.gz", "pet": "pet/{}_pet.nii.gz"}
SCALE = {"t1": (300.0, 0.0), "ct": (1040.0, -1000.0), "pet": (6.0, 0.0)}
HEADER = "participant_id\tsex\tage\tscanner\tdiagnosis\tconsent\n"
ALL_TRAIN = (1.0, 0.0, 0.0)


def image(modality: str, voxel_mm: float = 4.0, shift_mm: float = 0.0) -> bytes:
    """A ball of 20 mm around the origin (moved by ``shift_mm``), in the modality's unit."""
    size = int(64 / voxel_mm)
    affine = np.diag([-voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = np.array([1, -1, -1]) * voxel_mm * (size - 1) / 2 + [shift_mm, 0, 0]
    places = nibabel.affines.apply_affine(affine, np.moveaxis(np.indices((size,) * 3), 0, -1))
    radius = np.linalg.norm(places - [shift_mm, 0, 0], axis=-1)
    gain, base = SCALE[modality]
    voxels = base + gain * ((radius < 20) * (1 - radius / 200))
    return gzip.compress(nibabel.Nifti1Image(voxels.astype(np.float32), affine).to_bytes())


def row(subject: str, diagnosis: str = "glioma", consent: str = "study") -> str:
    return f"{subject}\tF\t47\tscanner-a\t{diagnosis}\t{consent}\n"


class Site:
    """A BIDS dataset in memory that is built one subject at a time."""

    def __init__(self, prefix: str = "") -> None:
        self.store, self.prefix, self.table = MemoryStore(), prefix, HEADER

    def add(self, subject: str, *modalities: str, **cells: str) -> None:
        self.table += row(subject, **cells)
        for modality in modalities:
            self.put(subject, modality, image(modality))

    def put(self, subject: str, modality: str, data: bytes, session: str = "") -> str:
        key = f"{self.prefix}{subject}/{session}{FOLDER[modality].format(subject)}"
        self.store.put(key, data)
        return key

    def splits(self, task: Task = TASK, files: Any = None, **arguments: Any) -> Any:
        self.store.put(f"{self.prefix}participants.tsv", self.table.encode())
        site = SiteData(task, files or self.store, "study")
        defaults = {"shape": [10, 12, 10], "spacing_mm": 5.0, "fractions": ALL_TRAIN}
        return bids.dataset(site, **(defaults | arguments))

    def train(self, **arguments: Any) -> bids.BidsDataset:
        return self.splits(**arguments)["train"]  # type: ignore[no-any-return]


def test_examples_have_the_modalities_that_the_subject_has() -> None:
    site = Site()
    site.add("sub-2", "t1", "ct", "pet", diagnosis="none")
    site.add("sub-1", "pet")
    data = site.train()
    assert data.subjects == ("sub-1", "sub-2")
    (lone, target), (full, other) = data[0], data[1]
    assert (list(lone), target) == (["pet"], 1)
    assert (list(full), other) == (["t1", "ct", "pet"], 0)
    assert {x.shape for x in full.values()} == {(1, 10, 12, 10)}
    assert {x.dtype for x in full.values()} == {torch.float32}
    assert data.groups == {
        "sex": ["F", "F"],
        "age_band": ["40-60", "40-60"],
        "scanner": ["scanner-a", "scanner-a"],
    }
    assert data.summary.num_subjects == 2
    assert data.summary.modalities == {"pet": 2, "t1": 1, "ct": 1}
    assert data.summary.left_out == {}


def test_a_batch_has_zeros_and_a_0_where_a_modality_is_absent() -> None:
    site = Site()
    site.add("sub-1", "t1")
    site.add("sub-2", "t1", "pet", diagnosis="none")
    data = site.train()
    inputs, targets = data.collate([data[0], data[1]])
    assert list(inputs) == ["t1", "pet", "present"]
    assert inputs["t1"].shape == inputs["pet"].shape == (2, 1, 10, 12, 10)
    assert inputs["present"].tolist() == [[1, 0, 0], [1, 0, 1]]
    assert not inputs["pet"][0].any()
    assert torch.equal(inputs["pet"][1], data[1][0]["pet"])
    assert (targets.tolist(), targets.dtype) == ([1, 0], torch.int64)
    assert local.input_shapes(data) == {
        "t1": (1, 10, 12, 10), "pet": (1, 10, 12, 10), "present": (3,),
    }  # fmt: skip


def test_modalities_of_other_grids_lie_on_one() -> None:
    site = Site()
    site.add("sub-1", "t1")
    site.put("sub-1", "ct", image("ct", voxel_mm=2.0))
    site.put("sub-1", "pet", image("pet", voxel_mm=6.4))
    images, _ = site.train()[0]
    balls = [image > (image.min() + image.max()) / 2 for image in images.values()]
    for ball in balls[1:]:
        dice = 2 * (ball & balls[0]).sum() / (ball.sum() + balls[0].sum())
        assert dice > 0.9


def listed_twice(site: Site) -> None:
    site.add("sub-9", "t1")
    site.add("sub-9", "t1", consent="n/a")


def unlisted(site: Site) -> None:
    site.put("sub-9", "t1", image("t1"))


def other_contrast(site: Site) -> None:
    site.add("sub-9")
    site.store.put("sub-9/anat/sub-9_T2w.nii.gz", image("t1"))


@pytest.mark.parametrize(
    ("add", "reason"),
    [
        (lambda s: s.add("sub-9", "t1", consent="other"), "no consent for this purpose"),
        (lambda s: s.add("sub-9", "t1", consent="n/a"), "consent withdrawn"),
        (lambda s: s.add("sub-9"), "no folder"),
        (lambda s: s.add("sub-9", "t1", diagnosis="n/a"), "no label"),
        (lambda s: s.add("sub-9", "t1", diagnosis="GBM"), "label not among the plan's classes"),
        (listed_twice, "listed more than once in participants.tsv"),
        (unlisted, "not listed in participants.tsv"),
        (other_contrast, "no usable image"),
    ],
)
def test_a_subject_that_cannot_be_used_is_left_out_with_the_reason(
    add: Callable[[Site], None], reason: str
) -> None:
    site = Site()
    site.add("sub-1", "t1")
    add(site)
    data = site.train()
    assert data.subjects == ("sub-1",)
    assert data.left_out_subjects == (("sub-9", reason),)
    assert data.summary.left_out == {reason: 1}


def four_d() -> bytes:
    return nibabel.Nifti1Image(np.random.rand(4, 4, 4, 3), np.eye(4)).to_bytes()  # type: ignore[no-any-return]


FILES = {
    "truncated": image("ct")[:-30],
    "not NIfTI": b"not an image",
    "empty": gzip.compress(nibabel.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)).to_bytes()),
    "bad voxel size": nibabel.Nifti1Image(np.ones((4, 4, 4)), np.diag([50, 1, 1, 1])).to_bytes(),
    "more than one volume": four_d(),
    "no overlap with t1": image("ct", shift_mm=900),
}


@pytest.mark.parametrize("reason", FILES)
def test_a_bad_file_is_left_out_and_its_subject_goes_on(reason: str) -> None:
    site = Site()
    site.add("sub-1", "t1", "pet")
    key = site.put("sub-1", "ct", FILES[reason])
    data = site.train()
    assert list(data[0][0]) == ["t1", "pet"]
    assert data.left_out_files == ((key, reason),)
    assert data.summary.left_out == {reason: 1}


def test_if_the_first_modality_is_bad_the_next_gives_the_grid() -> None:
    site = Site()
    site.add("sub-1", "ct", "pet")
    good = site.train()[0][0]
    site.put("sub-1", "t1", b"")
    again = site.train()[0][0]
    assert list(again) == ["ct", "pet"]
    assert all(torch.equal(again[name], good[name]) for name in good)


def test_a_subject_without_a_good_file_is_left_out_too() -> None:
    site = Site()
    site.add("sub-1")
    site.put("sub-1", "t1", b"")
    assert site.train().summary.left_out == {"no usable image": 1, "not NIfTI": 1}


def test_a_later_session_is_named_but_not_used() -> None:
    site = Site()
    site.add("sub-1")
    site.put("sub-1", "t1", image("t1"), session="ses-01/")
    later = site.put("sub-1", "ct", image("ct"), session="ses-02/")
    data = site.train()
    assert list(data[0][0]) == ["t1"]
    assert data.left_out_files == ((later, "later session"),)


def test_without_a_consent_column_nothing_is_read_unless_the_plan_says_so() -> None:
    site = Site()
    site.add("sub-1", "t1")
    site.table = site.table.replace("\tconsent\n", "\n").replace("\tstudy\n", "\n")
    with pytest.raises(DataError, match="consent_column: null"):
        site.train()
    assert len(site.train(consent_column=None)) == 1


class Recorded:
    """Files that count each read and notice those outside of ``sub-`` and participants.tsv."""

    def __init__(self, store: MemoryStore) -> None:
        self.store, self.reads, self.lock = store, list[str](), threading.Lock()

    def get(self, key: str) -> bytes:
        with self.lock:
            self.reads.append(key)
        return self.store.get(key)

    def list(self, prefix: str = "") -> Iterator[str]:
        return self.store.list(prefix)


def test_images_are_read_once_and_only_those_of_consenting_subjects() -> None:
    site = Site("study/bids/")
    site.add("sub-1", "t1", "ct")
    site.add("sub-2", "t1")
    site.add("sub-3", "t1", consent="n/a")
    site.store.put("sub-4/anat/sub-4_T1w.nii.gz", image("t1"))  # outside of the prefix
    files = Recorded(site.store)
    splits = site.splits(files=files, prefix="study/bids", fractions=(0.6, 0.15, 0.25))
    assert sum(map(len, splits.values())) == 2
    assert sorted(files.reads) == [
        "study/bids/participants.tsv",
        "study/bids/sub-1/anat/sub-1_T1w.nii.gz",
        "study/bids/sub-1/ct/sub-1_ct.nii.gz",
        "study/bids/sub-2/anat/sub-2_T1w.nii.gz",
    ]


def test_each_subject_is_counted_in_one_split_and_stays_there() -> None:
    site = Site()
    for number in range(20):
        site.add(f"sub-{number:02}", "t1", consent="study" if number % 5 else "n/a")
    before = site.splits(fractions=(0.5, 0.2, 0.3))
    assert sum(d.summary.left_out["consent withdrawn"] for d in before.values()) == 4
    for split, data in before.items():
        assert {split_of(subject, (0.5, 0.2, 0.3)) for subject in data.subjects} == {split}
    site.add("sub-001", "t1")
    after = site.splits(fractions=(0.5, 0.2, 0.3))
    assert all(set(before[split].subjects) <= set(after[split].subjects) for split in before)


def test_a_store_that_does_not_answer_is_not_a_bad_file() -> None:
    class Down(Recorded):
        def get(self, key: str) -> bytes:
            if key.endswith(".gz"):
                raise StoreUnavailable("no answer")
            return super().get(key)

    site = Site()
    site.add("sub-1", "t1")
    with pytest.raises(StoreUnavailable):
        site.splits(files=Down(site.store))


def test_a_file_that_vanishes_is_left_out() -> None:
    class Vanishing(Recorded):
        def get(self, key: str) -> bytes:
            return super().get(key + "?" if "_ct" in key else key)

    site = Site()
    site.add("sub-1", "t1", "ct")
    data = site.splits(files=Vanishing(site.store))["train"]
    assert data.summary.left_out == {"gone while reading": 1}


def test_a_dataset_without_its_table_or_columns_is_refused() -> None:
    with pytest.raises(DataError, match=r"there is no participants\.tsv"):
        bids.dataset(SiteData(TASK, MemoryStore(), "study"), shape=[4, 4, 4], spacing_mm=4.0)
    site = Site()
    with pytest.raises(DataError, match="no column 'grade', which holds the label"):
        site.train(label="grade")
    with pytest.raises(DataError, match="no column 'race'"):
        site.train(task=TASK.model_copy(update={"groups": ["race"]}))


@pytest.mark.parametrize(
    "arguments", [{"shape": [4, 4]}, {"shape": [4, 0, 4]}, {"spacing_mm": 0.0}, {"fractions": [1]}]
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Site().train(**arguments)


def test_a_task_without_modalities_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.modalities is empty"):
        Site().train(task=TASK.model_copy(update={"modalities": {}}))


def test_the_mni152_brain_is_read() -> None:
    site = Site()
    site.add("sub-1")
    site.put("sub-1", "t1", load_mni152_template(resolution=2).to_bytes())
    data = site.train(shape=[40, 48, 40], spacing_mm=4.0)
    brain = data[0][0]["t1"][0]
    litres = float((brain > brain.min() + 0.5).sum()) * 0.04**3  # a voxel's edge is 0.04 dm
    assert 1.2 < litres < 2.2
    left, right = brain[:20].flip(0), brain[20:]
    assert torch.corrcoef(torch.stack([left.flatten(), right.flatten()]))[0, 1] > 0.9


SCANS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "sts"


needs_scans = pytest.mark.skipif(not SCANS.is_dir(), reason=f"the real scans are not at {SCANS}")


def real_site(file: str) -> Site:
    site = Site()
    for patient in ("STS_001", "STS_002"):
        subject = f"sub-{patient.replace('_', '')}"
        site.add(subject)
        for modality, folder in {"t1": "MR_T1", "ct": "CT", "pet": "PET"}.items():
            site.put(subject, modality, (SCANS / patient / folder / "nifti" / file).read_bytes())
    return site


@needs_scans
def test_real_ct_pet_and_mr_of_a_patient_are_read() -> None:
    data = real_site("image.nii.gz").train(shape=[40, 48, 40], spacing_mm=4.0)
    assert data.summary.left_out == {}
    assert data.summary.modalities == {"t1": 2, "ct": 2, "pet": 2}
    for images, _ in (data[0], data[1]):
        assert {image.shape for image in images.values()} == {(1, 40, 48, 40)}
        hot = images["ct"][images["pet"] > 0.2]
        assert (hot > 0.25).float().mean() > 0.95  # more than -500 HU: tissue, not air


@needs_scans
def test_real_tumours_lie_in_the_same_voxels_in_each_modality() -> None:
    modalities = {
        name: Modality(path=modality.path, kind="pet", window=(0, 2))
        for name, modality in TASK.modalities.items()
    }
    task = TASK.model_copy(update={"modalities": modalities})
    data = real_site("mask.nii.gz").train(task=task, shape=[60, 60, 60], spacing_mm=3.0)
    for images, _ in (data[0], data[1]):
        tumours = {name: image > 0.25 for name, image in images.items()}
        for other in ("t1", "pet"):
            both = tumours["ct"] & tumours[other]
            assert 2 * both.sum() / (tumours["ct"].sum() + tumours[other].sum()) > 0.9
