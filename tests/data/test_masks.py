"""Outlines become the class of each voxel, where the images are."""

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from fedcore.config import plan as plans
from fedcore.config.section import Function
from fedcore.config.task import Modality, Task
from fedcore.data import bids
from fedcore.data.masks import labels
from fedcore.data.nifti import read
from fedcore.data.phantoms import SiteSpec, people, write_site
from fedcore.data.phantoms.scanner import Scanner
from fedcore.data.preparation import Prepared
from fedcore.data.preprocess import Grid, resample_labels
from fedcore.data.site import SiteData
from fedcore.errors import DataError
from fedcore.store.memory import MemoryStore
from fedcore.training import local

SHIPPED = Path(__file__).parents[2] / "plans" / "brain_tumour_segmentation.yaml"
FUNCTION = Function(function="a:b")
MASKS = "derivatives/fedcore/masks"
FOLDER = {"t1": "anat/{}_T1w.nii.gz", "pet": "pet/{}_pet.nii.gz"}
GRID = Grid((10, 12, 10), 5.0, (0.0, 0.0, 0.0))


def task(**structures: Any) -> Task:
    named = structures or {n: {"path": f"anat/*_label-{n}_mask.nii.gz"} for n in ("oedema", "core")}
    return Task(
        classes=["background", *named],
        modalities={
            "t1": Modality(path="anat/*_T1w.nii.gz", kind="mr"),
            "pet": Modality(path="pet/*_pet.nii.gz", kind="pet", window=(0, 12)),
        },
        target={"structures": named},
        model=FUNCTION,
        dataset=FUNCTION,
    )


def outline(radius: float, voxel_mm: float = 2.0, value: int = 1, at: float = 0.0) -> bytes:
    """A ball around (at, 0, 0) mm on a grid of its own, stored right to left; 0 = nothing."""
    size = int(64 / voxel_mm)
    affine = np.diag([-voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = np.array([1, -1, -1]) * voxel_mm * (size - 1) / 2
    places = nibabel.affines.apply_affine(affine, np.moveaxis(np.indices((size,) * 3), 0, -1))
    ball = np.linalg.norm(places - [at, 0, 0], axis=-1) < radius
    return gzip.compress(nibabel.Nifti1Image((value * ball).astype(np.uint8), affine).to_bytes())


class Site:
    """A BIDS dataset in memory; its participants have no diagnosis."""

    def __init__(self) -> None:
        self.store, self.table = MemoryStore(), "participant_id\tconsent\n"

    def add(self, subject: str, *modalities: str, session: str = "") -> None:
        if f"{subject}\t" not in self.table:
            self.table += f"{subject}\tstudy\n"
        for modality in modalities:
            key = f"{subject}/{session}{FOLDER[modality].format(subject)}"
            self.store.put(key, outline(20, voxel_mm=4.0))


def drawn(site: Site, subject: str, **files: bytes) -> None:
    for name, data in files.items():
        site.store.put(f"{MASKS}/{subject}/anat/{subject}_desc-T1w_label-{name}_mask.nii.gz", data)


def train(site: Site, wanted: Task | None = None) -> bids.BidsDataset:
    site.store.put("participants.tsv", site.table.encode())
    data = SiteData(wanted or task(), site.store, "study")
    return bids.dataset(data, shape=GRID.shape, spacing_mm=5.0, fractions=(1, 0, 0))["train"]


def volume_ml(target: Any, value: int) -> float:
    return float((target == value).sum()) * 5.0**3 / 1000


def test_outlines_of_another_grid_lie_on_the_images() -> None:
    site = Site()
    site.add("sub-1", "t1", "pet")
    drawn(site, "sub-1", oedema=outline(18), core=outline(12, at=8.0))
    data = train(site)
    _, target = data[0]
    assert (target.shape, target.dtype) == ((10, 12, 10), torch.uint8)
    assert set(target.unique().tolist()) == {0, 1, 2}
    assert volume_ml(target, 2) == pytest.approx(4 / 3 * np.pi * 1.2**3, rel=0.12)
    middle = torch.nonzero(target == 2).float().mean(dim=0) * 5.0 - torch.tensor([22.5, 27.5, 22.5])
    assert torch.allclose(middle, torch.tensor([8.0, 0.0, 0.0]), atol=1.0), "RAS+, as the images"
    inputs, targets = data.collate([data[0], data[0]])
    assert (targets.shape, targets.dtype) == ((2, 10, 12, 10), torch.int64)
    assert "label" not in local.input_shapes(data)
    assert set(inputs) == {"t1", "pet", "present"}


def test_who_has_no_outline_is_left_out_and_who_has_an_empty_one_is_healthy() -> None:
    site = Site()
    for subject in ("sub-1", "sub-2", "sub-3", "sub-4"):
        site.add(subject, "t1")
    drawn(site, "sub-1", oedema=outline(0), core=outline(0))
    drawn(site, "sub-2", core=outline(10))
    drawn(site, "sub-4", core=outline(10)[:-30])
    data = train(site)
    assert data.subjects == ("sub-1", "sub-2")
    assert not data[0][1].any()
    assert set(data[1][1].unique().tolist()) == {0, 2}, "the oedema was not drawn: it is nowhere"
    assert data.summary.left_out == {"no mask": 1, "mask truncated": 1}


def test_one_file_may_hold_several_structures() -> None:
    site = Site()
    site.add("sub-1", "t1")
    affine = nibabel.Nifti1Image.from_bytes(gzip.decompress(outline(5))).affine
    voxels = sum(read(outline(r, value=v), blank=True).voxels[::-1] for r, v in ((15, 1), (8, 3)))
    data = gzip.compress(nibabel.Nifti1Image(voxels.astype(np.uint8), affine).to_bytes())
    site.store.put(f"{MASKS}/sub-1/anat/sub-1_dseg.nii.gz", data)
    path = "anat/*_dseg.nii.gz"
    wanted = task(edema={"path": path, "values": [1]}, core={"path": path, "values": [4, 7]})
    target = train(site, wanted)[0][1]
    assert volume_ml(target, 1) > volume_ml(target, 2) > 0


def test_only_masks_of_the_images_own_visit_count() -> None:
    site = Site()
    for visit in ("ses-1/", "ses-2/"):
        site.add("sub-1", "t1", session=visit)
    site.store.put(f"{MASKS}/sub-1/ses-2/anat/sub-1_label-core_mask.nii.gz", outline(10))
    assert train(site).summary.left_out["no mask"] == 1
    for run in ("a", "b"):
        key = f"{MASKS}/sub-1/ses-1/anat/sub-1_run-{run}_label-core_mask.nii.gz"
        site.store.put(key, outline(10))
    data = train(site)
    assert len(data) == 1
    assert data.summary.left_out["further mask"] == 1


def test_outlines_on_different_grids_are_refused() -> None:
    site = Site()
    site.add("sub-1", "t1")
    drawn(site, "sub-1", oedema=outline(18), core=outline(12, voxel_mm=4.0))
    assert train(site).summary.left_out == {"masks on different grids": 1}


def test_an_outline_goes_where_its_image_was_aligned_to() -> None:
    """The alignment says that the image lies 10 mm to the right of the reference."""
    matrix = np.eye(4)
    matrix[0, 3] = 10.0
    step = {"step": "align", "matrix": matrix.tolist()}
    history = ({"modality": "t1", "steps": []}, {"modality": "pet", "steps": [step]})
    prepared = Prepared({}, {}, (), GRID, history)
    target = task().target
    assert target is not None
    files = {"core": outline(12)}
    still, moved = (
        labels(target.model_copy(update={"drawn_on": name}), files, prepared)
        for name in ("t1", "pet")
    )
    assert np.array_equal(moved[:-2], still[2:]), "two voxels of 5 mm to the left"
    with pytest.raises(DataError, match="no image of ct"):
        labels(target.model_copy(update={"drawn_on": "ct"}), files, prepared)


@pytest.mark.parametrize("voxel_mm", [2.5, 5.0, 9.0])
def test_resampled_labels_keep_their_volume(voxel_mm: float) -> None:
    """Two halves of a ball; finer, equal and coarser than the labels' own 5 mm."""
    size = 24
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    affine[:3, 3] = -5.0 * (size - 1) / 2
    places = nibabel.affines.apply_affine(affine, np.moveaxis(np.indices((size,) * 3), 0, -1))
    ball = np.linalg.norm(places, axis=-1) < 40
    painted = (ball * (1 + (places[..., 0] > 0))).astype(np.uint8)
    half = int(60 / voxel_mm)
    shape = (2 * half, 2 * half + 1, 2 * half + 1)  # no voxel astride of the two
    found = resample_labels(painted, affine, Grid(shape, voxel_mm, (0.0, 0.0, 0.0)))
    for value in (1, 2):
        before, after = (painted == value).sum() * 5.0**3, (found == value).sum() * voxel_mm**3
        assert after == pytest.approx(before, rel=0.06)


def test_a_label_that_fills_its_image_ends_where_the_image_does() -> None:
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    grid = Grid((9, 9, 9), 5.0, (5.0, 5.0, 5.0))
    found = resample_labels(np.full((4, 4, 4), 2, np.uint8), affine, grid)
    assert (found == 2).sum() == 4**3
    assert (found == 0).sum() == 9**3 - 4**3


def test_the_synthetic_hospitals_are_outlined_as_the_shipped_plan_reads_them() -> None:
    """Six heads at 6 mm, four of whom consented: the healthy have an empty outline, not none."""
    plan = plans.load(SHIPPED)
    counts = {"none": 3, "glioma": 3, "meningioma": 0, "pituitary": 0}
    spec = SiteSpec("test", counts, (Scanner("LPS", orientation="LPS"),), missing_rate=0,
                    voxel_mm=6.0)  # fmt: skip
    store = MemoryStore()
    write_site(spec, store, seed=7)
    site = SiteData(plan.task, store, plan.purpose)
    data = bids.dataset(site, **plan.task.dataset.arguments, fractions=(1, 0, 0))["train"]
    told = {person.label: person.diagnosis for person in people(spec, 7)}
    assert len(data) == 4
    for number, subject in enumerate(data.subjects):
        images, target = data[number]
        tumour, t1ce = target == 2, images["t1ce"][0]
        assert tumour.any() == (told[subject] == "glioma")
        if tumour.any():
            apart = t1ce[tumour].mean() - t1ce[t1ce > 0].mean()
            assert apart.abs() > 0.1, "the outline lies where the image differs"
