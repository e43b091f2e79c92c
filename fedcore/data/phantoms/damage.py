"""Broken files, as hospitals have them: what the reader must leave out and name."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedcore.data.phantoms.files import photo

_GZIP = b"\x1f\x8b"
_HEADER_BYTES = 352
_QFORM_CODE = slice(252, 254)
_SROW_Z = slice(312, 328)


def truncated(data: bytes) -> bytes:
    """An interrupted transfer: the first half of the file."""
    return data[: len(data) // 2]


def empty(data: bytes) -> bytes:
    """A failed export: the header is right and every voxel, or pixel, is 0."""
    if not data.startswith(_GZIP):
        return photo(np.zeros_like(_pixels(data)))
    plain = gzip.decompress(data)
    return _compressed(plain[:_HEADER_BYTES] + bytes(len(plain) - _HEADER_BYTES))


def flattened(data: bytes) -> bytes:
    """A lost direction: the affine's third row is 0, so that no voxel has a place. Of a photo, the
    colours are lost."""
    if not data.startswith(_GZIP):
        return photo(_pixels(data).mean(axis=2).astype(np.uint8))
    plain = bytearray(gzip.decompress(data))
    plain[_QFORM_CODE] = bytes(2)
    plain[_SROW_Z] = bytes(16)
    return _compressed(bytes(plain))


DAMAGES: tuple[Callable[[bytes], bytes], ...] = (truncated, empty, flattened)
"""Each takes the bytes of a sound .nii.gz with an sform, or of a photo, and gives those of a broken
one."""


def _compressed(plain: bytes) -> bytes:
    return gzip.compress(plain, compresslevel=1, mtime=0)


def _pixels(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)))
