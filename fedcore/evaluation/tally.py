"""Statistics as one vector of whole numbers, so that a secure sum can carry them.

The layout (which arrays, of which shape, in which order) is what ``collect`` gives of no subjects:
it follows from the plan, so that every site and the server know it without a word.

>>> shapes = {"b": (1,), "a": (1, 2)}
>>> total = words({"a": np.array([[1.0, 2.0]]), "b": np.array([5.0])}, shapes) + np.uint64(1)
>>> counts(total, shapes, sites=2)
{'a': array([[2., 3.]]), 'b': array([6.])}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import ConfigError, UpdateRejected
from fedcore.records import Statistics

LARGEST = 2**43
"""No site counts more in one cell, so that 2^10 sites add up exactly in float64, to 2^53."""

Layout = Mapping[str, tuple[int, ...]]
"""Name → shape; the vector holds the arrays in name order, each flat in C order."""

Words = NDArray[np.uint64]


def layout_of(collect: Callable[..., Statistics], num_classes: int) -> Layout:
    """The layout of what ``collect`` counts where there are no groups."""
    nobody = np.zeros((0, num_classes)), np.zeros(0, np.int64)
    empty = collect(*nobody, {}, num_classes=num_classes, min_cell=1)
    return {name: array.shape for name, array in empty.items()}


def length(layout: Layout) -> int:
    """Words of the vector."""
    return sum(map(prod, layout.values()))


def words(statistics: Statistics, layout: Layout) -> Words:
    """One site's statistics, exactly. Raises ConfigError where they are not whole numbers in
    [0, LARGEST] of this layout: then ``task.metrics.collect`` is not one that can be summed so."""
    shapes = {name: array.shape for name, array in statistics.items()}
    if shapes != dict(layout):
        raise ConfigError(
            "task.metrics.collect gives other arrays for these subjects than for none; behind "
            "masks, every site must give the same"
        )
    for name, array in statistics.items():
        if not ((array >= 0) & (array <= LARGEST) & (array == np.rint(array))).all():
            raise ConfigError(
                f"task.metrics.collect: {name!r} does not hold whole numbers of at most 2^43, and "
                "only those can be summed behind masks"
            )
    parts = [statistics[name].reshape(-1).astype(np.uint64) for name in sorted(layout)]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def counts(total: NDArray[Any], layout: Layout, sites: int) -> dict[str, NDArray[np.float64]]:
    """The statistics that these words are the sum of, over so many sites.

    Raises UpdateRejected where no such sites can have counted so.
    """
    if total.size and int(total.max()) > sites * LARGEST:
        raise UpdateRejected("a count in the sum is larger than all sites' together can be")
    found, begin = {}, 0
    for name in sorted(layout):
        end = begin + prod(layout[name])
        found[name] = total[begin:end].reshape(layout[name]).astype(np.float64)
        begin = end
    return found
