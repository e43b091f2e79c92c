"""A volume through a model that takes patches: windows that overlap, their answers blended.

A site evaluates by it and serving answers by it, so that what was judged is what is served. Places
and weights are those of MONAI's ``sliding_window_inference`` with ``mode="gaussian"``
(https://monai.readthedocs.io/en/stable/inferers.html), in NumPy, so that serving loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Place = tuple[slice, slice, slice]

_SIGMA = 0.125
"""Of the weights, as a share of each edge."""

_LEAST = 1e-3
"""MONAI's least weight: what only the corner of a window sees must not drown in rounding."""


def places(size: Sequence[int], patch: Sequence[int], overlap: float) -> list[Place]:
    """Where windows of ``patch`` voxels lie in a volume of ``size``: each axis from its beginning,
    neighbours sharing ``overlap`` (in [0, 1)) of an edge or more, the last at the volume's end.

    Raises ValueError if the volume is smaller than a window.

    >>> [x.start for x, _, _ in places((11, 4, 4), (4, 4, 4), 0.25)]
    [0, 3, 6, 7]
    """
    if any(part > whole for whole, part in zip(size, patch, strict=True)):
        raise ValueError(f"a window of {tuple(patch)} voxels in a volume of {tuple(size)}")
    along = []
    for whole, part in zip(size, patch, strict=True):
        step, last = max(1, int(part * (1 - overlap))), whole - part
        along.append([slice(at, at + part) for at in (*range(0, last, step), last)])
    x, y, z = along
    return list(product(x, y, z))


def weights(patch: Sequence[int]) -> FloatArray:
    """What a window's answer counts (X, Y, Z): less towards its edges, where the model sees least.

    >>> weights((3, 3, 3))[1, 1].astype(float).round(3).tolist()
    [0.029, 1.0, 0.029]
    """
    x, y, z = (np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (_SIGMA * n)) ** 2) for n in patch)
    falling: NDArray[np.float64] = x[:, None, None] * y[:, None] * z
    return np.maximum(falling, _LEAST).astype(np.float32)


def blend(
    size: Sequence[int],
    answer: Callable[[Place], NDArray[np.floating]],
    *,
    patch: Sequence[int],
    overlap: float,
) -> FloatArray:
    """The weighted mean of all windows' answers: (B, K, X, Y, Z) of a volume of ``size``.

    ``answer``: what the model says of the window at a place, (B, K, *patch). One window is looked
    at at a time, so that the model's memory goes by the patch. A mean moves no further than what it
    is of: two models that agree on every window agree on the volume.
    """
    weight, sums = weights(patch), np.zeros(tuple(size), np.float32)
    total: FloatArray | None = None
    for place in places(size, patch, overlap):
        found = answer(place)
        if total is None:
            total = np.zeros((*found.shape[:2], *size), np.float32)
        total[(..., *place)] += weight * found
        sums[place] += weight
    assert total is not None  # noqa: S101  # there is a window in every volume
    total /= sums
    return total
