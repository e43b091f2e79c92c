"""Small whole numbers in bytes, 1, 2, 4 or 8 bits each, the first in the lowest bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_TABLES: dict[int, NDArray[np.unsignedinteger[Any]]] = {
    width: np.array(
        [[byte >> shift & (1 << width) - 1 for shift in range(0, 8, width)] for byte in range(256)],
        np.uint8,
    ).view(f"<u{8 // width}")[:, 0]
    for width in (2, 4)
}


def width_of(bits: int) -> int:
    """Bits that a number of so many bits takes: the next power of two."""
    return 1 << (bits - 1).bit_length()


def pack(numbers: Bytes, width: int) -> Bytes:
    """``numbers``, all below 2^width and a multiple of 8 many, in width/8 bytes each.

    >>> pack(np.array([1, 2, 3, 0, 0, 0, 0, 1], np.uint8), 2).tolist()
    [57, 64]
    """
    packed: Bytes = numbers
    if width == 1:
        packed = np.packbits(numbers, bitorder="little")
    elif width == 2:
        four = numbers.view("<u4")
        packed = (four | four >> 6 | four >> 12 | four >> 18).astype(np.uint8)
    elif width == 4:
        two = numbers.view("<u2")
        packed = (two | two >> 4).astype(np.uint8)
    return packed


def unpack(packed: Bytes, width: int) -> Bytes:
    """The inverse.

    >>> unpack(np.array([57, 64], np.uint8), 2).tolist()
    [1, 2, 3, 0, 0, 0, 0, 1]
    """
    if width == 1:
        return np.unpackbits(packed, bitorder="little")
    return packed if width == 8 else _TABLES[width][packed].view(np.uint8)
