"""What a segmentation says of a subject, as a file that lies on the subject's own scan."""

from __future__ import annotations

import gzip
from io import BytesIO
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedcore.data import nifti
from fedcore.data.preprocess import Grid

Labels = NDArray[np.uint8]


def on_scan(probabilities: NDArray[Any], grid: Grid, scan: bytes) -> bytes:
    """A ``.nii.gz`` of each voxel's class (0 = the first), on the voxels of ``scan`` as stored.

    ``probabilities`` (K, X, Y, Z) are on ``grid``. Each class is interpolated linearly and the
    likeliest taken; outside of the grid nothing was looked at, and all is the first class.
    """
    shape, affine = nifti.place(scan)
    to_grid = np.linalg.inv(grid.affine) @ affine
    labels, most = np.zeros(shape, np.uint8), np.full(shape, -np.inf, np.float32)
    for value, of_class in enumerate(probabilities):
        likely = ndimage.affine_transform(
            of_class.astype(np.float32), to_grid[:3, :3], to_grid[:3, 3], shape, order=1,
            mode="constant", cval=float(value == 0),
        )  # fmt: skip
        better = likely > most
        labels[better], most[better] = value, likely[better]
    file = nibabel.Nifti1Image(labels, affine)  # type: ignore[no-untyped-call]
    file.header.set_xyzt_units("mm", "sec")  # type: ignore[no-untyped-call]
    file.header.set_intent("label")  # type: ignore[no-untyped-call]
    return gzip.compress(file.to_bytes(), compresslevel=1, mtime=0)


def as_arrays(probabilities: NDArray[Any]) -> bytes:
    """A ``.npz`` with ``labels`` (B, X, Y, Z), the class of each voxel, on the inputs' own grid."""
    file = BytesIO()
    np.savez_compressed(file, labels=probabilities.argmax(axis=1).astype(np.uint8))
    return file.getvalue()
