from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import safetensors
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedcore.errors import BlobError
from fedcore.store import blobs

few = settings(max_examples=50, deadline=None)
dtypes = st.sampled_from(["<f8", "<f4", "<f2", "<i8", "<i4", "|i1", "|u1", "<u4", "<u8"])
arrays = st.dictionaries(
    st.text("abc.é_", min_size=1, max_size=8) | st.sampled_from(["metadata", "model_config"]),
    dtypes.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0))),
    max_size=4,
)
headers = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3)
SMALL = blobs.pack({"a": np.arange(3, dtype=np.float32), "b": np.ones((2, 2))}, {"kind": "x"})


def blob(header, body=b"\0" * 8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def tensor(begin, end, *, dtype="F32", shape=None, **more):
    shape = [(end - begin) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


@few
@given(arrays, headers)
def test_what_was_packed_is_unpacked(content, header):
    data = blobs.pack(content, header)
    unpacked, read_header = blobs.unpack(data)
    assert read_header == header
    assert list(unpacked) == sorted(content)
    for name, array in content.items():
        assert unpacked[name].dtype == array.dtype
        assert unpacked[name].shape == array.shape
        assert unpacked[name].tobytes() == array.tobytes()
    assert data == blobs.pack(dict(reversed(content.items())), header)


def test_arrays_are_read_only_views():
    array = blobs.unpack(SMALL)[0]["a"]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    assert not array.flags.owndata


def test_big_endian_and_strided_arrays_are_packed_by_value():
    content = {"a": np.arange(6, dtype=">f4").reshape(2, 3).T}
    unpacked, _ = blobs.unpack(blobs.pack(content))
    assert np.array_equal(unpacked["a"], content["a"])


def test_pack_refuses_what_unpack_would():
    with pytest.raises(BlobError, match=r"'a'.*complex"):
        blobs.pack({"a": np.zeros(1, complex)})


def agrees_with_the_library(data):
    """Refused, or read exactly as the safetensors library reads it."""
    try:
        unpacked, _ = blobs.unpack(data)
    except BlobError:
        return
    theirs = dict(safetensors.deserialize(data))
    assert set(unpacked) == set(theirs)
    for name, array in unpacked.items():
        assert array.tobytes() == bytes(theirs[name]["data"])
        assert list(array.shape) == theirs[name]["shape"]


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes(data):
    agrees_with_the_library(data)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=3)
)
@example([(0, 255)])
@example([(7, 255)])
def test_mutated_bytes(changes):
    data = bytearray(SMALL)
    for position, value in changes:
        data[position] = value
    agrees_with_the_library(bytes(data))


# Header fields around the values that are right, in bytes that are laid out right.
sizes = st.integers(-1, 9) | st.sampled_from([2**31, 2**63, 2**64, 10**30, True, 2.0, None, "4"])
tensors = st.builds(
    lambda dtype, shape, begin, end: {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]},
    st.sampled_from(["F32", "F64", "U8", "BF16", "BOOL", "f4", "", 3]),
    st.lists(sizes, max_size=3),
    sizes,
    sizes,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), tensors, max_size=3))
def test_mutated_headers(header):
    agrees_with_the_library(blob(header))


@pytest.mark.parametrize(
    "header",
    [
        {"a": tensor(0, 4)},  # does not cover the data
        {"a": tensor(4, 8)},  # a gap
        {"a": tensor(0, 8), "b": tensor(0, 8)},  # an overlap
        {"a": tensor(0, 8), "b": tensor(4, 8)},
        {"a": tensor(0, 16)},  # beyond the end
        {"a": tensor(0, 8, shape=[3])},
        {"a": tensor(0, 8, shape=[-1, -2])},
        {"a": tensor(0, 8, shape=[2.0])},
        {"a": tensor(0, 8, shape=[True, 2])},
        {"a": tensor(0, 8, shape=[1] * 65 + [2])},
        {"a": tensor(0, 8), "b": tensor(8, 8, shape=[2**62, 2**62, 0])},
        {"a": tensor(0, 8, dtype="BOOL", shape=[8])},
        {"a": tensor(0, 8, dtype="F8_E4M3", shape=[8])},
        {"a": tensor(0, 8, more=1)},
        {"a": {"dtype": "F32", "shape": [2]}},
        {"a": 1},
        {"a": tensor(0, 8), "__metadata__": {"fedcore": 1}},
        {"a": tensor(0, 8), "__metadata__": {"fedcore": "[]"}},
        {"a": tensor(0, 8), "__metadata__": {"fedcore": "{"}},
        {"a": tensor(0, 8), "__metadata__": {"fedcore": "[" * 100_000}},
        [],
        b"[" * 100_000,
        b"\xff\xfe",
        b"",
    ],
    ids=range(24),
)
def test_malformed_headers(header):
    with pytest.raises(BlobError):
        blobs.unpack(blob(header))


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 20, len(SMALL) - 1])
def test_cut_short(cut):
    with pytest.raises(BlobError):
        blobs.unpack(SMALL[:cut])


def test_bytes_after_the_end():
    with pytest.raises(BlobError, match="belong to no array"):
        blobs.unpack(SMALL + b"\0")


def test_a_header_beyond_the_end():
    with pytest.raises(BlobError, match="does not fit"):
        blobs.unpack((2**62).to_bytes(8, "little") + SMALL[8:])


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was executed",))


def test_a_pickle_is_refused_and_not_executed():
    for data in (pickle.dumps(Bomb()), pickle.dumps({"w": np.zeros(3)})):
        with pytest.raises(BlobError):
            blobs.unpack(data)


def test_no_array_of_objects_can_be_packed():
    with pytest.raises(BlobError, match="object"):
        blobs.pack({"w": np.array([Bomb()])})


def test_digest_is_sha256():
    assert blobs.digest(b"").startswith("e3b0c44298fc1c14")
