"""Bytes of a NIfTI file → voxels and affine in RAS+ orientation, or a DataError that says why not.

The header is parsed on its own and judged before a voxel is read, so that no file, however broken,
can make the reader allocate what it claims to hold. Format: https://nifti.nimh.nih.gov/nifti-1/
"""

from __future__ import annotations

import io
import math
import zlib
from typing import Any, NamedTuple

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from fedcore.errors import DataError

MAX_BYTES = 2**31
"""Unzipped size above which a file is left out: one broken file must not take all memory."""

VOXEL_MM = (0.1, 20.0)
"""Edge lengths outside of which a voxel's size is taken for a mistake."""

OCT_VOXEL_MM = (0.001, 1.0)
"""The same of an OCT volume: some 4 µm in depth, up to 0.25 mm from one B-scan to the next."""

Affine = NDArray[np.float64]

_GZIP = b"\x1f\x8b"
_WINDOW_BITS_GZIP = 31
_MIN_VOLUME_RATIO = 0.1  # of a voxel to the box of its edges; 0.87 for a gantry tilted by 30°


class Volume(NamedTuple):
    """``voxels`` (X, Y, Z), finite float32; ``affine`` (4, 4) from voxel index to RAS+ mm."""

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]


def read(
    data: bytes, *, max_bytes: int | None = None, voxel_mm: tuple[float, float] = VOXEL_MM,
    blank: bool = False,
) -> Volume:  # fmt: skip
    """The image in a ``.nii`` or ``.nii.gz`` file, in the orientation closest to RAS+.

    ``max_bytes``: what it may unzip to, instead of MAX_BYTES. ``voxel_mm``: edges taken for real.
    ``blank``: it may show nothing, as the mask of somebody healthy does.

    Voxels that are not finite become the smallest finite value. Raises DataError, and nothing
    else, for a file that is corrupt, empty, not 3-D or not placed in space; its ``reason`` holds
    nothing of the image and may be counted.
    """
    data = _unzipped(data, max_bytes or MAX_BYTES)
    header = _header(data)
    shape = _shape(header)
    affine = _affine(header, voxel_mm)
    voxels = _voxels(header, data).reshape(shape)
    to_ras = io_orientation(affine)  # type: ignore[no-untyped-call]
    return Volume(
        apply_orientation(_finite(voxels, blank=blank), to_ras),  # type: ignore[no-untyped-call]
        affine @ inv_ornt_aff(to_ras, shape),  # type: ignore[no-untyped-call]
    )


def place(data: bytes, *, max_bytes: int | None = None) -> tuple[tuple[int, ...], Affine]:
    """Shape (X, Y, Z) and affine of a file as it is stored, in whichever orientation.

    Raises DataError as ``read``.
    """
    header = _header(_unzipped(data, max_bytes or MAX_BYTES))
    return _shape(header), _affine(header, VOXEL_MM)


def _unzipped(data: bytes, max_bytes: int) -> bytes:
    """All members of a gzip file, or ``data`` itself where it is none."""
    if not data.startswith(_GZIP):
        return data
    parts = []
    room = max_bytes
    while data.startswith(_GZIP):
        member = zlib.decompressobj(_WINDOW_BITS_GZIP)
        try:
            parts.append(member.decompress(data, room))
        except zlib.error as error:
            raise DataError(f"the gzip data is damaged: {error}", reason="corrupt") from error
        room -= len(parts[-1])
        if room <= 0:
            raise DataError(f"more than {max_bytes} bytes unzipped", reason="too large")
        if not member.eof:
            raise DataError("the gzip data ends too early", reason="truncated")
        data = member.unused_data
    return b"".join(parts)


def _header(data: bytes) -> Any:
    kinds: tuple[Any, ...] = (Nifti2Header, Nifti1Header)
    for kind in kinds:
        block = data[: kind.sizeof_hdr]
        if len(block) == kind.sizeof_hdr and kind.may_contain_header(block):
            try:
                return kind(block)
            except (HeaderDataError, ValueError) as error:
                raise DataError(f"the NIfTI header is wrong: {error}", reason="corrupt") from error
    raise DataError("this is not a NIfTI file", reason="not NIfTI")


def _shape(header: Any) -> tuple[int, ...]:
    """The three sizes; trailing axes of length 1 are dropped."""
    shape = tuple(map(int, header.get_data_shape()))
    if len(shape) < 3 or min(shape) < 1:
        raise DataError(f"the image has shape {shape}; three axes are wanted", reason="not 3-D")
    if math.prod(shape[3:]) != 1:
        raise DataError(
            f"the image has shape {shape}; average or choose among its volumes first",
            reason="more than one volume",
        )
    return shape[:3]


def _affine(header: Any, voxel_mm: tuple[float, float]) -> NDArray[np.float64]:
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        raise DataError("neither sform nor qform is set", reason="no orientation")
    try:
        unit = header.get_xyzt_units()[0]
        affine: NDArray[np.float64] = np.asarray(header.get_best_affine(), dtype=np.float64)
    except KeyError as error:
        raise DataError(f"unknown unit code {error}", reason="wrong unit") from error
    except (HeaderDataError, ValueError) as error:
        raise DataError(f"the affine cannot be read: {error}", reason="bad affine") from error
    if unit not in ("mm", "unknown"):
        raise DataError(f"sizes are in {unit}; millimetres are wanted", reason="wrong unit")
    if not np.isfinite(affine).all():
        raise DataError("the affine is not finite", reason="bad affine")
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = voxel_mm
    if sizes.min() < low or sizes.max() > high:
        raise DataError(
            f"voxels of {sizes.round(3).tolist()} mm; {low} to {high} are taken for real",
            reason="bad voxel size",
        )
    if abs(np.linalg.det(affine[:3, :3])) < _MIN_VOLUME_RATIO * sizes.prod():
        raise DataError("the affine is singular, or nearly so", reason="bad affine")
    return affine


def _voxels(header: Any, data: bytes) -> NDArray[np.float32]:
    try:
        offset, dtype = header.get_data_offset(), header.get_data_dtype()
        if dtype.kind not in "iuf":
            raise DataError(
                f"voxels of type {dtype}; one number each is wanted", reason="not a scalar image"
            )
        size = math.prod(map(int, header.get_data_shape())) * dtype.itemsize
        if offset < header.sizeof_hdr or offset + size > len(data):
            raise DataError(
                f"{len(data)} bytes; the header announces {size} from byte {offset} on",
                reason="truncated",
            )
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not finite
            voxels = header.data_from_fileobj(io.BytesIO(data))
            return np.asarray(voxels, dtype=np.float32)
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise DataError(f"the NIfTI header is wrong: {error}", reason="corrupt") from error


def _finite(voxels: NDArray[np.float32], *, blank: bool) -> NDArray[np.float32]:
    """Raises DataError if there is nothing to see, unless that may be."""
    finite = np.isfinite(voxels)
    if not finite.any():
        raise DataError("no voxel is finite", reason="empty")
    lowest = voxels.min(where=finite, initial=np.inf)
    if lowest == voxels.max(where=finite, initial=-np.inf) and not blank:
        raise DataError(f"every finite voxel is {lowest:g}", reason="empty")
    return voxels if finite.all() else np.where(finite, voxels, lowest)
