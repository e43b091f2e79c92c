"""Statistics by slice: all subjects of a site, and each group of an attribute that may be shown.

A statistic's key is ``<slice>/<name>``; a slice is ``all`` or ``<attribute>=<value>``. One key more
for each attribute, ``<attribute>/suppressed`` (1,): subjects in slices held back. The last ``/``
ends the slice, the first ``=`` ends the attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import ConfigError, DataError, UpdateRejected
from fedcore.records import Statistics

FloatArray = NDArray[np.float64]
Counts = Mapping[str, FloatArray]
Rows = NDArray[np.bool_]
"""(N,): which of the subjects are in a slice."""

_LARGEST = 2**53
"""Up to here float64 holds every whole number, so that sums are exact."""


def collect(
    counted: Callable[[Rows, Sequence[Rows]], Counts],
    num_subjects: int,
    groups: Mapping[str, Sequence[str]],
    *,
    min_cell: int,
) -> dict[str, FloatArray]:
    """What ``counted`` gives of all subjects, and of each group that may be shown.

    ``counted`` is given the subjects of a slice, and those of each of its attribute's groups (for
    ``all``, that one), out of which it may have to hold something back itself. A group of fewer
    than ``min_cell`` subjects is held back, and so is the next larger one of the attribute where
    those held back would be fewer than ``min_cell`` in all. Raises ConfigError where an attribute's
    name holds ``=``, DataError where a group does not fit the subjects.
    """
    everyone = np.ones(num_subjects, np.bool_)
    statistics = _keyed("all", counted(everyone, [everyone]))
    for attribute, labels in groups.items():
        _check(attribute, labels, num_subjects)
        values, member = np.unique(np.asarray(labels, dtype=np.str_), return_inverse=True)
        inside = [member == index for index in range(len(values))]
        sizes = np.array([rows.sum() for rows in inside], np.int64)
        may_be_shown = shown(sizes, min_cell)
        held_back = num_subjects - sizes[may_be_shown].sum()
        statistics[f"{attribute}/suppressed"] = np.array([held_back], float)
        for index in may_be_shown:
            statistics |= _keyed(f"{attribute}={values[index]}", counted(inside[index], inside))
    return statistics


def _check(attribute: str, labels: Sequence[str], num_subjects: int) -> None:
    if "=" in attribute:
        raise ConfigError(f"task.groups: {attribute!r} may not hold '='; rename the attribute")
    if len(labels) != num_subjects:
        raise DataError(
            f"{len(labels)} values of {attribute!r} for {num_subjects} subjects",
            reason="groups that do not fit the subjects",
        )


def shown(sizes: NDArray[np.integer[Any]], min_cell: int) -> NDArray[np.intp]:
    """Indices of the groups that may be shown, ascending: the sum over all is known, too.

    >>> shown(np.array([40, 3, 9]), 5), shown(np.array([40, 3, 4]), 5)
    (array([0]), array([0]))
    """
    ascending = np.argsort(sizes, kind="stable")
    hidden = int((sizes < min_cell).sum())
    if 0 < sizes[ascending[:hidden]].sum() < min_cell:
        hidden += 1
    return np.sort(ascending[hidden:])


def summarise(
    statistics: Statistics,
    *,
    empty: Counts,
    problem_with: Callable[[Counts, Counts], str | None],
    figures: Callable[[Counts], dict[str, Any]],
) -> dict[str, Any]:
    """``figures`` of each slice: ``{"overall", "groups": {attribute: {value}}, "suppressed"}``.

    ``empty``: what is counted where there is nobody. Raises UpdateRejected where ``problem_with``
    finds that nobody counted so, or a slice is not known.
    """
    slices: dict[str, dict[str, FloatArray]] = {}
    groups: dict[str, dict[str, Any]] = {}
    suppressed: dict[str, int] = {}
    for key in sorted(statistics):
        place, _, name = key.rpartition("/")
        if name == "suppressed":
            if statistics[key].shape != (1,):
                raise UpdateRejected(f"{key!r} has shape {statistics[key].shape}, not (1,)")
            suppressed[place] = int(statistics[key].sum())
            groups[place] = {}
        else:
            slices.setdefault(place, {})[name] = np.asarray(statistics[key], np.float64)
    for place, counts in slices.items():
        fault = problem_with(counts, empty)
        if fault is not None:
            raise UpdateRejected(f"statistics of {place!r}: {fault}")
        attribute, equals, value = place.partition("=")
        if equals:
            groups.setdefault(attribute, {})[value] = figures(counts)
        elif place != "all":
            raise UpdateRejected(f"statistics of the unknown slice {place!r}")
    return {
        "overall": figures(slices.get("all", empty)),
        "groups": groups,
        "suppressed": {attribute: n for attribute, n in suppressed.items() if n > 0},
    }


def _keyed(place: str, counts: Counts) -> dict[str, FloatArray]:
    return {f"{place}/{name}": array for name, array in counts.items()}


def malformed(counts: Counts, like: Counts) -> str | None:
    """Why ``counts`` are not counts in arrays of the shapes of ``like``, or None."""
    for name in sorted(counts.keys() | like.keys()):
        found, wanted = (side[name].shape if name in side else None for side in (counts, like))
        if found != wanted:
            return f"{name!r} has shape {found}, not {wanted}"
        values = counts[name]
        if not ((values >= 0) & (values <= _LARGEST) & (values == np.rint(values))).all():
            return f"{name!r} does not hold whole numbers"
    return None
