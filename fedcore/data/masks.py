"""A subject's outlines → the class of each voxel of its grid, as a segmentation learns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedcore.config.task import Structure, Target
from fedcore.data import layout, nifti
from fedcore.data.preparation import Prepared
from fedcore.data.preprocess import Affine, resample_labels
from fedcore.data.site import Files
from fedcore.errors import DataError, NotFound

Labels = NDArray[np.uint8]

LeftOut = tuple[str, str]
"""A file's key, and why it is not used."""


@dataclass(frozen=True)
class Outlines:
    """Where the outlines of a site's subjects lie. ``folders``: subject → paths below its own."""

    target: Target
    files: Files
    root: str
    folders: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, target: Target, files: Files, root: str) -> Self:
        """Look for the files of a dataset below ``root``, and read none."""
        root = f"{root}{target.folder.rstrip('/')}/"
        return cls(target, files, root, layout.by_subject(files.list(f"{root}sub-"), root))

    def labels(
        self, subject: str, prepared: Prepared, images: Mapping[str, str]
    ) -> tuple[Labels, list[LeftOut]]:
        """Each voxel's class, as ``labels`` gives it, and masks that are not used.

        ``images``: the keys of the subject's images, whose session the masks must be of. Raises
        DataError as ``labels``.
        """
        session = layout.session_of(key.partition(f"{subject}/")[2] for key in images.values())
        paths, surplus = chosen(self.target, self.folders.get(subject, ()), session)
        folder = f"{self.root}{subject}/"
        try:
            found = {name: self.files.get(folder + path) for name, path in paths.items()}
        except NotFound as error:
            raise DataError(str(error), reason="gone while reading") from error
        unused = [(folder + path, reason) for path, reason in surplus]
        return labels(self.target, found, prepared), unused


def chosen(
    target: Target, paths: Sequence[str], session: str
) -> tuple[dict[str, str], list[LeftOut]]:
    """Structure → its file among a subject's ``paths``, and (path, reason) of those not used.

    Those of the images' ``session`` alone; of several the first by name.
    """
    patterns = {name: session + of.path for name, of in target.structures.items()}
    found, surplus = dict[str, str](), list[LeftOut]()
    for name, pattern in patterns.items():
        matches = [path for path in paths if layout.fits(path, pattern)]
        if matches:
            found[name] = matches[0]
        surplus += [(path, "further mask") for path in matches[1:]]
    return found, surplus


def labels(target: Target, files: Mapping[str, bytes], prepared: Prepared) -> Labels:
    """(X, Y, Z) on the grid of ``prepared``: 0 = background, then the structures in their order.

    ``files``: structure → ``.nii`` or ``.nii.gz``. One that is not there was not drawn, and is
    nowhere. Raises DataError without any, for a file that cannot be read, and where they are not
    drawn on one grid.
    """
    if not files or prepared.grid is None:
        raise DataError("nobody drew an outline", reason="no mask")
    volumes = {name: _read(name, data) for name, data in files.items()}
    first = next(iter(volumes.values()))
    painted = np.zeros(first.voxels.shape, np.uint8)
    for value, (name, structure) in enumerate(target.structures.items(), start=1):
        if name in volumes:
            voxels, affine = volumes[name]
            if voxels.shape != painted.shape or not np.allclose(affine, first.affine, atol=1e-3):
                raise DataError(f"mask of {name}: not on the grid of the others",
                                reason="masks on different grids")  # fmt: skip
            painted[_inside(structure, voxels)] = value
    return resample_labels(painted, _placed(target, first.affine, prepared), prepared.grid)


def placement(entry: Mapping[str, Any]) -> Affine:
    """(4, 4), the reference's millimetres → the image's, out of its history."""
    found = [step["matrix"] for step in entry["steps"] if step["step"] == "align"]
    return np.array(found[0] if found else np.eye(4), np.float64)


def _read(name: str, data: bytes) -> nifti.Volume:
    try:
        return nifti.read(data, blank=True)
    except DataError as error:
        raise DataError(f"mask of {name}: {error}", reason=f"mask {error.reason}") from error


def _inside(structure: Structure, voxels: NDArray[np.float32]) -> NDArray[np.bool_]:
    if structure.values is None:
        return voxels > 0
    return np.isin(np.rint(voxels), structure.values)


def _placed(target: Target, affine: Affine, prepared: Prepared) -> Affine:
    """Where the image that was drawn on went, the outline goes."""
    if target.drawn_on is None:
        return affine
    entry = next((e for e in prepared.history if e["modality"] == target.drawn_on), None)
    if entry is None:
        raise DataError(
            f"there is no image of {target.drawn_on}, which the outline was drawn on",
            reason="no image that the mask was drawn on",
        )
    moved: Affine = np.linalg.inv(placement(entry)) @ affine
    return moved
