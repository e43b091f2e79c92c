"""Named arrays out of an HTTP body, from whoever sent it: nothing in one can execute or swell."""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import BlobError
from fedcore.store import blobs

_NPY = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|[\x02\x03]\x00....)"
    rb"\{'descr': '([<>|]?(?:f[248]|[iu][1248]))', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,12},? ?){0,8})\), \} *\n",
    re.DOTALL,
)
"""What ``numpy.save`` writes before the values, for arrays of numbers."""


def arrays(body: bytes, *, max_bytes: int) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors or .npz body, as read-only views.

    Raises BlobError if it is neither, or would unpack to more than ``max_bytes``.
    """
    if body.startswith(b"PK"):
        return _npz(body, max_bytes)
    try:
        found, _ = blobs.unpack(body)
    except BlobError as error:
        raise BlobError(f"the body is neither .npz nor safetensors: {error}") from error
    return found


def _npz(body: bytes, max_bytes: int) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > max_bytes:
                raise BlobError(f"the .npz body unpacks to more than {max_bytes} bytes")
            for member in members:
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise BlobError("the .npz body is compressed in a way NumPy never does")
            # A reader stops at the size that the directory gives, so this cannot swell.
            return {
                member.filename.removesuffix(".npy"): _npy(member.filename, archive.read(member))
                for member in members
            }
    except (
        zipfile.BadZipFile, zlib.error, EOFError,
        ValueError, NotImplementedError, RuntimeError,  # bad offsets, old versions, a password
    ) as error:  # fmt: skip
        raise BlobError(f"the body is not a readable .npz: {error}") from error


def _npy(name: str, data: bytes) -> NDArray[Any]:
    """One .npy file. NumPy's own reader makes room for whatever size the header claims."""
    header = _NPY.match(data)
    if header is None:
        raise BlobError(f"{name} in the .npz body is not an array of numbers by numpy.savez")
    dtype = np.dtype(header[1].decode())
    shape = tuple(int(size) for size in re.findall(rb"\d+", header[3]))
    size = math.prod(shape) * dtype.itemsize
    if size == 0 or size != len(data) - header.end():
        raise BlobError(f"{name} in the .npz body is not as long as its header says, or empty")
    order: Any = "F" if header[2] == b"True" else "C"
    return np.ndarray(shape, dtype, buffer=data, offset=header.end(), order=order)
