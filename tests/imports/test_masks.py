"""Masks land on their image's grid: contours, segmentations, NIfTI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import scans
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage
from scans import outcomes, series, write

from fedcore.data.phantoms import dicom
from fedcore.imports.masks import Grid, rasterised
from fedcore.imports.reasons import Unfit

LPS = np.array([-1.0, -1.0, 1.0])


def struct(stack: list[Dataset], rois: dict[str, list[np.ndarray]]) -> Dataset:
    """An RTSTRUCT on a series: name → contours (N, 3), RAS+ mm."""
    first = stack[0]
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    made.SOPInstanceUID = dicom.uid("struct", *rois)
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    for name in ("PatientID", "StudyInstanceUID", "StudyDate"):
        setattr(made, name, first[name].value)
    made.Modality, made.SeriesInstanceUID = "RTSTRUCT", dicom.uid("struct series", *rois)
    inner, study, frame = Dataset(), Dataset(), Dataset()
    inner.SeriesInstanceUID = first.SeriesInstanceUID
    study.RTReferencedSeriesSequence = [inner]
    frame.RTReferencedStudySequence = [study]
    made.ReferencedFrameOfReferenceSequence = [frame]
    made.StructureSetROISequence, made.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points)
            contour.ContourData = [f"{v:.4f}" for v in (points * LPS).ravel()]
            drawn.ContourSequence.append(contour)
        made.StructureSetROISequence.append(roi)
        made.ROIContourSequence.append(drawn)
    return made


def circle(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    return np.array(centre) + radius * np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)


def mask_of(store: Any) -> Any:
    (key,) = [f for o in outcomes(store) for f in o.files if "_mask" in f]
    return scans.image(store, key)


def test_contours_with_a_hole_on_the_image_s_grid(tmp_path: Path) -> None:
    stack = series("CT")
    heights = (13.0, 16.0)
    contours = [circle((0, 0, z), 9.0) for z in heights] + [circle((0, 0, 16.0), 4.0)]
    store = scans.bring(write(tmp_path, stack, [struct(stack, {"GTV": contours, "Heart": []})]))
    found = mask_of(store)
    image = scans.image(store, next(k for k in store.list("sub-") if k.endswith("_ct.nii.gz")))
    assert found[0].shape == image[0].shape
    assert np.allclose(found[1], image[1])
    values = [scans.world(found, at) for at in ((0, 0, 13), (0, 0, 16), (6.5, 0, 16), (0, 0, 19))]
    assert values == [1, 0, 1, 0]
    area = found[0].sum(axis=(0, 1)) * 2.0 * 2.5
    assert sorted(area)[-2:] == pytest.approx([np.pi * (81 - 16), np.pi * 81], rel=0.15)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_contours_along_any_axis(axis: int) -> None:
    """A square of 4 × 6 voxels in the plane 3 of that axis."""
    grid = Grid((9, 10, 11), scans.affine())
    low, high = np.full(3, 1.6), np.full(3, 5.4)
    high[(axis + 2) % 3] = 7.4
    corners = np.array([[low, low], [high, low], [high, high], [low, high]])
    polygon = np.stack([corners[:, 0, 0], corners[:, 0, 1], corners[:, 1, 2]], 1)
    others = [a for a in range(3) if a != axis]
    polygon = np.zeros((4, 3))
    polygon[:, others[0]] = [1.6, 5.4, 5.4, 1.6]
    polygon[:, others[1]] = [1.6, 1.6, 7.4, 7.4]
    polygon[:, axis] = 3
    truth = np.zeros(grid.shape, np.uint8)
    where: list[Any] = [slice(2, 6), slice(2, 8)]
    where.insert(axis, 3)
    truth[tuple(where)] = 1
    points = polygon @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    assert (rasterised(iter([points]), grid) == truth).all()


def test_a_contour_across_slices_is_none(tmp_path: Path) -> None:
    grid = Grid((9, 10, 11), scans.affine())
    skew = np.array([[0, 0, 0], [10, 0, 12], [10, 10, 3], [0, 10, 9.0]])
    with pytest.raises(Unfit, match="no plane"):
        rasterised(iter([skew]), grid)


@pytest.mark.parametrize(("rois", "reason"), [
    ({"Heart": [circle((0, 0, 13.0), 9)]}, "no structure that the rules want"),
    ({"GTV": [circle((900, 0, 13.0), 9)]}, "no structure that the rules want"),
    ({"GTV": []}, "no structure that the rules want"),
])  # fmt: skip
def test_a_mask_that_is_none_is_said(tmp_path: Path, rois: Any, reason: str) -> None:
    stack = series("CT")
    store = scans.bring(write(tmp_path, stack, [struct(stack, rois)]))
    assert [o.reason for o in outcomes(store) if o.what == "quarantined"] == [reason]


def test_a_mask_waits_for_its_image(tmp_path: Path) -> None:
    stack = series("CT")
    later = struct(stack, {"GTV": [circle((0, 0, 13.0), 9)]})
    later.StudyInstanceUID = dicom.uid("later study")
    store = scans.bring(write(tmp_path, [later]))
    assert scans.only(store).reason == "mask without its image"
    assert not store.exists("participants.tsv")
    scans.bring(write(tmp_path / "images", stack), store)
    assert len(outcomes(store)) == 2, "the mask's study was not in that source"
    scans.bring(tmp_path, store)
    assert [o.what for o in outcomes(store)] == ["used", "used"]
    assert not list(store.list("derivatives/fedcore/quarantine/"))
    assert scans.world(mask_of(store), (0, 0, 13)) == 1


def test_a_segmentation(tmp_path: Path) -> None:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    stack = series("CT", AccessionNumber="", ReferringPhysicianName="")
    truth = np.zeros((8, 18, 16), np.uint8)
    truth[2:5, 4:9, 3:7] = 1
    label = hd.seg.SegmentDescription(
        1, "Tumor", codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm,
        hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )  # fmt: skip
    made = hd.seg.Segmentation(
        stack, truth, hd.seg.SegmentationTypeValues.BINARY, [label], dicom.uid("seg series"), 9,
        dicom.uid("seg"), 1, "ACME", "One", "1", "7",
    )  # fmt: skip
    store = scans.bring(write(tmp_path, stack, [made]))
    assert scans.same(mask_of(store), truth.transpose(2, 1, 0), scans.affine())


def test_nifti_by_folders_named_by_the_patient(tmp_path: Path) -> None:
    folder = tmp_path / "4711"
    (folder / "post").mkdir(parents=True)
    image = scans.voxels().astype(np.float32)
    mask = image > 500
    for name, data in (("t1_gd.nii.gz", image), ("tumour_mask.nii.gz", mask.astype(np.uint8))):
        file: Any = nibabel.Nifti1Image(data, scans.affine())
        nibabel.save(file, folder / "post" / name)
    (tmp_path / "stray.nii.gz").write_bytes(b"nobody's")
    (tmp_path / "4712").mkdir()
    (tmp_path / "4712" / "flair.nii.gz").write_bytes(b"broken")
    store = scans.bring(tmp_path)
    used, marked = [o for o in outcomes(store) if o.what == "used"]
    assert used.modality == "t1ce"
    assert scans.same(scans.image(store, used.files[0]), image, scans.affine())
    assert scans.same(scans.image(store, marked.files[0]), mask, scans.affine())
    (bad,) = [o for o in outcomes(store) if o.what == "quarantined"]
    assert (bad.modality, bad.reason) == ("flair", "not NIfTI")
    assert len(list(store.list("derivatives/fedcore/quarantine/files_"))) == 1
    assert len(store.get("participants.tsv").splitlines()) == 2
