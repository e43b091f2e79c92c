"""Smooth random fields: deformations, bias fields and uneven edges are all made of them. And what
tissues look like, drawn anew for each subject."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def smooth(rng: np.random.Generator, shape: tuple[int, ...], knots: int) -> FloatArray:
    """A random field of ``shape``, zero mean and about unit variance, that varies over ``knots``.

    Independent normals at ``knots`` places along each axis, blended by Gaussian weights.
    ``einsum`` rather than ``@``: its sums do not depend on how many threads BLAS was given.
    """
    field = rng.standard_normal((knots,) * len(shape), dtype=np.float32)
    for size in shape:
        field = np.einsum("a...,ia->...i", field, _weights(size, knots))
    return field


def shown(
    fractions: Mapping[str, FloatArray],
    ranges: Mapping[str, tuple[float, float]],
    texture: float,
    rng: np.random.Generator,
) -> FloatArray:
    """An ideal image (X, Y, Z) of tissues ("air" among them), each with a mean out of its range.

    ``texture``: standard deviation within the body, in the image's unit.
    """
    image: FloatArray = np.zeros_like(fractions["air"])
    for tissue, (low, high) in ranges.items():
        image += np.float32(rng.uniform(low, high)) * fractions[tissue]
    image += (
        np.float32(texture)
        * rng.standard_normal(image.shape, dtype=np.float32)
        * (1.0 - fractions["air"])
    )
    return image


def _weights(size: int, knots: int) -> FloatArray:
    """(size, knots), each row of unit length, so that the blend of unit normals has variance 1."""
    places = np.linspace(0.0, knots - 1.0, size)[:, None]
    weights = np.exp(-0.5 * ((places - np.arange(knots)) / 0.6) ** 2)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    return weights.astype(np.float32)
