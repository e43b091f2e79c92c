"""Preparing images: what alignment recovers, whether masks still agree, and how fast it is.

Alignment: a head is moved by 11 mm and turned by 10°, rescaled, given noise and another grid, and
aligned with where it was; the error is the mean distance over the brain. T1 is the MNI152 template
(nilearn's, a real average head), and Colin's (one head, 27 scans) where Debian's ``mricron-data``
is installed. T2 and PD are rendered from the template's grey and white matter, since no real pair
of contrasts with a known displacement is at hand; the PD series of ``shared/data`` is real, and is
aligned with itself. Masks: the two three-modality patients of ``shared/data``. Speed: the same
subjects through a plain MONAI pipeline of the same steps, in turn, one thread each.
"""

from __future__ import annotations

import gzip
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from fedcore.config.section import Function
from fedcore.config.task import Modality, Preprocessing, Task
from fedcore.data import alignment, nifti, registration
from fedcore.data.nifti import Volume
from fedcore.data.preparation import Pipeline, prepare
from fedcore.data.prepared import Kept
from fedcore.data.preparing import Preparer
from fedcore.data.preprocess import Grid, centred_grid, resample, resample_mask
from fedcore.store.filesystem import FilesystemStore

SHIFT_MM, TURN_DEGREES = 11.0, 10.0
GOAL_SAME_MM, GOAL_OTHER_MM = 1.0, 2.0
GOAL_DICE = 0.93
GOAL_COLD, GOAL_CACHED = 1.0, 10.0
TURNS = 5

Row = dict[str, Any]
Subject = Mapping[str, bytes]

_DATA = Path(os.environ.get("FEDCORE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
_COLIN = Path("/usr/share/mricron/templates/ch2.nii.gz")
_FUNCTION = Function(function="a:b")
_KINDS = {"t1": "mr", "t2": "mr", "pd": "mr", "ct": "ct", "pet": "pet"}
_WINDOWS = {"ct": (-200.0, 400.0), "pet": (0.0, 12.0)}


def main(results: list[Row]) -> list[Row]:
    """Append the rows of alignment, masks and throughput."""
    head, brain = mni()
    rows = [
        _row("prepare.align.t1-t1", displaced_error(head["t1"], head["t1"], brain), GOAL_SAME_MM),
        _row("prepare.align.t1-t2", displaced_error(head["t1"], head["t2"], brain), GOAL_OTHER_MM),
        _row("prepare.align.t1-pd", displaced_error(head["t1"], head["pd"], brain), GOAL_OTHER_MM),
    ]
    if _COLIN.exists():
        colin = nifti.read(_COLIN.read_bytes())
        error = displaced_error(colin, colin, _bright(colin))
        rows.append(_row("prepare.align.t1-t1.colin27", error, GOAL_SAME_MM))
    subjects: list[Subject] = [{name: _nifti(volume) for name, volume in head.items()}]
    if _DATA.exists():
        pd = _series(_DATA / "brain_mr_dicom")
        error = displaced_error(pd, pd, _bright(pd))
        rows.append(_row("prepare.align.pd-pd.real", error, GOAL_SAME_MM))
        for name in ("STS_001", "STS_002"):
            rows += [
                _row(f"prepare.masks.{name}.ct-{other}", mask_dice(name, other), GOAL_DICE, "Dice")
                for other in ("pet", "mr_t1")
            ]
            files = {m: _sts(name, m, "image") for m in ("ct", "pet", "mr_t1")}
            files["t1"] = files.pop("mr_t1")
            subjects.append(files)
    rows += throughput(subjects)
    results.extend(rows)
    return rows


def mni() -> tuple[dict[str, Volume], np.ndarray]:
    """The template's head in three contrasts, and points of its brain (N, 3) in mm."""
    from nilearn import datasets

    t1, grey, white = (
        load(resolution=1)
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
        )
    )
    voxels, g, w = (np.asarray(image.dataobj, np.float32) for image in (t1, grey, white))
    voxels *= 1000 / voxels.max()
    fluid = np.clip((voxels > 0) - g - w, 0, 1)
    contrasts = {
        "t1": voxels,
        "t2": 400 * w + 600 * g + 1000 * fluid,
        "pd": 650 * w + 800 * g + 900 * fluid,
    }
    affine = np.asarray(t1.affine, np.float64)
    points = _millimetres(np.argwhere(g + w > 0.5), affine)
    return {name: Volume(image, affine) for name, image in contrasts.items()}, points


def displaced_error(fixed: Volume, image: Volume, brain: np.ndarray) -> float:
    """mm, the mean over ``brain`` (N, 3): where ``image``, moved, is found to lie on ``fixed``."""
    rng = np.random.default_rng(20)
    middle = brain.mean(axis=0)
    truth = displacement(middle)
    grid = Grid((200, 200, 170), 1.2, tuple(map(float, middle)))
    moved = resample(image.voxels, truth @ image.affine, grid)
    noise = 0.02 * np.percentile(moved, 99)
    moved = (1.3 * moved + rng.normal(0, noise, moved.shape)).astype(np.float32)
    found, measured = alignment.align(
        registration.pyramid(fixed, "mr"),
        registration.pyramid(Volume(moved, grid.affine), "mr"),
        "rigid",
    )
    if alignment.concerns(measured):
        raise SystemExit(f"a right alignment was doubted: {alignment.concerns(measured)}")
    ends = [brain @ matrix[:3, :3].T + matrix[:3, 3] for matrix in (found, truth)]
    return float(np.linalg.norm(ends[0] - ends[1], axis=1).mean())


def displacement(middle: np.ndarray) -> np.ndarray:
    """(4, 4): SHIFT_MM, and TURN_DEGREES around ``middle``."""
    along, around = np.array([0.6, -0.6, 0.5]), np.array([1.0, 0.5, -0.7])
    along, around = (vector / np.linalg.norm(vector) for vector in (along, around))
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(TURN_DEGREES) * around).as_matrix()
    matrix[:3, 3] = middle + SHIFT_MM * along - matrix[:3, :3] @ middle
    return matrix


def mask_dice(name: str, other: str) -> float:
    """Of a patient's tumour, outlined on CT and on another modality, on the CT's grid of 2 mm."""
    masks = [nifti.read(_sts(name, modality, "mask")) for modality in ("ct", other)]
    shape = [int(n) for n in np.array(masks[0].voxels.shape) * [0.5, 0.5, 1.6]]
    grid = centred_grid(masks[0].voxels.shape, masks[0].affine, shape=shape, spacing_mm=2.0)
    one, two = (resample_mask(mask.voxels > 0.5, mask.affine, grid) for mask in masks)
    return float(2 * (one & two).sum() / (one.sum() + two.sum()))


def throughput(subjects: list[Subject]) -> list[Row]:
    """Images a second and core: MONAI, fedcore making them, fedcore finding them."""
    import torch

    torch.set_num_threads(1)
    images = sum(map(len, subjects))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = [_written(root, number, subject) for number, subject in enumerate(subjects)]
        store = FilesystemStore(root)
        pipelines = [_pipeline(subject) for subject in subjects]
        kept = [Preparer(pipe, Kept(store, "", pipe)) for pipe in pipelines]
        plain = [{name: _monai(name) for name in subject} for subject in subjects]

        def files(subject: Mapping[str, Path]) -> dict[str, bytes]:
            return {name: path.read_bytes() for name, path in subject.items()}

        def with_monai() -> None:
            for subject, steps in zip(paths, plain, strict=True):
                for name, path in subject.items():
                    steps[name](path)

        def cold() -> None:
            for subject, pipe in zip(paths, pipelines, strict=True):
                assert not prepare(pipe, files(subject)).left_out

        def cached() -> None:
            for number, (subject, preparer) in enumerate(zip(paths, kept, strict=True)):
                preparer(f"sub-{number}", files(subject), {})

        seconds = _in_turn(with_monai, cold, cached)
    monai, made, found = (images / value for value in seconds)
    return [
        _row("prepare.monai", monai, None, "images/s"),
        _row("prepare.cold", made, None, "images/s"),
        _row("prepare.cached", found, None, "images/s"),
        _row("prepare.cold-over-monai", made / monai, GOAL_COLD, "ratio", most=False),
        _row("prepare.cached-over-monai", found / monai, GOAL_CACHED, "ratio", most=False),
    ]


def _in_turn(*jobs: Callable[[], None]) -> list[float]:
    """The median seconds of each, after one round that does not count."""
    taken: list[list[float]] = [[] for _ in jobs]
    for turn in range(TURNS + 1):
        for job, seconds in zip(jobs, taken, strict=True):
            begun = time.perf_counter()
            job()
            if turn:
                seconds.append(time.perf_counter() - begun)
    return [statistics.median(seconds) for seconds in taken]


def _pipeline(subject: Subject) -> Pipeline:
    modalities = {
        name: Modality(path="x", kind=_KINDS[name], window=_WINDOWS.get(name)) for name in subject
    }
    task = Task(
        classes=["a", "b"], modalities=modalities, model=_FUNCTION, dataset=_FUNCTION,
        preprocessing=Preprocessing(shape=[96, 112, 96], spacing_mm=2.0),
    )  # fmt: skip
    return Pipeline.of(task)


def _monai(name: str) -> Any:
    """The same steps as MONAI's users write them."""
    from monai import transforms as t

    if _KINDS[name] == "mr":
        scale: Any = t.NormalizeIntensity(nonzero=True)
    else:
        low, high = _WINDOWS[name]
        scale = t.ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)
    return t.Compose(
        [
            t.LoadImage(image_only=True),
            t.EnsureChannelFirst(),
            t.Orientation(axcodes="RAS", labels=None),
            t.Spacing(pixdim=(2.0, 2.0, 2.0), mode="bilinear"),
            t.ResizeWithPadOrCrop((96, 112, 96)),
            scale,
        ]
    )


def _written(root: Path, number: int, subject: Subject) -> dict[str, Path]:
    paths = {name: root / f"{number}_{name}.nii.gz" for name in subject}
    for name, path in paths.items():
        path.write_bytes(subject[name])
    return paths


def _nifti(volume: Volume) -> bytes:
    """As scanners' images are converted: 16-bit integers, zipped."""
    image = nibabel.Nifti1Image(volume.voxels.round().astype(np.int16), volume.affine)
    return gzip.compress(image.to_bytes(), 6)


def _series(folder: Path) -> Volume:
    """A DICOM series by SimpleITK."""
    import SimpleITK as sitk

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "image.nii.gz"
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
        sitk.WriteImage(sitk.ReadImage(names), path)
        return nifti.read(path.read_bytes())


def _sts(name: str, modality: str, what: str) -> bytes:
    return (_DATA / "sts" / name / modality.upper() / "nifti" / f"{what}.nii.gz").read_bytes()


def _bright(volume: Volume) -> np.ndarray:
    """Points deep in the head: of the brain, nearly."""
    inside = ndimage.binary_erosion(volume.voxels > volume.voxels.mean(), iterations=3)
    return _millimetres(np.argwhere(inside)[::50], volume.affine)


def _millimetres(voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return voxels @ affine[:3, :3].T + affine[:3, 3]


def _row(
    name: str, value: float, goal: float | None, unit: str = "mm", *, most: bool | None = None
) -> Row:
    """``most``: the goal is not to be exceeded; None = as lengths are, and no other unit."""
    most = unit == "mm" if most is None else most
    met = None if goal is None else bool(value <= goal if most else value >= goal)
    return {"name": name, "value": round(value, 3), "unit": unit, "goal": goal, "met": met}
