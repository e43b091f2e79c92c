"""Images as the files that a scanner or a camera writes. Equal input, equal bytes."""

from __future__ import annotations

import gzip
import io
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedcore.data.phantoms.disease import Device
from fedcore.data.phantoms.scanner import stored

_QUALITY = 92


def digitised(image: NDArray[Any], step: float) -> NDArray[np.int16]:
    """An image in whole units of ``step``."""
    return np.clip(np.rint(image / step), -32768, 32767).astype(np.int16)


def nifti(
    image: NDArray[Any], affine: NDArray[np.float64], device: Device, step: float | None = None
) -> bytes:
    """A .nii.gz of int16 with a slope, or of an outline; ``affine``: of ``image``, RAS+."""
    whole = image.astype(np.uint8) if step is None else digitised(image, step)
    file = nibabel.Nifti1Image(*stored(whole, affine, device))  # type: ignore[no-untyped-call]
    if step is not None:
        file.header.set_slope_inter(step, 0.0)  # type: ignore[no-untyped-call]
    file.header.set_xyzt_units("mm", "sec")  # type: ignore[no-untyped-call]
    return gzip.compress(file.to_bytes(), compresslevel=1, mtime=0)


def photo(pixels: NDArray[np.uint8]) -> bytes:
    """A JPEG of colours (rows, columns, 3), or of greys (rows, columns)."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=_QUALITY)
    return data.getvalue()
