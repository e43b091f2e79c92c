"""Metrics of a segmentation as additive statistics, as ``metrics`` has them of a classifier.

The first class is the background; the others are the **structures**, F of them. A slice holds, in
whole numbers that add up exactly over sites:

==============  ============  =====================================================================
name            shape         what is counted
==============  ============  =====================================================================
``number``      (1,)          subjects
``subjects``    (F, 4)        who have the structure; of them, in whom none of it was found; who do
                              not have it; of them, in whom it was found all the same
``voxels``      (F, 3)        that truly are it, that were called so, and both
``moments``     (F, 2, 2)     over those who have it: sum, and sum of squares, of their Dice (row 0)
                              and sensitivity (row 1), in units of 2^-20
``histogram``   (F, 20)       those who have it by their Dice, in equal steps
``held_back``   (F,)          who have it, where they are too few to be told of
==============  ============  =====================================================================

**Dice** (1945, https://doi.org/10.2307/1932409) of a subject is 2·both/(true + found). It says
nothing of a subject who does not have the structure: of those, it is counted in how many something
was found (Reinke et al. 2024, https://doi.org/10.1038/s41592-023-02150-0, on empty references).

A sum over few subjects would tell a subject's own tumour volume. So of a structure that fewer than
``min_cell`` subjects of a slice have, nothing is told but how many they are; and so of the next
larger group of the attribute, where the difference from all would give them away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import ConfigError, DataError
from fedcore.evaluation import intervals, slices
from fedcore.evaluation.intervals import Estimates
from fedcore.evaluation.slices import Counts, FloatArray, Rows
from fedcore.records import Statistics

UNITS = 1 << 20
"""A Dice of 1 in sums: whole numbers add up exactly, fractions do not."""

_BINS = 20


def spared(scores: NDArray[Any], least: Sequence[int]) -> NDArray[Any]:
    """Scores (B, K, X, Y, Z) by which a class that is the likeliest of fewer than ``least[k]`` of a
    subject's voxels is so nowhere: there the next likeliest is. Shorter ``least``: 0 of the rest.

    >>> scores = np.array([[[[[0.4, 0.3, 0.9]]], [[[0.6, 0.7, 0.1]]]]])
    >>> [spared(scores, [0, fewest]).argmax(axis=1).ravel().tolist() for fewest in (2, 3)]
    [[1, 1, 0], [0, 0, 0]]
    """
    called, found = scores.argmax(axis=1), scores
    for k, fewest in enumerate(least):
        few = (called == k).reshape(len(called), -1).sum(axis=1) < fewest
        if few.any():
            found = found.copy() if found is scores else found
            found[few, k] = scores.min()  # finite, for it may be interpolated; the first class wins
    return found


def collect(
    found: NDArray[Any],
    true: NDArray[Any],
    groups: Mapping[str, Sequence[str]],
    *,
    num_classes: int,
    min_cell: int = 5,
) -> dict[str, FloatArray]:
    """Statistics of one site's subjects, in all and by group.

    ``found`` (N, K, 2): by subject and class, the voxels that were called so and truly are, and all
    that were called so; ``true`` (N, K): those that truly are. ``groups``: N values an attribute.
    Raises ConfigError if these are not of K = ``num_classes`` classes or an attribute's name holds
    ``=``, DataError if they are no such counts or groups do not fit.
    """
    if found.size == 0:
        found, true = np.zeros((0, num_classes, 2)), np.zeros((0, num_classes))
    _check(found, true, num_classes)

    def counted(inside: Rows, siblings: Sequence[Rows]) -> dict[str, FloatArray]:
        counts = count(found[inside], true[inside])
        return _without_few(counts, _tellable(true, inside, siblings, min_cell))

    return slices.collect(counted, len(true), groups, min_cell=min_cell)


def count(found: NDArray[Any], true: NDArray[Any]) -> dict[str, FloatArray]:
    """The arrays of one slice, nothing held back; arguments as in ``collect``.

    >>> counts = count(np.array([[[90, 91], [9, 10]]]), np.array([[91, 10]]))
    >>> counts["voxels"].tolist(), round(counts["moments"][0, 0, 0] / UNITS, 3).item()
    ([[10.0, 10.0, 9.0]], 0.9)
    """
    both, called = (np.asarray(found[:, 1:, i], np.float64) for i in (0, 1))  # (N, F)
    size = np.asarray(true[:, 1:], np.float64)
    has = size > 0
    dice = 2 * both / np.where(has, size + called, 1)
    sensitivity = both / np.where(has, size, 1)
    level = np.minimum((dice * _BINS).astype(np.int64), _BINS - 1)
    in_bin = (level[..., None] == np.arange(_BINS)) & has[..., None]
    return {
        "number": np.array([len(size)], np.float64),
        "subjects": np.stack([
            has.sum(axis=0), (has & (both == 0)).sum(axis=0),
            (~has).sum(axis=0), (~has & (called > 0)).sum(axis=0),
        ], axis=1).astype(np.float64),
        "voxels": np.stack([of.sum(axis=0) for of in (size, called, both)], axis=1),
        "moments": np.stack([
            np.stack([np.rint(UNITS * of**power * has).sum(axis=0) for power in (1, 2)], axis=1)
            for of in (dice, sensitivity)
        ], axis=1),
        "histogram": in_bin.sum(axis=0).astype(np.float64),
        "held_back": np.zeros(size.shape[1]),
    }  # fmt: skip


def summarise(statistics: Statistics, classes: Sequence[str]) -> dict[str, Any]:
    """Figures with 95 % intervals, as plain JSON-able data; None = undefined.

    Returns ``{"overall": M, "groups": {attribute: {value: M}}, "suppressed": {attribute:
    subjects}}``, with M as ``figures`` gives it. Raises UpdateRejected if the statistics are not
    what ``collect`` gives.

    >>> statistics = collect(np.array([[[90, 91], [9, 10]]]), np.array([[91, 10]]), {},
    ...                      num_classes=2, min_cell=1)
    >>> summarise(statistics, ["background", "tumour"])["overall"]["dice"]["value"].__round__(3)
    0.9
    """
    return slices.summarise(
        statistics,
        empty=count(np.zeros((0, len(classes), 2)), np.zeros((0, len(classes)))),
        problem_with=problem_with,
        figures=lambda counts: figures(counts, classes),
    )


def figures(counts: Counts, classes: Sequence[str]) -> dict[str, Any]:
    """The figures of one slice. With I = ``{"value", "low", "high"}``, over the structures:

    - ``num_examples``; ``dice``, ``sensitivity`` (I): means over the subjects who have a structure,
      then over the structures defined. The limits take the structures' errors for one, because
      they are the same subjects'
    - ``specificity`` (I): the share of those without a structure in whom none was found
    - ``pooled_dice`` (I without limits): of all voxels together, which large structures decide
    - ``per_class``: structure → the same, ``num_examples`` who have it, ``missed`` of them,
      ``false_alarms``, ``histogram`` (of Dice, equal steps)
    - ``undefined``: the structures without a Dice, since nobody has them, or too few
    - ``held_back``: structure → subjects too few to be told of
    """
    names, subjects = classes[1:], counts["subjects"]
    estimates = by_structure(counts)
    listed = {name: of.plain() for name, of in estimates.items()}
    same = np.ones((len(names), len(names)))
    per_class: dict[str, dict[str, Any]] = {}
    for f, name in enumerate(names):
        has, missed, _, false_alarms = subjects[f].astype(int).tolist()
        per_class[name] = {
            "num_examples": has, "missed": missed, "false_alarms": false_alarms,
            **{metric: of[f] for metric, of in listed.items()},
            "histogram": counts["histogram"][f].astype(int).tolist(),
        }  # fmt: skip
    return {
        "num_examples": int(counts["number"].sum()),
        **{metric: intervals.macro(of, same).plain()[0] for metric, of in estimates.items()},
        "per_class": per_class,
        "undefined": [name for name in names if per_class[name]["dice"]["value"] is None],
        "held_back": {
            name: int(n) for name, n in zip(names, counts["held_back"], strict=True) if n > 0
        },
    }


def by_structure(counts: Counts) -> dict[str, Estimates]:
    """Each metric's estimates (F,)."""
    has, _, without, false_alarms = counts["subjects"].T
    true, called, both = counts["voxels"].T
    sums = np.moveaxis(counts["moments"], 0, -1) / UNITS  # (metric, power, F)
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = np.where(true > 0, 2 * both / (true + called), np.nan)
    unknown = np.full_like(pooled, np.nan)
    return {
        "dice": intervals.mean_of(sums[0, 0], sums[0, 1], has),
        "sensitivity": intervals.mean_of(sums[1, 0], sums[1, 1], has),
        "specificity": intervals.wilson(without - false_alarms, without),
        "pooled_dice": Estimates(pooled, unknown, unknown),
    }


def problem_with(counts: Counts, like: Counts) -> str | None:
    """Why ``counts`` cannot be of one population, or None. ``like`` has the shapes wanted."""
    if (problem := slices.malformed(counts, like)) is not None:
        return problem
    has, missed, without, false_alarms = counts["subjects"].T
    true, called, both = counts["voxels"].T
    moments, number = counts["moments"], counts["number"].sum()
    agree = (
        (missed <= has).all()
        and (false_alarms <= without).all()
        and (has + without <= number).all()
        and (both <= np.minimum(true, called)).all()
        and np.array_equal(counts["histogram"].sum(axis=1), has)
        and (moments <= UNITS * has[:, None, None]).all()
    )
    return None if agree else "the arrays do not count the same subjects"


def _tellable(
    true: NDArray[Any], inside: Rows, siblings: Sequence[Rows], min_cell: int
) -> NDArray[np.bool_]:
    """(F,): the structures that nobody in the slice has, or enough; also in its difference from
    the sum over all ``siblings``."""
    sizes = np.stack([(true[rows, 1:] > 0).sum(axis=0) for rows in siblings])  # (groups, F)
    own = next(i for i, rows in enumerate(siblings) if rows is inside)
    return np.array([
        of[own] == 0 or own in slices.shown(of, min_cell) for of in sizes.T
    ], np.bool_)  # fmt: skip


def _without_few(
    counts: Mapping[str, FloatArray], tellable: NDArray[np.bool_]
) -> dict[str, FloatArray]:
    told = {
        name: array if name == "number" else array * tellable.reshape(-1, *[1] * (array.ndim - 1))
        for name, array in counts.items()
    }
    return told | {"held_back": np.where(tellable, 0.0, counts["subjects"][:, 0])}


def _check(found: NDArray[Any], true: NDArray[Any], num_classes: int) -> None:
    if found.shape != (len(true), num_classes, 2) or true.shape != (len(true), num_classes):
        raise ConfigError(
            f"the model gives voxel counts of shape {found.shape} for {num_classes} classes: a "
            "segmentation needs logits (batch, classes, X, Y, Z); check task.model and "
            "task.classes in the plan"
        )
    right, called = found[..., 0], found[..., 1]
    sound = (right >= 0) & (right <= called) & (right <= true)
    if not sound.all() or not np.array_equal(called.sum(axis=1), true.sum(axis=1)):
        raise DataError("these are no counts of voxels", reason="voxels that do not add up")
