"""The container: nothing is lost, and no small message becomes a large one."""

from __future__ import annotations

import os
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.compression.container import compress, expand, is_compressed
from fedcore.errors import BlobError
from fedcore.store import blobs

few = settings(max_examples=50, deadline=None)


@few
@given(st.lists(st.binary(max_size=2000)), st.binary(max_size=3000))
def test_what_goes_in_comes_out(parts: list[bytes], past: bytes) -> None:
    data = compress(parts, past)
    assert is_compressed(data)
    assert expand(data, 1 << 20, past) == b"".join(parts)


def test_what_is_known_takes_next_to_nothing() -> None:
    known = os.urandom(400_000)
    data = compress([b"graph", known[1000:300_000], b"more", known[:70_000]], known)
    assert len(data) < 200


def test_parts_of_different_kind_have_codes_of_their_own() -> None:
    rng = np.random.default_rng(0)
    gaps, signs = rng.geometric(0.2, 20_000).astype(np.uint8).tobytes(), rng.bytes(4000)
    assert len(compress([gaps, signs])) < len(compress([gaps])) + len(signs) + 50


def bomb(size: int) -> bytes:
    return compress([bytes(size)])


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    data = bomb(1 << 28)
    assert len(data) < 1 << 16
    tracemalloc.start()
    try:
        with pytest.raises(BlobError, match=f"{1 << 28} bytes; 1000 are accepted"):
            expand(data, 1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 16
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x28\xb5\x2f\xfd",
        bomb(5000)[:-1],
        bomb(5000) + b"x",
        bomb(5000) + bomb(5000),
        bomb(5000)[:12] + b"\xff" * 20,
        zstd.compress(b"x" * 100)[:4] + b"\x00" + zstd.compress(b"x" * 100)[5:],
        zstd.compress(b"x" * 5000, options={zstd.CompressionParameter.content_size_flag: 0}),
    ],
)
def test_anything_but_one_whole_frame_is_refused(data: bytes) -> None:
    with pytest.raises(BlobError):
        expand(data, 10_000)


@few
@given(st.data())
def test_flipped_bits_are_refused_or_stay_within_bounds(data: st.DataObject) -> None:
    good = bytearray(compress([np.random.default_rng(1).integers(0, 4, 3000, np.uint8).tobytes()]))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, 8 * len(good) - 1))
        good[place // 8] ^= 1 << place % 8
    with suppress(BlobError):
        assert len(expand(bytes(good), 4000)) <= 4000


def test_a_window_larger_than_anybody_needs_is_refused() -> None:
    options = {
        zstd.CompressionParameter.window_log: 30,
        zstd.CompressionParameter.content_size_flag: 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    compressor.set_pledged_input_size(1 << 30)
    data = compressor.compress(b"x" * 1000, mode=compressor.FLUSH_BLOCK)
    with pytest.raises(BlobError):
        expand(data, 1 << 30)


def test_blobs_go_in_and_out() -> None:
    arrays = {"b": np.arange(5, dtype=np.float32), "a": np.zeros((2, 0), np.uint16)}
    data = blobs.pack(arrays, {"kind": "x"}, compress=True)
    assert is_compressed(data)
    back, header = blobs.unpack(data)
    assert header == {"kind": "x"}
    assert blobs.digest_of(back) == blobs.digest_of(arrays)
    with pytest.raises(BlobError, match="are accepted"):
        blobs.unpack(data, 50)
