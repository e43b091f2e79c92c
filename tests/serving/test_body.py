import io
import struct
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from safetensors.numpy import save

from fedcore.errors import BlobError
from fedcore.serving.body import arrays

LIMIT = 1 << 16
T1 = np.arange(24, dtype=np.float32).reshape(1, 1, 2, 3, 4)


def npz(compress: bool = False, **members: np.ndarray) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(stream, **members)
    return stream.getvalue()


def archive(name: str, data: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        file.writestr(name, data)
    return stream.getvalue()


def npy(header: str, values: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + values


@pytest.mark.parametrize("pack", [npz, lambda **a: npz(True, **a), lambda **a: save(a)])
def test_arrays_come_through(pack: Callable[..., bytes]) -> None:
    found = arrays(pack(t1=T1, ct=T1[:, :, :1].astype(np.int32)), max_bytes=LIMIT)
    assert_array_equal(found["t1"], T1)
    assert_array_equal(found["ct"], T1[:, :, :1])
    assert found["ct"].dtype == np.int32


@pytest.mark.parametrize(
    "array", [np.asfortranarray(T1[0, 0]), T1.astype(">f4"), np.float64(3), T1[0, 0, 0, 0]]
)
def test_every_layout_of_numpy_is_read(array: np.ndarray) -> None:
    assert_array_equal(arrays(npz(x=array), max_bytes=LIMIT)["x"], array)


@pytest.mark.parametrize("body", [b"", b"{}", b"\x80\x04\x95 pickle", b"PK", b"PK\x03\x04" * 9])
def test_what_is_neither_is_refused(body: bytes) -> None:
    with pytest.raises(BlobError, match=r"neither \.npz nor safetensors|not a readable \.npz"):
        arrays(body, max_bytes=LIMIT)


def test_a_pickle_inside_is_refused() -> None:
    with pytest.raises(BlobError, match="not an array of numbers"):
        arrays(npz(t1=np.array([{"a": 1}], dtype=object)), max_bytes=LIMIT)


def test_a_bomb_is_refused_unread() -> None:
    body = npz(True, t1=np.zeros(1 << 20, np.float32))
    assert len(body) < LIMIT
    with pytest.raises(BlobError, match="unpacks to more than"):
        arrays(body, max_bytes=LIMIT)


def test_a_bomb_that_lies_about_its_size_is_refused() -> None:
    body = npz(True, t1=np.zeros(1 << 20, np.float32))
    with zipfile.ZipFile(io.BytesIO(body)) as file:
        size = struct.pack("<I", file.infolist()[0].file_size)
    assert size in body
    with pytest.raises(BlobError, match=r"not a readable|not as long"):
        arrays(body.replace(size, struct.pack("<I", 200)), max_bytes=LIMIT)


@pytest.mark.parametrize(
    "member",
    [
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999,), }"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", bytes(4)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", bytes(8)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 999999999999), }"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1), }", bytes(4)),
        npy("{'descr': '|V0', 'fortran_order': False, 'shape': (1,), }"),
        npy("(" * 5000),
        b"",
    ],
)
def test_a_header_that_lies_is_refused(member: bytes) -> None:
    with pytest.raises(BlobError, match=r"x\.npy"):
        arrays(archive("x.npy", member), max_bytes=LIMIT)


def test_other_compressions_are_refused() -> None:
    with pytest.raises(BlobError, match="NumPy never does"):
        arrays(archive("x.npy", b"", zipfile.ZIP_LZMA), max_bytes=LIMIT)


@settings(max_examples=50, deadline=None)
@given(
    body=st.sampled_from([npz(t1=T1), npz(True, t1=T1), save({"t1": T1})]),
    at=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    end=st.integers(0, 10_000),
)
def test_damage_is_refused_or_harmless(body: bytes, at: list[tuple[int, int]], end: int) -> None:
    damaged = bytearray(body)
    for place, value in at:
        damaged[place % len(damaged)] = value
    data = bytes(damaged[: end % len(damaged)] if end % 3 == 0 else damaged)
    try:
        found = arrays(data, max_bytes=LIMIT)
    except BlobError:
        return
    assert sum(array.nbytes for array in found.values()) <= LIMIT
