from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore import params
from fedcore.params import BLOCK


def f32(*shape):
    return np.zeros(shape, np.float32)


LIKE = {"encoder.pet.w": f32(2, 3), "encoder.pet.b": f32(3), "head.w": f32(3, 4), "head.b": f32(4)}


def test_modules():
    assert params.modules(LIKE) == ("encoder.pet", "head")
    assert params.module_of("encoder.pet") == "encoder"
    assert list(params.only(LIKE, ["head"])) == ["head.w", "head.b"]
    assert params.only(LIKE, []) == {}


def test_subtract_and_nbytes():
    ones = {"w": np.ones(3, np.float32)}
    assert params.subtract(ones, ones)["w"].tolist() == [0, 0, 0]
    assert params.nbytes(ones) == 12
    with pytest.raises(KeyError):
        params.subtract(ones, {})


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK]), st.booleans())
def test_blocks_are_all_values_once_as_views(size, square):
    array = np.arange(size, dtype=np.float32).reshape((1, size) if square else (size,))
    pieces = list(params.blocks(array))
    assert all(0 < piece.size <= BLOCK for piece in pieces)
    assert np.array_equal(np.concatenate([*pieces, f32(0)]), array.ravel())
    for piece in pieces:
        np.add(piece, 1, out=piece)
    assert np.array_equal(array.ravel(), np.arange(size) + 1)


def test_digest_names_content():
    base = {"a": np.array([1, 2], np.float32), "b": f32(2)}
    digest = params.digest(base)
    assert digest == params.digest(dict(reversed(base.items())))
    assert digest == params.digest({**base, "a": np.array([1, 2], ">f4")})
    changed = [
        {**base, "a": np.array([1, np.nextafter(np.float32(2), np.float32(3))], np.float32)},
        {**base, "a": base["a"].reshape(1, 2)},
        {"A": base["a"], "b": base["b"]},
        {"a": base["a"]},
    ]
    assert len({digest, *map(params.digest, changed)}) == 5


@pytest.mark.parametrize(
    ("update", "says"),
    [
        ({**LIKE, "tail.w": f32(1)}, "unknown parameter 'tail.w'"),
        ({"encoder.pet.w": f32(2, 3)}, "lacks the parameter 'encoder.pet.b' of module 'encoder.p"),
        ({**LIKE, "head.b": f32(5)}, "shape (5,) for 'head.b'; the model has (4,)"),
        ({**LIKE, "head.b": f32(4, 1)}, "shape (4, 1)"),
        ({**LIKE, "head.b": np.zeros(4)}, "float64 for 'head.b'"),
        ({**LIKE, "head.b": np.zeros(4, np.float16)}, "float16"),
    ],
)
def test_problem_with_names_it(update, says):
    assert says in params.problem_with(update, LIKE)


def test_whole_modules_may_be_absent():
    assert params.problem_with(LIKE, LIKE) is None
    assert params.problem_with(params.only(LIKE, ["head"]), LIKE) is None
    assert params.problem_with({}, LIKE) is None
