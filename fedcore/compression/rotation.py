"""A random rotation that spreads every value over its block, so that none stands out.

x ↦ H D x / √n with D random signs and H the Hadamard matrix of n values (Suresh et al. 2017,
https://arxiv.org/abs/1611.00429, Section 3). What comes out is close to normally distributed
whatever went in, which one quantiser then fits. Additions and subtractions only, in a fixed order:
every machine gets the same bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedcore.params import FloatArray


def rotate(columns: FloatArray, signs: FloatArray) -> None:
    """Rotate every column of (n, k), in place; n is a power of two. ``signs``: as ``signs`` has."""
    columns *= signs
    _transform(columns)


def rotate_back(columns: FloatArray, signs: FloatArray) -> None:
    """The inverse, in place."""
    _transform(columns)
    columns *= signs


def signs(generator: np.random.Generator, size: int) -> FloatArray:
    """(size, 1) of ±1 / √size, so that the transform itself only adds and subtracts."""
    drawn: NDArray[np.int8] = generator.integers(0, 2, size=(size, 1), dtype=np.int8)
    return (2 * drawn - 1) * np.float32(size**-0.5)


def _transform(columns: FloatArray) -> None:
    """Multiply by H, in place. A butterfly of rows at a time."""
    size = len(columns)
    here = start = columns.reshape(-1)
    there = np.empty(columns.size, np.float32)
    width = columns.size // size  # values that go through a butterfly together
    while width < columns.size:
        pairs, results = here.reshape(-1, 2, width), there.reshape(-1, 2, width)
        np.add(pairs[:, 0], pairs[:, 1], out=results[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=results[:, 1])
        here, there = there, here
        width *= 2
    if here is not start:
        start[:] = here
