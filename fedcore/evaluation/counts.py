"""What is counted of the subjects of one slice. ``metrics`` says what each array holds, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.evaluation import slices

FloatArray = NDArray[np.float64]

CONFIDENCE_UNITS = 1 << 20
"""A score of 1 in the sum of scores: whole numbers add up exactly, fractions do not."""

_SCORE_BINS, _RELIABILITY_BINS = 512, 10
_LOGIT_LIMIT, _LINEAR = 16, 0.1  # logits from chance: where the last bin is; where bins widen


def count(
    scores: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]
) -> dict[str, FloatArray]:
    """The arrays of one slice, by name: ``scores`` (N, K) in [0, 1], ``targets`` (N,) below K.

    >>> counts = count(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]))
    >>> counts["confusion"].tolist(), counts["positives"].sum(axis=1).tolist()
    ([[1.0, 1.0], [0.0, 0.0]], [2.0, 0.0])
    """
    p = np.clip(scores.astype(np.float64), 0, 1)
    num_classes = p.shape[1]
    chosen, confidence = p.argmax(axis=1), p.max(axis=1)
    cells = _score_bins(p) + _SCORE_BINS * np.arange(num_classes)
    own = targets[:, None] == np.arange(num_classes)
    level = np.minimum((confidence * _RELIABILITY_BINS).astype(np.int64), _RELIABILITY_BINS - 1)
    units = np.rint(confidence * CONFIDENCE_UNITS)
    histogram = (num_classes, _SCORE_BINS)
    return {
        "confusion": _tally(targets * num_classes + chosen, (num_classes, num_classes)),
        "positives": _tally(cells[own], histogram),
        "negatives": _tally(cells[~own], histogram),
        "reliability": np.stack([
            np.bincount(level, weights=weights, minlength=_RELIABILITY_BINS)
            for weights in (np.ones(len(level)), chosen == targets, units)
        ]),
    }  # fmt: skip


def _score_bins(p: FloatArray) -> NDArray[np.int64]:
    with np.errstate(divide="ignore"):
        from_chance = np.log(p) - np.log1p(-p) + np.log(p.shape[1] - 1)
    spread = np.arcsinh(from_chance / _LINEAR) / np.arcsinh(_LOGIT_LIMIT / _LINEAR)
    bins = (np.clip(spread, -1, 1) + 1) / 2 * _SCORE_BINS
    within: NDArray[np.int64] = np.minimum(bins.astype(np.int64), _SCORE_BINS - 1)
    return within


def _tally(cells: NDArray[np.integer[Any]], shape: tuple[int, int]) -> FloatArray:
    return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)


def problem_with(counts: Mapping[str, FloatArray], like: Mapping[str, FloatArray]) -> str | None:
    """Why ``counts`` cannot be of one population, or None. ``like`` has the shapes wanted."""
    if (problem := slices.malformed(counts, like)) is not None:
        return problem
    subjects = counts["confusion"].sum(axis=1)
    binned, right, units = counts["reliability"]
    agree = (
        np.array_equal(counts["positives"].sum(axis=1), subjects)
        and np.array_equal(counts["negatives"].sum(axis=1), subjects.sum() - subjects)
        and binned.sum() == subjects.sum()
        and (right <= binned).all()
        and (units <= CONFIDENCE_UNITS * binned).all()
    )
    return None if agree else "the arrays do not count the same subjects"
