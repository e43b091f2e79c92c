from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.aggregation import weights


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**9), st.floats(1e-3, 1e9))
def test_capped_weights_lie_between_0_and_1(num_examples, cap):
    weight = weights.examples(num_examples, cap)
    assert 0 <= weight <= 1
    assert (weight == 1) == (num_examples >= cap)


def test_examples_cannot_be_negative():
    with pytest.raises(ValueError, match="-1"):
        weights.examples(-1)


@pytest.mark.parametrize(
    ("given_weights", "says"),
    [
        ({}, "no weight for module 'head'"),
        ({"head": 1.0, "tail": 1.0}, "'tail', which it did not train"),
        ({"head": math.nan}, "finite"),
        ({"head": math.inf}, "finite"),
        ({"head": -0.1}, ">= 0"),
        ({"head": 1.5}, "at most 1.0"),
    ],
)
def test_names_the_problem(given_weights, says):
    assert says in weights.problem_with(given_weights, ["head"], bound=1.0)


def test_no_problem():
    assert weights.problem_with({"head": 1.0, "tail": 0.0}, ["head", "tail"], bound=1.0) is None
    assert weights.problem_with({"head": 300.0}, ["head"], bound=None) is None
