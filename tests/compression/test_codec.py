from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedcore.compression.codec import CODECS, codec
from fedcore.errors import ConfigError, UpdateRejected

LARGEST = 65504.0
arrays = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=3, max_side=4),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
few = settings(max_examples=50, deadline=None)


@few
@given(arrays)
def test_float32_loses_nothing(array):
    identity = codec("float32")
    assert identity.decode(identity.encode({"w": array}))["w"].tobytes() == array.tobytes()


@few
@given(arrays)
def test_float16_rounds_to_nearest_and_saturates(array):
    half = codec("float16")
    encoded = half.encode({"w": array})["w"]
    decoded = half.decode({"w": encoded})["w"]
    assert encoded.nbytes * 2 == array.nbytes
    assert decoded.dtype == np.float32
    assert decoded.shape == array.shape
    wanted = np.clip(array.astype(np.float64), -LARGEST, LARGEST)
    assert (np.abs(decoded - wanted) <= np.maximum(np.abs(wanted) * 2.0**-11, 2.0**-25)).all()


def test_float16_hides_neither_nan_nor_infinity():
    half = codec("float16")
    array = np.array([np.nan, np.inf, -np.inf, 1e30, 65519.0, 65520.0], np.float32)
    decoded = half.decode(half.encode({"w": array}))["w"]
    assert np.array_equal(
        decoded, [np.nan, np.inf, -np.inf, LARGEST, LARGEST, LARGEST], equal_nan=True
    )


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint8])
def test_a_wrong_dtype_is_rejected_and_named(name, dtype):
    with pytest.raises(UpdateRejected, match=rf"'head\.w'.*{np.dtype(dtype)}.*{name}"):
        codec(name).decode({"head.w": np.zeros(2, dtype)})


def test_additive_says_whether_sums_commute():
    sizes = {"w": np.full(1, 60000, np.float32)}
    for name in CODECS:
        one = codec(name).encode(sizes)["w"]
        with np.errstate(over="ignore"):
            summed = codec(name).decode({"w": one + one})["w"]
        assert (summed[0] == 120000) == codec(name).additive


def test_an_unknown_codec_names_the_known_ones():
    with pytest.raises(ConfigError, match="float32, float16"):
        codec("zip")
