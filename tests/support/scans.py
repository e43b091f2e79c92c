"""DICOM series made for tests, and imports of them into a store in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from fedcore.data.phantoms import dicom
from fedcore.imports import records
from fedcore.imports import rules as all_rules
from fedcore.imports.job import run
from fedcore.imports.records import Outcome
from fedcore.imports.run import Importer, Tally
from fedcore.imports.secret import Secret
from fedcore.imports.sources import open_source
from fedcore.store.api import Store
from fedcore.store.memory import MemoryStore

SECRET = Secret(b"a hospital's secret, of 32 bytes")
SHAPE, SPACING = (16, 18, 8), (2.0, 2.5, 3.0)
DATA = Path(os.environ.get("FEDCORE_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))
real_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real scans in {DATA}")

Array = NDArray[Any]


def voxels(seed: int = 0, shape: Sequence[int] = SHAPE) -> NDArray[np.int16]:
    """Something in which every voxel is its own: numbers from 0 to 999."""
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(np.int16)


def affine(spacing: Sequence[float] = SPACING) -> NDArray[np.float64]:
    """RAS+, off the origin."""
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = (-15.0, -20.0, 7.0)
    return matrix


def tilted(degrees: float, step: float = 3.0) -> NDArray[np.float64]:
    """Slices turned about x, of a table that moves along z: a gantry's tilt."""
    angle = np.deg2rad(degrees)
    matrix = affine()
    matrix[:3, 1] = 2.5 * np.array([0, np.cos(angle), np.sin(angle)])
    matrix[:3, 2] = (0, 0, step)
    return matrix


def series(
    modality: str = "CT",
    *,
    patient: str = "4711",
    study: object = "study",
    name: object = None,
    image: NDArray[np.int16] | None = None,
    place: Array | None = None,
    slope: float = 1.0,
    intercept: float = 0.0,
    **fields: Any,
) -> list[Dataset]:
    """A sound series; ``fields`` are DICOM keywords."""
    described = {
        "Modality": modality, "PatientID": patient, "PatientName": "Roe^Jane", "PatientSex": "F",
        "PatientBirthDate": "19700512", "StudyDate": "20210310", "StudyTime": "101500",
        "SeriesDate": "20210310", "SeriesTime": "101600", "AcquisitionDate": "20210310",
        "AcquisitionTime": "101600", "StudyID": "1", "SeriesNumber": 1,
        "Manufacturer": "ACME", "ManufacturerModelName": "One",
        "StudyInstanceUID": dicom.uid("study", study, patient),
        "SeriesInstanceUID": dicom.uid("series", name or modality, study, patient),
        "FrameOfReferenceUID": dicom.uid("frame", study, patient),
        "SeriesDescription": {"CT": "Head", "PT": "PET AC", "MR": "Ax T1"}.get(modality, ""),
    } | fields  # fmt: skip
    return dicom.slices(
        voxels() if image is None else image, affine() if place is None else place,
        described, slope=slope, intercept=intercept,
    )  # fmt: skip


def pet(**fields: Any) -> list[Dataset]:
    """70 kg, 350 MBq an hour before, Bq/mL corrected to the start of the scan."""
    drug = Dataset()
    drug.RadiopharmaceuticalStartTime = "091600"
    drug.Radiopharmaceutical = "Fluorodeoxyglucose F^18^"
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = 3.5e8, 6586.2
    known = {"Units": "BQML", "DecayCorrection": "START", "PatientWeight": 70.0,
             "CorrectedImage": ["DECY", "ATTN"],
             "RadiopharmaceuticalInformationSequence": [drug]}  # fmt: skip
    return series("PT", **(known | fields))


def write(folder: Path, *stacks: Sequence[Dataset]) -> Path:
    """The stacks as files below ``folder``, each in a folder of its own."""
    for number, stack in enumerate(stacks):
        for index, image in enumerate(stack):
            path = folder / f"stack-{number}" / f"IM{index:04}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(dicom.file(image))
    return folder


def bring(source: Path | str, store: Store | None = None, **options: Any) -> Store:
    """Import ``source`` into ``store``, or a new one."""
    into = store if store is not None else MemoryStore()
    tally(source, into, **options)
    return into


def tally(source: Path | str, store: Store, **options: Any) -> Tally:
    """Import, and say what that did."""
    rules = options.pop("rules", None) or all_rules.load(None)
    return run(open_source(str(source)), Importer(store, SECRET, rules, **options))


def outcomes(store: Store) -> list[Outcome]:
    """What became of every series."""
    return [outcome for record in records.every(store) for outcome in record.outcomes]


def only(store: Store) -> Outcome:
    """What became of the only one."""
    (outcome,) = outcomes(store)
    return outcome


def reason(folder: Path, stack: Sequence[Dataset], **options: Any) -> str | None:
    """Why a series is set aside; None if it is used."""
    outcome = only(bring(write(folder, stack), **options))
    assert outcome.what == ("used" if outcome.reason is None else "quarantined")
    return outcome.reason


def image(store: Store, key: str) -> tuple[Array, Array]:
    """Voxels and affine of a .nii.gz."""
    import gzip

    loaded: Any = nibabel.Nifti1Image.from_bytes(gzip.decompress(store.get(key)))
    return loaded.get_fdata(), loaded.affine


def world(found: tuple[Array, Array], at: Sequence[float]) -> float:
    """The value of the voxel nearest to a place (RAS+ mm)."""
    data, matrix = found
    index = np.rint(np.linalg.inv(matrix) @ [*at, 1.0])[:3].astype(int)
    assert all(0 <= i < n for i, n in zip(index, data.shape, strict=True)), index
    return float(data[tuple(index)])


def same(found: tuple[Array, Array], truth: Array, matrix: Array) -> bool:
    """Whether an image holds ``truth`` where ``matrix`` puts it, however it is stored."""
    data, stored = found
    back = np.linalg.inv(stored) @ matrix
    index = np.stack(np.meshgrid(*map(np.arange, truth.shape), indexing="ij"), -1).reshape(-1, 3)
    at = index @ back[:3, :3].T + back[:3, 3]
    near = np.rint(at).astype(int)
    assert np.abs(at - near).max() < 0.01, "the grids differ"
    return data.size == truth.size and np.allclose(data[tuple(near.T)], truth.reshape(-1))


Change = Callable[[list[Dataset]], object]
