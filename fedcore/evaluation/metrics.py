"""Metrics of a classifier as additive statistics: counted at the sites, summed up at the server.

A **statistic** is an array of whole numbers, held as float64 so that any store or secure sum
carries it. Adding is exact (up to 2^53) in any order, so merged sites give the same bits as pooled
data (but for what ``min_cell`` held back). Its key is ``<slice>/<name>``; a slice is ``all`` or
``<attribute>=<value>`` and holds, for K classes:

=================  ==============  ==============================================================
name               shape           what is counted
=================  ==============  ==============================================================
``confusion``      (K, K)          subjects by true class (row) and highest score (column)
``positives``      (K, 512)        subjects of class k, by the bin of their score for class k
``negatives``      (K, 512)        the other subjects, by the bin of their score for class k
``reliability``    (3, 10)         by the bin of the highest score: subjects, how many of them
                                   were right, sum of the highest score in units of 2^-20
=================  ==============  ==============================================================

One key more for each attribute, ``<attribute>/suppressed`` (1,): subjects in slices held back. The
last ``/`` ends the slice, the first ``=`` ends the attribute.

The score bins are the same everywhere: 512 equal steps of asinh(x/0.1) for |x| ≤ 16, where x is
the logit of the probability minus that of chance, 1/K. AUC depends on order alone, and the steps
are fine (0.002) where a model that has hardly learnt puts all its scores, and 2 % of x where one
that is sure spreads them out. Scores of one bin count as ties, so for m positives and n negatives
the AUC is at most ½ Σ_b p_b n_b / (m n) from that of the scores themselves, with p_b and n_b the
counts of bin b; in practice about 10⁻⁴, and 10⁻³ for a weak model on very unequal classes.

These are counts of real subjects without noise: they hide who, not whether someone like that was
there. Nothing here is differentially private.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import ConfigError, DataError, UpdateRejected
from fedcore.evaluation import slices
from fedcore.evaluation.counts import FloatArray, count, problem_with
from fedcore.evaluation.figures import figures
from fedcore.evaluation.slices import Rows
from fedcore.records import Statistics

_ROUNDING = 1e-5  # by which a float32 softmax may leave [0, 1]


def collect(
    scores: NDArray[np.floating[Any]],
    targets: NDArray[np.integer[Any]],
    groups: Mapping[str, Sequence[str]],
    *,
    num_classes: int,
    min_cell: int = 5,
) -> dict[str, FloatArray]:
    """Statistics of one site's subjects, in all and by group.

    ``scores`` (N, K) are probabilities, ``targets`` (N,) the true classes, ``groups`` gives N
    values for each attribute. A group of fewer than ``min_cell`` subjects is held back, and so is
    the next larger one of the attribute where those held back would be fewer than ``min_cell`` in
    all: the difference between "all" and the groups shown would give them away.

    Raises ConfigError if the model's scores are not (N, ``num_classes``) or an attribute's name
    holds ``=``, DataError if scores are not probabilities or targets or groups do not fit.
    """
    _check_subjects(scores, targets, num_classes)

    def counted(inside: Rows, _: Sequence[Rows]) -> dict[str, FloatArray]:
        return count(scores[inside], targets[inside])

    return slices.collect(counted, len(targets), groups, min_cell=min_cell)


def merge(statistics: Iterable[Statistics]) -> dict[str, FloatArray]:
    """The sum over sites, by key. Raises UpdateRejected where two arrays differ in shape.

    >>> merged = merge([{"a": np.array([1.0])}, {"a": np.array([2.0]), "b": np.array([5.0])}])
    >>> merged["a"], merged["b"]
    (array([3.]), array([5.]))
    """
    total: dict[str, FloatArray] = {}
    for part in statistics:
        for key, array in part.items():
            known = total.get(key)
            if known is not None and known.shape != array.shape:
                raise UpdateRejected(
                    f"statistic {key!r} has shape {array.shape} at one site and {known.shape} at "
                    "another; every site must run the same plan and version"
                )
            total[key] = array.astype(np.float64) if known is None else known + array
    return total


def summarise(statistics: Statistics, classes: Sequence[str]) -> dict[str, Any]:
    """Figures with 95 % intervals, as plain JSON-able data; None = undefined.

    Returns ``{"overall": M, "groups": {attribute: {value: M}}, "suppressed": {attribute:
    subjects}}``, with M as ``figures.figures`` gives it. An attribute with no group large enough
    is in ``groups`` with no value. Without statistics every count is 0.

    Raises UpdateRejected if the statistics are not what ``collect`` gives.

    >>> scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    >>> statistics = collect(scores, np.array([0, 0, 1, 1]), {}, num_classes=2)
    >>> overall = summarise(statistics, ["healthy", "ill"])["overall"]
    >>> overall["macro_auc"]["value"], overall["confusion"]
    (0.75, [[2, 0], [1, 1]])
    """
    return slices.summarise(
        statistics,
        empty=count(np.zeros((0, len(classes))), np.zeros(0, np.int64)),
        problem_with=problem_with,
        figures=lambda counts: figures(counts, classes),
    )


def _check_subjects(
    scores: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]], num_classes: int
) -> None:
    if scores.shape != (len(targets), num_classes):
        raise ConfigError(
            f"the model gives scores of shape {scores.shape} for {len(targets)} subjects and "
            f"{num_classes} classes: check task.model and task.classes in the plan"
        )
    if not ((scores >= -_ROUNDING) & (scores <= 1 + _ROUNDING)).all():  # NaN fails too
        raise DataError(
            "the model's scores are not probabilities; did training diverge?",
            reason="scores that are not probabilities",
        )
    if not ((targets >= 0) & (targets < num_classes)).all():
        raise DataError(
            f"a target is not one of the {num_classes} classes", reason="a target of no class"
        )
