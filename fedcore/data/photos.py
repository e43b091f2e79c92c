"""Bytes of a PNG or JPEG file → a colour photo, or a DataError that says why not.

The header is judged before a pixel is decoded, so that no file can make the decoder allocate what
it claims to hold.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fedcore.data.nifti import MAX_BYTES
from fedcore.errors import DataError

FORMATS = ("PNG", "JPEG")
MIN_PIXELS = 16
"""Along an edge: less is an icon."""

_COLOUR = ("RGB", "RGBA", "P")
# What Pillow raises of a damaged file, by where the damage is.
_DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError, TypeError, struct.error,
    zlib.error,
)  # fmt: skip

Photo = NDArray[np.uint8]


def read(data: bytes, *, max_bytes: int | None = None) -> Photo:
    """The photo (rows, columns, RGB), row 0 on top, as stored. ``max_bytes``: as of ``nifti.read``.

    Raises DataError, and nothing else, for a file that is corrupt, no colour photo or too large;
    its ``reason`` holds nothing of the image and may be counted.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata and of size: that is judged here
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError as error:
            raise DataError("this is neither PNG nor JPEG", reason="not a photo") from error
        except Image.DecompressionBombError as error:
            raise DataError(f"a photo is smaller: {error}", reason="too large") from error
        except _DAMAGE as error:
            raise DataError(f"the header is wrong: {error}", reason="corrupt") from error
        _require_sound(image, max_bytes or MAX_BYTES)
        try:
            pixels = np.asarray(image.convert("RGB"))
        except _DAMAGE as error:
            reason = "truncated" if "truncated" in str(error) else "corrupt"
            raise DataError(f"the pixels are damaged: {error}", reason=reason) from error
    if pixels.min() == pixels.max():
        raise DataError(f"every pixel is {pixels.max()}", reason="empty")
    return pixels


def _require_sound(image: Image.Image, max_bytes: int) -> None:
    width, height = image.size
    if 3 * width * height > max_bytes:
        raise DataError(
            f"{width} x {height} pixels are more than {max_bytes} bytes", reason="too large"
        )
    if min(width, height) < MIN_PIXELS:
        raise DataError(f"{width} x {height} pixels are no photo", reason="too small")
    if image.mode not in _COLOUR:
        raise DataError(
            f"the photo's mode is {image.mode}; colours of 8 bits are wanted",
            reason="not a colour photo",
        )
