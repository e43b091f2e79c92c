"""Faces removed from heads, on request: everything before a plane below the brain's front.

Quickshear (Schimke and Hale 2011) shears off what lies outside of the brain's convex hull in
profile. The brain mask is fedcore's own; where it cannot be right, nothing is cut and the image is
set aside: better none than a face.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray
from scipy import ndimage

from fedcore.data import brain
from fedcore.data.preprocess import covering_grid, resample
from fedcore.imports.reasons import Reason, Unfit
from fedcore.imports.visits import Volume

_BUFFER_MM = 10.0


def deface(volume: Volume, modality: str) -> Volume:
    """``volume`` without the face; PET, which shows none, as it is. Raises Unfit."""
    if modality == "pet":
        return volume
    keep = _kept(volume, "ct" if modality == "ct" else "mr")
    voxels = np.where(keep, volume.voxels, volume.voxels.min())
    return replace(volume, voxels=voxels, notes=(*volume.notes, "face removed (Quickshear)"))


def _kept(volume: Volume, kind: Any) -> NDArray[np.bool_]:
    """What stays, on the image's grid."""
    from quickshear import quickshear

    shape = volume.voxels.shape
    to_ras: Any = io_orientation(volume.affine)  # type: ignore[no-untyped-call]
    image = apply_orientation(np.asarray(volume.voxels, np.float32), to_ras)  # type: ignore[no-untyped-call]
    affine = volume.affine @ inv_ornt_aff(to_ras, shape)  # type: ignore[no-untyped-call]
    grid = covering_grid(image.shape, affine, brain.WORKING_MM)
    found = brain.brain(resample(image, affine, grid), kind, brain.WORKING_MM)
    doubts = brain.doubts(found, brain.WORKING_MM)
    if doubts:
        raise Unfit(Reason.NO_FACE_CUT, "; ".join(doubts))
    whole: Any = nibabel.Nifti1Image(np.ones(grid.shape, np.uint8), grid.affine)  # type: ignore[no-untyped-call]
    mask: Any = nibabel.Nifti1Image(found.astype(np.uint8), grid.affine)  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library, about numpy's cross product
        cut = np.asanyarray(quickshear(whole, mask, _BUFFER_MM / brain.WORKING_MM).dataobj)
    to_grid = np.linalg.inv(grid.affine) @ volume.affine
    kept = ndimage.affine_transform(
        cut, to_grid[:3, :3], to_grid[:3, 3], shape, order=0, mode="nearest"
    )
    return np.asarray(kept > 0)
