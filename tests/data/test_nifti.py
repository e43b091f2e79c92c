import contextlib
import gzip
import struct
import tracemalloc
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, ornt_transform

from fedcore.data import nifti
from fedcore.errors import DataError

AFFINE = np.array([[2.0, 0, 0, -9], [0, 3, 0, -20], [0, 0, 4, 5], [0, 0, 0, 1]])
VOXELS = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
QFORM, UNITS, DIM, OFFSET = 252, 123, 40, 108  # places in a NIfTI-1 header


def encode(voxels: Any = VOXELS, affine: Any = AFFINE, kind: Any = nibabel.Nifti1Image) -> bytes:
    return kind(voxels, affine).to_bytes()  # type: ignore[no-any-return]


def patched(data: bytes, place: int, form: str, *values: Any) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, place, *values)
    return bytes(changed)


def reason(data: bytes) -> str:
    with pytest.raises(DataError) as caught:
        nifti.read(data)
    return caught.value.reason


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_reads_either_version_zipped_or_not(kind: Any, pack: Any) -> None:
    volume = nifti.read(pack(encode(kind=kind)))
    np.testing.assert_array_equal(volume.voxels, VOXELS)
    np.testing.assert_allclose(volume.affine, AFFINE)
    assert volume.voxels.dtype == np.float32


def test_reads_a_gzip_file_of_several_members() -> None:
    data = encode()
    zipped = gzip.compress(data[:500]) + gzip.compress(data[500:])
    np.testing.assert_array_equal(nifti.read(zipped).voxels, VOXELS)


def test_reads_big_endian_scaled_and_padded_to_four_axes() -> None:
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti1Image(VOXELS[..., None] * 100 - 7, AFFINE, header)
    np.testing.assert_allclose(nifti.read(image.to_bytes()).voxels, VOXELS * 100 - 7, atol=0.02)


@pytest.mark.parametrize("axes", ["LPS", "RAS", "PIR", "SAL", "ASR", "IRP"])
def test_every_orientation_reads_the_same(axes: str) -> None:
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(tuple(axes)))
    image = nibabel.Nifti1Image(VOXELS, AFFINE).as_reoriented(turn)
    assert "".join(nibabel.aff2axcodes(image.affine)) == axes
    volume = nifti.read(image.to_bytes())
    np.testing.assert_array_equal(volume.voxels, VOXELS)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)


def test_voxels_that_are_not_finite_become_background() -> None:
    holed = VOXELS.copy()
    holed[0], holed[1, 0, 0] = np.nan, np.inf
    read = nifti.read(encode(holed)).voxels
    assert (read[0] == holed[2:].min()).all()
    assert read[1, 0, 0] == holed[2:].min()
    np.testing.assert_array_equal(read[2:], VOXELS[2:])


DATA = encode()
RGB = [("R", "u1"), ("G", "u1"), ("B", "u1")]
SINGULAR = AFFINE.copy()
SINGULAR[:3, 1] = SINGULAR[:3, 0]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "not NIfTI"),
        (b"/annex/objects/MD5E-s123--abc.nii.gz", "not NIfTI"),
        (gzip.compress(b"plain text" * 100), "not NIfTI"),
        (DATA[:300], "not NIfTI"),
        (DATA[:-1], "truncated"),
        (gzip.compress(DATA)[:-20], "truncated"),
        (gzip.compress(DATA)[:-8] + bytes(8), "corrupt"),
        (patched(DATA, 70, "<h", 12345), "corrupt"),
        (patched(DATA, OFFSET, "<f", 16.0), "corrupt"),
        (patched(DATA, OFFSET, "<f", np.nan), "corrupt"),
        (patched(DATA, DIM, "<hhhh", 3, 0, 6, 7), "not 3-D"),
        (patched(DATA, DIM, "<hhhh", 3, 30000, 30000, 30000), "truncated"),
        (encode(VOXELS[0]), "not 3-D"),
        (encode(np.stack([VOXELS, VOXELS], axis=-1)), "more than one volume"),
        (encode(np.zeros((4, 4, 4), np.int16)), "empty"),
        (encode(np.full((4, 4, 4), 3.0)), "empty"),
        (encode(np.full((4, 4, 4), np.nan)), "empty"),
        (encode(np.ones((4, 4, 4), np.complex64)), "not a scalar image"),
        (encode(np.zeros((4, 4, 4), RGB)), "not a scalar image"),
        (patched(DATA, QFORM, "<hh", 0, 0), "no orientation"),
        (patched(patched(DATA, QFORM, "<hh", 1, 0), 256, "<f", 2.0), "bad affine"),
        (patched(DATA, UNITS, "<B", 1), "wrong unit"),
        (patched(DATA, UNITS, "<B", 7), "wrong unit"),
        (patched(DATA, 280, "<f", np.nan), "bad affine"),
        (encode(affine=SINGULAR), "bad affine"),
        (patched(DATA, 280, "<12f", *[0.0] * 12), "bad voxel size"),
        (encode(affine=np.diag([0.001, 1, 1, 1])), "bad voxel size"),
        (encode(affine=np.diag([1, 1, 25.0, 1])), "bad voxel size"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_says_why(data: bytes, expected: str) -> None:
    assert reason(data) == expected


def test_a_zip_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nifti, "MAX_BYTES", 2**20)
    bomb = gzip.compress(DATA + bytes(2**24))
    tracemalloc.start()
    try:
        assert reason(bomb) == "too large"
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


MUTATIONS = st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(0, 255)), max_size=12)
IN_HEADER = st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), max_size=12)


@settings(max_examples=50, deadline=None)
@given(st.one_of(MUTATIONS, IN_HEADER), st.integers(0, len(DATA)), st.booleans())
def test_broken_bytes_give_a_volume_or_a_data_error(
    mutations: list[tuple[int, int]], cut: int, zipped: bool
) -> None:
    changed = bytearray(DATA)
    for place, byte in mutations:
        changed[place] = byte
    data = bytes(changed) if cut % 3 else bytes(changed[:cut])
    try:
        volume = nifti.read(gzip.compress(data) if zipped else data)
    except DataError:
        return
    assert volume.voxels.ndim == 3
    assert np.isfinite(volume.voxels).all()
    assert np.isfinite(volume.affine).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=4))
def test_broken_gzip_gives_a_volume_or_a_data_error(mutations: list[tuple[int, int]]) -> None:
    changed = bytearray(gzip.compress(DATA, mtime=0))
    for place, byte in mutations:
        changed[place] = byte
    with contextlib.suppress(DataError):
        np.testing.assert_array_equal(nifti.read(bytes(changed)).voxels, VOXELS)
