"""What a subject's images go through before a model sees them, in training and in serving.

A pure function of the files' bytes, the pipeline and what a human said about doubtful alignments.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, Literal

import numpy as np

from fedcore.config.task import Modality, Preprocessing, Task
from fedcore.data import alignment, brain, intensities, nifti, preprocess, registration, retina
from fedcore.data.history import STEPS, Step, listed, oriented, resampled, step
from fedcore.data.intensities import Mask
from fedcore.data.nifti import Volume
from fedcore.data.preprocess import FloatArray, Grid
from fedcore.errors import ConfigError, DataError

Verdict = Literal["accept", "as_scanned", "reject"]
"""A human's, on a doubtful image: as aligned, where the scanner says that it is, not at all."""

TO_BE_LOOKED_AT, REJECTED = "to be looked at", "rejected"
"""How the reasons of what is left out end, for a doubtful ``alignment`` or ``brain mask``."""

_LIBRARIES = ("numpy", "scipy", "nibabel", "pillow")


@dataclass(frozen=True)
class Pipeline:
    """Everything that a prepared image depends on, but for the image. ``how`` is the plan's.

    ``shape``, ``spacing_mm``: of the grid that MR, CT and PET share; None if there is none of them.
    """

    modalities: Mapping[str, Modality]
    how: Preprocessing
    shape: tuple[int, int, int] | None
    spacing_mm: float | None

    @classmethod
    def of(
        cls, task: Task, shape: Sequence[int] | None = None, spacing_mm: float | None = None
    ) -> Pipeline:
        """A task's, with the grid that its dataset's arguments or its ``preprocessing`` give.

        Raises ConfigError if there is no grid, or it is none.
        """
        how = task.preprocessing or Preprocessing()
        shape, spacing_mm = shape or how.shape, spacing_mm or how.spacing_mm
        if not any(modality.shares_grid for modality in task.modalities.values()):
            return cls(task.modalities, how, None, None)
        if shape is None or spacing_mm is None:
            raise ConfigError(
                "no grid to bring images onto: give shape and spacing_mm in task.preprocessing, or "
                "among the dataset's arguments"
            )
        if len(shape) != 3 or min(shape) < 1 or not spacing_mm > 0:
            raise ConfigError(
                f"dataset arguments shape: {list(shape)}, spacing_mm: {spacing_mm}; give three "
                "positive numbers of voxels and a positive edge length"
            )
        width, depth, height = shape
        return cls(task.modalities, how, (width, depth, height), spacing_mm)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all that it does, the versions of its steps included.

        Where files lie is not in it, and neither are fields that change nothing, so that plans
        that prepare alike share what is prepared.
        """
        how = self.how.model_dump(mode="json", exclude={"shape", "spacing_mm"})
        fields = {
            "modalities": {
                name: modality.model_dump(mode="json", exclude={"path"})
                for name, modality in sorted(self.modalities.items())
            },
            "how": how,
            "grid": [*(self.shape or ()), self.spacing_mm],
            "steps": STEPS,
        }
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def tensors(self, prepared: Prepared) -> dict[str, FloatArray]:
        """Modality → image with its channels first: (1, X, Y, Z), of a photo (3, X, Y)."""
        return {
            name: image if self.modalities[name].dimensions == 2 else image[None]
            for name, image in prepared.images.items()
        }

    def order(self, names: Sequence[str] | Mapping[str, Any]) -> list[str]:
        """A subject's modalities: the reference first, if it has it, then as in the plan."""
        return sorted(names, key=lambda name: (name != self.how.reference, self._place(name)))

    def _place(self, name: str) -> int:
        return list(self.modalities).index(name)


@dataclass(frozen=True)
class Doubt:
    """An image that a human should look at. ``pair``: the files (digest) that a verdict is on."""

    modality: str
    pair: str
    concerns: tuple[str, ...]
    measures: Mapping[str, float]
    verdict: str | None = None


@dataclass(frozen=True)
class Prepared:
    """One subject. ``images``: modality → float32 (X, Y, Z), of a photo (3, X, Y); in plan order.

    ``left_out``: modality → (reason that may be counted, what a human is told).
    ``history``: what was done, step by step, as JSON has it. ``grid``: of MR, CT and PET; None
    without such an image.
    """

    images: Mapping[str, FloatArray]
    left_out: Mapping[str, tuple[str, str]]
    doubts: tuple[Doubt, ...]
    grid: Grid | None
    history: tuple[Mapping[str, Any], ...]


def prepare(
    pipeline: Pipeline,
    files: Mapping[str, bytes],
    verdicts: Mapping[str, tuple[str, Verdict]] | None = None,
    *,
    max_bytes: int | None = None,
) -> Prepared:
    """A subject's images as a model takes them, from modality → ``.nii``, ``.nii.gz`` or photo.

    ``verdicts``: modality → (pair, verdict) of a human. ``max_bytes``: what each may unzip to.
    One bad file is left out, with its reason, and never raises. Raises ConfigError if the plan
    aligns and SimpleITK is not installed.
    """
    subject = _Subject(pipeline, files, verdicts or {})
    for name in pipeline.order(files):
        try:
            subject.add(name, files[name], max_bytes)
        except DataError as error:
            subject.left_out[name] = (error.reason, str(error))
    return subject.prepared()


def pair_of(what: str, reference: bytes, image: bytes) -> str:
    """What a verdict is on: 16 hex digits of the digest of what was done, and of the two files."""
    digests = b"".join(hashlib.sha256(data).digest() for data in (reference, image))
    return hashlib.sha256(what.encode() + digests).hexdigest()[:16]


class _Subject:
    """One subject's images, one after the other, onto one grid: that of the first of them.

    Those that share no grid are prepared each by itself.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        files: Mapping[str, bytes],
        verdicts: Mapping[str, tuple[str, Verdict]],
    ) -> None:
        self.left_out: dict[str, tuple[str, str]] = {}
        self._pipeline, self._how = pipeline, pipeline.how
        self._files, self._verdicts = files, verdicts
        self._images: dict[str, FloatArray] = {}
        self._history: dict[str, list[Step]] = {}
        self._doubts: list[Doubt] = []
        self._reference = ""
        self._grid: Grid | None = None
        self._mask: Mask | None = None
        self._pyramid: registration.Pyramid | None = None

    def add(self, name: str, data: bytes, max_bytes: int | None) -> None:
        """Raises DataError where the image is left out."""
        modality = self._pipeline.modalities[name]
        if not modality.shares_grid:
            alone = retina.photo if modality.kind == "fundus" else retina.volume
            self._images[name], self._history[name] = alone(modality, data, max_bytes)
            return
        volume = nifti.read(data, max_bytes=max_bytes)
        steps = [oriented(volume)]
        if self._grid is None:
            grid, mask = self._onto(name, volume, steps)
        else:
            grid, mask = self._grid, self._mask
            volume = self._aligned(name, volume, steps)
        image = preprocess.resample(*volume, grid)
        steps.append(resampled(grid))
        if self._reference and image.min() == image.max():
            raise DataError("off the grid", reason=f"no overlap with {self._reference}")
        self._images[name] = self._normalised(image, modality, mask, steps)
        self._history[name] = steps
        if self._grid is None:  # only now is it known to be of use
            self._reference, self._grid, self._mask = name, grid, mask
            if self._how.align != "none" and len(self._files) > 1:
                self._pyramid = registration.pyramid(volume, modality.kind)

    def prepared(self) -> Prepared:
        """All that was added."""
        placed = {name: i for i, name in enumerate(self._pipeline.modalities)}
        names = sorted(self._images, key=placed.__getitem__)
        return Prepared(
            images={name: self._images[name] for name in names},
            left_out={name: self.left_out[name] for name in sorted(self.left_out)},
            doubts=tuple(self._doubts),
            grid=self._grid,
            history=tuple(
                {"modality": name, "sha256": hashlib.sha256(self._files[name]).hexdigest(),
                 "reference": self._reference_of(name), "steps": self._history[name]}
                for name in names
            ),
        )  # fmt: skip

    def _reference_of(self, name: str) -> str:
        """The modality whose place an image took: with a grid of its own, none but itself."""
        return self._reference if self._pipeline.modalities[name].shares_grid else name

    def _onto(self, name: str, volume: Volume, steps: list[Step]) -> tuple[Grid, Mask | None]:
        """The grid around the reference, and the brain on it if the plan asks for it."""
        shape, spacing_mm = self._pipeline.shape, self._pipeline.spacing_mm
        assert shape is not None  # noqa: S101  # by ``Pipeline.of``
        assert spacing_mm is not None  # noqa: S101
        grid = preprocess.centred_grid(
            volume.voxels.shape, volume.affine, shape=shape, spacing_mm=spacing_mm,
        )  # fmt: skip
        if not self._how.brain_mask:
            return grid, None
        kind = self._pipeline.modalities[name].kind
        fine = preprocess.covering_grid(volume.voxels.shape, volume.affine, brain.WORKING_MM)
        found = brain.brain(preprocess.resample(*volume, fine), kind, brain.WORKING_MM)
        concerns = brain.doubts(found, brain.WORKING_MM)
        millilitres = float(found.sum()) * brain.WORKING_MM**3 / 1000
        steps.append(step("brain_mask", volume_ml=round(millilitres, 1), **{"from": name}))
        measured = {"volume_ml": round(millilitres, 1)}
        verdict = self._verdict(name, "brain mask", name, concerns, measured)
        if not found.any() or (concerns and verdict != "accept"):
            raise _doubtful("brain mask", verdict, concerns)
        if self._how.centre == "brain":
            middle = np.argwhere(found).mean(axis=0)
            x, y, z = map(float, fine.affine[:3, :3] @ middle + fine.affine[:3, 3])
            grid = replace(grid, centre_mm=(x, y, z))
        return grid, preprocess.resample_mask(found, fine.affine, grid)

    def _aligned(self, name: str, volume: Volume, steps: list[Step]) -> Volume:
        """``volume`` where the reference's patient lies: another affine, the same voxels."""
        if self._how.align == "none":
            return volume
        assert self._pyramid is not None  # noqa: S101  # made with the grid
        moving = registration.pyramid(volume, self._pipeline.modalities[name].kind)
        try:
            matrix, measured = alignment.align(self._pyramid, moving, self._how.align)
            concerns = alignment.concerns(measured)
        except DataError as error:
            matrix, measured, concerns = np.eye(4), {}, [str(error)]
        verdict = self._verdict(name, self._how.align, self._reference, concerns, measured)
        if concerns and verdict == "as_scanned":
            matrix = np.eye(4)
        elif concerns and verdict != "accept":
            raise _doubtful("alignment", verdict, concerns)
        steps.append(
            step("align", to=self._reference, how=self._how.align, matrix=listed(matrix),
                 measures=measured, concerns=concerns, verdict=verdict,
                  libraries=registration.library())
        )  # fmt: skip
        return Volume(volume.voxels, np.linalg.inv(matrix) @ volume.affine)

    def _normalised(
        self,
        image: FloatArray,
        modality: Modality,
        mask: Mask | None,
        steps: list[Step],
    ) -> FloatArray:
        scaled = intensities.normalise(
            image, modality.kind, modality.window, landmarks=modality.landmarks, mask=mask
        )
        how = modality.model_dump(mode="json", exclude={"path"}, exclude_none=True)
        steps.append(step("normalise", **how, within="foreground" if mask is None else "brain"))
        return scaled

    def _verdict(
        self,
        name: str,
        what: str,
        reference: str,
        concerns: list[str],
        measured: Mapping[str, float],
    ) -> str | None:
        """What is to be done with a doubtful image: a human's word on it, or the plan's."""
        if not concerns:
            return None
        pair = pair_of(what, self._files[reference], self._files[name])
        on, said = self._verdicts.get(name, ("", None))
        verdict = said if on == pair else None
        self._doubts.append(Doubt(name, pair, tuple(concerns), measured, verdict))
        if verdict is None and self._how.doubtful == "as_scanned":
            return "as_scanned"
        return verdict


def _doubtful(what: str, verdict: str | None, concerns: Sequence[str]) -> DataError:
    reason = f"{what} {REJECTED if verdict == 'reject' else TO_BE_LOOKED_AT}"
    return DataError(f"{reason}: {'; '.join(concerns)}", reason=reason)


def libraries() -> dict[str, str]:
    """The versions of what computes a prepared image."""
    return {name: metadata.version(name) for name in _LIBRARIES}
