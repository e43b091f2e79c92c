"""How far a generative model's images are from the true ones, as additive statistics.

Of the mean squared error of each subject's image as the model reconstructs it, one array, of whole
numbers that add up exactly over sites: ``reconstruction`` (M, 3), by modality the subjects who have
it, the sum of their errors and that of their squares, in units of 2^-20. A modality that fewer than
``min_cell`` subjects of a site have is told as if nobody had it: a sum over few would tell of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import DataError, UpdateRejected
from fedcore.evaluation.intervals import Z
from fedcore.evaluation.slices import FloatArray, malformed
from fedcore.records import Statistics

KEY = "reconstruction"
UNITS = 1 << 20

MOST = 16.0
"""An error above counts as this, so that sums stay exact. Images vary by about 1."""


def collect(
    errors: Mapping[str, NDArray[np.floating[Any]]], modalities: Sequence[str], *, min_cell: int
) -> dict[str, FloatArray]:
    """Of one site's ``errors``: modality → (N,), of those who have it, in its units squared.

    Raises DataError where an error is not a number.

    >>> counted = collect({"pet": np.array([0.5, 1.0]), "ct": np.array([2.0])}, ["ct", "pet"],
    ...                   min_cell=2)
    >>> (counted["reconstruction"] / [1, UNITS, UNITS]).tolist()
    [[0.0, 0.0, 0.0], [2.0, 1.5, 1.25]]
    """
    found = np.zeros((len(modalities), 3))
    for row, name in zip(found, modalities, strict=True):
        of = np.asarray(errors.get(name, ()), np.float64)
        if np.isnan(of).any():
            raise DataError(
                f"an error of reconstruction of {name!r} is not a number; did training diverge?",
                reason="errors of reconstruction that are not numbers",
            )
        if len(of) >= min_cell:
            of = np.minimum(of, MOST)
            row[:] = [len(of), *(np.rint(UNITS * of**power).sum() for power in (1, 2))]
    return {KEY: found}


def layout(modalities: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """What ``collect`` gives: name → shape."""
    return {KEY: (len(modalities), 3)}


def figures(statistics: Statistics, modalities: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Modality → ``{num_examples, value, low, high}``: the mean squared error over the subjects who
    have it, and the 95 % limits of that mean; None where undefined.

    Raises UpdateRejected where nobody counted so.

    >>> counted = collect({"pet": np.array([0.5, 1.0])}, ["pet"], min_cell=1)
    >>> figures(counted, ["pet"])["pet"]["value"]
    0.75
    """
    counts = np.asarray(statistics.get(KEY, np.zeros((len(modalities), 3))), np.float64)
    fault = malformed({KEY: counts}, {KEY: np.zeros((len(modalities), 3))})
    if fault is not None:
        raise UpdateRejected(f"statistics of the reconstruction: {fault}")
    if not (counts[:, 1:] <= UNITS * counts[:, :1] * [MOST, MOST**2]).all():
        raise UpdateRejected("statistics of the reconstruction: the sums are not of these subjects")
    return {name: _mean(*row) for name, row in zip(modalities, counts.tolist(), strict=True)}


def _mean(number: float, total: float, squares: float) -> dict[str, Any]:
    if number == 0:
        return {"num_examples": 0, "value": None, "low": None, "high": None}
    mean = total / number / UNITS
    if number == 1:
        return {"num_examples": 1, "value": mean, "low": None, "high": None}
    variance = max(0.0, squares / number / UNITS - mean**2) / (number - 1)
    half = Z * variance**0.5
    limits = {"low": max(0.0, mean - half), "high": mean + half}
    return {"num_examples": int(number), "value": mean, **limits}
