from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore import seeds

paths = st.lists(st.text(max_size=5) | st.integers(0, 99), max_size=3).map(tuple)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**63), paths)
def test_derived_seeds_fit_63_bits_and_repeat(seed, path):
    assert 0 <= seeds.derive(seed, *path) < 2**63
    assert seeds.derive(seed, *path) == seeds.derive(seed, *path)


def test_derived_seeds_never_change():
    # A constant from the first release: a change would break every run that goes on after it.
    assert seeds.derive(1, "train", "north", 3) == 581461120001036531


def test_streams_differ_by_seed_and_by_each_part_of_the_path():
    streams = [(1,), (2,), (1, "a"), (1, "b"), (1, "a", 0), (1, "a", 1), (1, 0, "a"), (1, "a0")]
    assert len({seeds.derive(*stream) for stream in streams}) == len(streams)


def test_generators_repeat_and_are_independent_of_each_other():
    first = seeds.generator(5, "noise").standard_normal(4).tolist()
    seeds.generator(5, "other").standard_normal(4)
    assert seeds.generator(5, "noise").standard_normal(4).tolist() == first
    assert seeds.generator(5, "other").standard_normal(4).tolist() != first
