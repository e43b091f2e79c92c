"""Synthetic images as BIDS files, marked so that nobody takes them for a patient's.

The mark is in ``dataset_description.json``, in a column of ``participants.tsv``, in the name of
every subject, and beside every image. ``fedcore.data.bids`` reads such subjects where a plan allows
it, and then to train on only.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from fedcore.config.plan import Plan
from fedcore.config.task import Modality
from fedcore.data.participants import ID, SYNTHETIC
from fedcore.data.preparation import Pipeline
from fedcore.data.preprocess import Affine, Grid
from fedcore.errors import ConfigError

FOLDER = "derivatives/fedcore/synthetic/"
"""Where filled-in images lie, below a site's prefix: no plan's glob reaches there."""

FloatArray = NDArray[np.float32]
Images = Mapping[str, FloatArray]
"""Modality → image (X, Y, Z) as a model takes it, that is, normalised."""


@dataclass(frozen=True)
class Origin:
    """What made them: ``model`` as JSON has it, and what is ``said`` of its privacy."""

    model: Mapping[str, Any]
    said: str

    def described(self) -> dict[str, Any]:
        """The fields that every JSON file here has."""
        return {"Synthetic": True, "GeneratedBy": [{"Name": "fedcore", **self.model}]}


def dataset_files(plan: Plan, diagnoses: Sequence[str], origin: Origin) -> dict[str, bytes]:
    """Key → bytes of what describes the data set: a subject for each of the ``diagnoses``.

    Consent is to the plan's purpose, for which the subjects gave theirs that the model was trained
    on: what came of them is for nothing else.
    """
    arguments = plan.task.dataset.arguments
    label = arguments.get("label", "diagnosis")
    consent = arguments.get("consent_column", "consent") or "consent"
    columns = (ID, SYNTHETIC, label, consent, "sex", "age", "scanner")
    rows = [
        (subject_of(number), "true", diagnosis, plan.purpose, "n/a", "n/a", "n/a")
        for number, diagnosis in enumerate(diagnoses)
    ]
    table = "".join("\t".join(row) + "\n" for row in [columns, *rows])
    description = {
        "Name": "Synthetic subjects: none of them exists",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        **origin.described(),
        "Purpose": plan.purpose,
        "Privacy": origin.said,
    }
    meaning = {SYNTHETIC: {"Description": "true: nobody; drawn from a model"}}
    return {
        "dataset_description.json": _json(description),
        "participants.json": _json(meaning),
        "participants.tsv": table.encode(),
        ".bidsignore": b"**/ct\n",  # not in BIDS yet
        "README": b"Every image here was drawn from a model. No subject exists. Not for diagnosis,"
        b"\nand not to judge a model by: see dataset_description.json for what made them.\n",
    }


def image_files(
    plan: Plan, subject: str, images: Images, origin: Origin, affine: Affine | None = None
) -> Iterator[tuple[str, bytes]]:
    """Keys and bytes of one subject's images and of what stands beside each.

    They are where the plan looks for them and, but for MR, whose intensities are relative, in the
    unit that it takes. ``affine``: of their grid; None is around the origin. Raises ConfigError
    where a modality's path leaves open what a file is called.
    """
    if affine is None:
        affine = _affine(plan)
    for name, image in images.items():
        modality = plan.task.modalities[name]
        key = f"{subject}/{_path(name, modality, subject)}"
        yield key, _nifti(_in_its_unit(image, modality), affine)
        unit = {"ct": "HU", "pet": "SUV"}.get(modality.kind, "arbitrary")
        yield key.removesuffix(".nii.gz") + ".json", _json({**origin.described(), "Units": unit})


def subject_of(number: int) -> str:
    """
    >>> subject_of(0)
    'sub-synthetic0001'
    """
    return f"sub-synthetic{number + 1:04d}"


def _affine(plan: Plan) -> Affine:
    """Of the plan's grid around the origin. Raises ConfigError if there is none."""
    arguments = plan.task.dataset.arguments
    found = Pipeline.of(plan.task, arguments.get("shape"), arguments.get("spacing_mm"))
    if found.shape is None or found.spacing_mm is None:
        raise ConfigError("the plan has no mr, ct or pet modality, and so no grid for its images")
    return Grid(found.shape, found.spacing_mm, (0.0, 0.0, 0.0)).affine


def _path(name: str, modality: Modality, subject: str) -> str:
    path = modality.path.replace("*", subject, 1)
    if any(mark in path for mark in "*?[") or not path.endswith(".nii.gz"):
        raise ConfigError(
            f"task.modalities.{name}.path {modality.path!r}: to write a file that it finds, it "
            "must have one star, for the subject, and end in .nii.gz"
        )
    return path


def _in_its_unit(image: FloatArray, modality: Modality) -> FloatArray:
    if modality.window is None:
        return image
    low, high = map(np.float32, modality.window)
    scaled: FloatArray = low + image.clip(0, 1) * (high - low)
    return scaled


def _nifti(image: FloatArray, affine: Affine) -> bytes:
    """A .nii.gz of float32. Equal input, equal bytes."""
    file = nibabel.Nifti1Image(image, affine)  # type: ignore[no-untyped-call]
    file.header.set_xyzt_units("mm", "sec")  # type: ignore[no-untyped-call]
    return gzip.compress(file.to_bytes(), compresslevel=1, mtime=0)


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, indent=1).encode() + b"\n"
