"""The weighted mean of the updates of a round, module by module: the sum of FedAvg.

For each module m, over the sites k that trained it::

    mean_m = Σ_k w_km · s_k · update_km  /  Σ_k w_km

with w the weights and s the clipping factor (McMahan et al. 2017, Algorithm 1,
https://arxiv.org/abs/1602.05629; the weights are per module, because a site that lacks a modality
trains the rest of the model only). A module that nobody trained is absent from the mean.

Sums are float64 and each step rounds elementwise, so the same updates added in the same order
give the same bits on any machine. Addition in another order may differ in the last bit: **the
caller fixes the order** (fedcore adds by sorted site name), and arrival order then never shows.

>>> import numpy as np
>>> params = {"head.bias": np.zeros(2, np.float32), "encoder.pet.bias": np.zeros(1, np.float32)}
>>> total = start(params)
>>> total = add(total, {"head.bias": np.array([1, 2], np.float32)}, {"head": 1.0})
>>> total = add(total, {"head.bias": np.array([4, 2], np.float32)}, {"head": 3.0}, scale=0.5)
>>> divide(total.trained(), total.weights)
{'head.bias': array([1.75, 1.25], dtype=float32)}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedcore.params import BLOCK, FloatArray, Params, blocks, module_of, modules

SumArray = NDArray[np.float64]


@dataclass(frozen=True)
class Sums:
    """Σ w·s·update by parameter name, and Σ w by module. ``add`` works in place on ``arrays``."""

    arrays: Mapping[str, SumArray]
    weights: Mapping[str, float]

    def trained(self) -> dict[str, SumArray]:
        """The sums of the modules that somebody trained with a weight above zero."""
        return {
            name: array
            for name, array in self.arrays.items()
            if self.weights.get(module_of(name), 0.0) > 0
        }


def start(like: Params) -> Sums:
    """Empty sums for updates of the names and shapes of ``like``."""
    return Sums({name: np.zeros(like[name].shape) for name in sorted(like)}, {})


def add(sums: Sums, update: Params, weights: Mapping[str, float], *, scale: float = 1.0) -> Sums:
    """The sums with ``weights[module] · scale · update`` added.

    Reuses (overwrites) the arrays of ``sums``, so that memory does not grow with the number of
    updates: go on with what is returned. The update and the weights were checked by
    ``params.problem_with``, ``weights.problem_with`` and a finite ``clipping.l2_norm``.

    Raises KeyError, before anything is added, if a parameter or the weight of a module is unknown.
    """
    factors = {module: weights[module] * scale for module in modules(update)}
    pairs = [(sums.arrays[name], update[name], factors[module_of(name)]) for name in update]
    term = np.empty(BLOCK)
    for array, values, factor in pairs:
        for total, block in zip(blocks(array), blocks(values), strict=True):
            product = term[: block.size]
            product[:] = block  # float64 before the product: float32 would round it
            product *= factor
            np.add(total, product, out=total)
    summed = {module: sums.weights.get(module, 0.0) + weights[module] for module in factors}
    return Sums(sums.arrays, {**sums.weights, **summed})


def divide(arrays: Mapping[str, SumArray], weights: Mapping[str, float]) -> dict[str, FloatArray]:
    """The mean update: ``arrays`` (``Sums.trained``, or those with noise) over their weights."""
    mean = {}
    for name in sorted(arrays):
        mean[name] = np.empty(arrays[name].shape, np.float32)  # no float64 copy on the way
        weight = weights[module_of(name)]
        np.divide(arrays[name], weight, out=mean[name], casting="same_kind")
    return mean
