"""Selective encryption: only some modules, or only the most revealing values.

FedML-HE (Jin et al. 2023, https://arxiv.org/abs/2303.10837): most of what an update gives away of
a subject lies in few of its values, so encrypting those costs a fraction and hides most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from fedcore.params import Params

Mask = NDArray[np.bool_]
Vector = NDArray[np.float64]


def select(
    like: Params,
    encrypt: Sequence[str] = ("*",),
    share: float = 1.0,
    sensitivity: Params | None = None,
) -> dict[str, Mask]:
    """Which values to encrypt: name → mask in the shape of the param, for every name of ``like``.

    ``encrypt``: patterns of names, as in a shell. ``share`` of the values under those patterns,
    the most sensitive first, rounded up; ``sensitivity``: name → magnitudes in the shapes of
    ``like``. Sites and server must come to the same selection, so it can only rest on what all of
    them know: the default to pass is the last round's change of the global params. It is a proxy:
    FedML-HE's own map is a gradient by the data, which no party may show. None, as in the first
    round, when nothing is known: all the values under the patterns. Ties go to the earlier name,
    then the earlier value. Raises ValueError for a share outside (0, 1], a pattern without a match,
    or a sensitivity of other names, shapes or with NaN.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; it lies in (0, 1]")
    for pattern in encrypt:
        if not any(fnmatchcase(name, pattern) for name in like):
            raise ValueError(f"no param's name matches {pattern!r}: {sorted(like)}")
    names = [n for n in sorted(like) if any(fnmatchcase(n, pattern) for pattern in encrypt)]
    masks = {name: np.full(like[name].shape, name in set(names)) for name in like}
    if sensitivity is None or share == 1 or not names:
        return masks
    ranked = _ranked(names, like, sensitivity)
    flat = np.zeros(ranked.size, np.bool_)
    flat[ranked[: int(np.ceil(share * ranked.size))]] = True
    begin = 0
    for name in names:
        end = begin + like[name].size
        masks[name] = flat[begin:end].reshape(like[name].shape)
        begin = end
    return masks


def split(vector: Vector, selection: Mask) -> tuple[Vector, Vector]:
    """(what to encrypt, the rest) of a flat vector, by a flat mask of its length."""
    if vector.shape != selection.shape:
        raise ValueError(f"a vector of {vector.shape} and a selection of {selection.shape}")
    return vector[selection], vector[~selection]


def join(secret: Vector, rest: Vector, selection: Mask) -> Vector:
    """The inverse of ``split``. Raises ValueError for other lengths."""
    chosen = int(selection.sum())
    if secret.shape != (chosen,) or rest.shape != (selection.size - chosen,):
        raise ValueError(
            f"{secret.shape} encrypted and {rest.shape} other values; the selection has "
            f"{chosen} and {selection.size - chosen}"
        )
    vector = np.empty(selection.size)
    vector[selection], vector[~selection] = secret, rest
    return vector


def flat(selection: Mapping[str, Mask], weights: int) -> Mask:
    """The selection over a flattened update: all params in name order, then ``weights`` weights,
    which are always encrypted: they say who has which scanner."""
    masks = [selection[name].reshape(-1) for name in sorted(selection)]
    return np.concatenate([*masks, np.ones(weights, np.bool_)])


def _ranked(names: Sequence[str], like: Params, sensitivity: Params) -> NDArray[np.intp]:
    for name in names:
        if name not in sensitivity or sensitivity[name].shape != like[name].shape:
            raise ValueError(f"no sensitivity of {name!r} in the shape {like[name].shape}")
    magnitudes = np.concatenate([np.abs(sensitivity[name]).reshape(-1) for name in names])
    if np.isnan(magnitudes).any():
        raise ValueError("a sensitivity is NaN")
    return np.argsort(-magnitudes, kind="stable")
