"""A photo file is a photo or is refused with a reason, however broken, and never takes memory."""

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedcore.data import photos
from fedcore.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def encode(pixels: Any = PIXELS, form: str = "PNG", mode: str | None = None) -> bytes:
    image, data = Image.fromarray(pixels), io.BytesIO()
    (image.convert(mode) if mode else image).save(data, form)
    return data.getvalue()


def reason(data: bytes, **limits: Any) -> str:
    with pytest.raises(DataError) as caught:
        photos.read(data, **limits)
    return caught.value.reason


def huge(width: int, height: int) -> bytes:
    """A PNG that claims so many pixels and holds none."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(
            ">I", zlib.crc32(name + data)
        )  # fmt: skip

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_reads_png_exactly_and_jpeg_nearly() -> None:
    np.testing.assert_array_equal(photos.read(encode()), PIXELS)
    np.testing.assert_array_equal(photos.read(encode(mode="RGBA")), PIXELS)
    smooth = np.repeat(np.linspace(0, 255, 32, dtype=np.uint8)[None, :, None], 24, 0).repeat(3, 2)
    read = photos.read(encode(smooth, "JPEG"))
    assert np.abs(read.astype(int) - smooth).max() < 12


def test_what_is_no_colour_photo_is_named() -> None:
    assert reason(b"") == "not a photo"
    assert reason(encode(form="BMP")) == "not a photo"
    assert reason(encode(mode="L")) == "not a colour photo"
    assert reason(encode(np.full_like(PIXELS, 7))) == "empty"
    assert reason(encode(PIXELS[:8, :8])) == "too small"
    assert reason(encode()[:900]) == "truncated"
    assert reason(encode(), max_bytes=1000) == "too large"


def test_a_photo_that_claims_to_be_huge_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        assert reason(huge(60_000, 60_000)) == "too large"
        assert reason(huge(9_000, 9_000), max_bytes=10**8) == "too large"
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_broken_bytes_give_a_photo_or_a_data_error(form: str, data: Any) -> None:
    good = encode(form=form)
    changed = bytearray(good)
    places = st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255))
    for place, byte in data.draw(st.lists(places, max_size=12)):
        changed[place] = byte
    end = data.draw(st.integers(0, 2 * len(good)))
    try:
        found = photos.read(bytes(changed[:end]), max_bytes=2**24)
    except DataError:
        return
    assert found.dtype == np.uint8
    assert found.shape[2:] == (3,)
