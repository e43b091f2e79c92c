"""Broken files, as hospitals have them: what the reader must leave out and name."""

from __future__ import annotations

import gzip
from collections.abc import Callable

_HEADER_BYTES = 352
_QFORM_CODE = slice(252, 254)
_SROW_Z = slice(312, 328)


def truncated(data: bytes) -> bytes:
    """An interrupted transfer: the first half of the file."""
    return data[: len(data) // 2]


def empty(data: bytes) -> bytes:
    """A failed export: the header is right and every voxel is 0."""
    plain = gzip.decompress(data)
    return _compressed(plain[:_HEADER_BYTES] + bytes(len(plain) - _HEADER_BYTES))


def flattened(data: bytes) -> bytes:
    """A lost direction: the affine's third row is 0, so that no voxel has a place."""
    plain = bytearray(gzip.decompress(data))
    plain[_QFORM_CODE] = bytes(2)
    plain[_SROW_Z] = bytes(16)
    return _compressed(bytes(plain))


DAMAGES: tuple[Callable[[bytes], bytes], ...] = (truncated, empty, flattened)
"""Each takes the bytes of a sound .nii.gz with an sform and gives those of a broken one."""


def _compressed(plain: bytes) -> bytes:
    return gzip.compress(plain, compresslevel=1, mtime=0)
