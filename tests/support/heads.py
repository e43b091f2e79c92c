"""Heads for the tests of preparation: phantoms of 3 mm, moved, written, and a plan's task."""

from __future__ import annotations

import functools
import gzip
from typing import Any

import nibabel
import numpy as np
from scipy.spatial.transform import Rotation

from fedcore.config.task import Task
from fedcore.data.nifti import Volume
from fedcore.data.phantoms import SiteSpec, subject
from fedcore.data.phantoms.brain.lesions import CLASSES
from fedcore.data.phantoms.scanner import Scanner
from fedcore.data.preprocess import Grid, resample

SPEC = SiteSpec(
    "heads", dict.fromkeys(CLASSES, 1), (Scanner("Plain 3T"),), missing_rate=0, voxel_mm=3.0
)
PATHS = {
    "t1ce": "anat/{}_ce-gadolinium_T1w.nii.gz",
    "flair": "anat/{}_FLAIR.nii.gz",
    "ct": "ct/{}_ct.nii.gz",
    "pet": "pet/{}_pet.nii.gz",
}
MIDDLE = (0.0, -18.0, 8.0)


@functools.cache
def head(person: int, modality: str) -> Volume:
    phantom = subject(SPEC, person, 7)
    return Volume(phantom.images[modality].astype(np.float32), phantom.affine)


def displacement(shift_mm: float = 11.0, degrees: float = 10.0) -> np.ndarray:
    along, around = np.array([0.6, -0.6, 0.5]), np.array([1.0, 0.5, -0.7])
    matrix = np.eye(4)
    turn = np.radians(degrees) * around / np.linalg.norm(around)
    matrix[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
    shift = shift_mm * along / np.linalg.norm(along)
    matrix[:3, 3] = np.array(MIDDLE) + shift - matrix[:3, :3] @ np.array(MIDDLE)
    return matrix


def moved(volume: Volume, matrix: np.ndarray) -> Volume:
    """``volume`` after the patient has moved by ``matrix``, scanned on a grid of its own."""
    grid = Grid((68, 76, 66), 3.2, MIDDLE)
    return Volume(resample(volume.voxels, matrix @ volume.affine, grid), grid.affine)


def error_mm(found: np.ndarray, truth: np.ndarray) -> float:
    """The mean over a ball as large as a brain."""
    axes = np.meshgrid(*[np.linspace(-70, 70, 9)] * 3)
    points = np.stack([axis.ravel() for axis in axes], axis=1)
    points = points[np.linalg.norm(points, axis=1) < 70] + MIDDLE
    ends = [points @ matrix[:3, :3].T + matrix[:3, 3] for matrix in (found, truth)]
    return float(np.linalg.norm(ends[0] - ends[1], axis=1).mean())


def nifti_of(volume: Volume) -> bytes:
    image = nibabel.Nifti1Image(volume.voxels, volume.affine)
    return gzip.compress(image.to_bytes(), 1, mtime=0)


@functools.cache
def scan(person: int, modality: str, shift_mm: float = 0.0) -> bytes:
    """A file; with ``shift_mm`` the patient has moved, and turned by as many degrees."""
    volume = head(person, modality)
    return nifti_of(moved(volume, displacement(shift_mm, shift_mm)) if shift_mm else volume)


def task(*names: str, dataset: dict[str, Any] | None = None, **preprocessing: Any) -> Task:
    """Of a plan with these modalities; keyword arguments are those of ``preprocessing``."""
    kinds = {"t1ce": "mr", "flair": "mr", "ct": "ct", "pet": "pet"}
    windows = {"ct": [0, 80], "pet": [0, 12]}
    modalities = {
        name: {
            "path": PATHS[name].format("*"),
            "kind": kinds[name],
            **({"window": windows[name]} if name in windows else {}),
        }
        for name in sorted(names or kinds)
    }
    return Task.model_validate(
        {
            "classes": ["none", "glioma"],
            "modalities": modalities,
            "preprocessing": {"shape": [24, 28, 24], "spacing_mm": 6.0, **preprocessing},
            "model": {"function": "a.b:model"},
            "dataset": {"function": "fedcore.data.bids:dataset", "arguments": dataset or {}},
        }
    )


def site(store: Any, subjects: dict[str, dict[str, bytes]]) -> None:
    """A BIDS dataset: subject → modality → file."""
    rows = "".join(f"{name}\tglioma\tstudy\n" for name in subjects)
    store.put("participants.tsv", f"participant_id\tdiagnosis\tconsent\n{rows}".encode())
    for name, files in subjects.items():
        for modality, data in files.items():
            store.put(f"{name}/{PATHS[modality].format(name)}", data)
