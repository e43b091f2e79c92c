"""FedNova: updates by the step, so that a site's many steps do not count as many sites.

FedAvg moves towards the optimum of another objective where sites take different numbers of local
steps: more data, or more epochs, is more steps, and a longer update. FedNova (Wang et al. 2020,
https://arxiv.org/abs/2007.07481) averages what one step did, and then goes as many::

    mean = τ_eff · Σ_k w_k · update_k / ‖a_k‖₁  /  Σ_k w_k
    τ_eff = Σ_k w_k · ‖a_k‖₁  /  Σ_k w_k          (or any number: the paper leaves it open)

with ‖a_k‖₁ the weight of the site's gradients in its update: τ_k, its number of steps, for plain
SGD. All of it is by module, because a site may have a modality in some of its batches only.

>>> lengths = {"a": {"head": 10.0}, "b": {"head": 30.0}}
>>> effective({"a": {"head": 1.0}, "b": {"head": 3.0}}, lengths)
{'head': 25.0}
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from fedcore.params import FloatArray, Params, module_of

Lengths = Mapping[str, float]
"""Module → ‖a‖₁ of one site's update."""


def length(steps: int, learning_rate: float = 0.0, proximal_mu: float = 0.0) -> float:
    """‖a‖₁ after so many steps of SGD: ``steps``; with FedProx a = [(1 − ημ)^(steps − 1), …, 1],
    since each step takes back a part ημ of those before.

    >>> length(10), length(2, learning_rate=0.1, proximal_mu=1.0)
    (10.0, 1.9)
    """
    kept = abs(1 - learning_rate * proximal_mu)
    return float(steps) if kept == 1 else (1 - kept**steps) / (1 - kept)


def scale(update: Params, factors: Mapping[str, float]) -> dict[str, FloatArray]:
    """The update with each module times its factor. Raises KeyError for a module without one."""
    return {name: array * np.float32(factors[module_of(name)]) for name, array in update.items()}


def effective(
    weights: Mapping[str, Mapping[str, float]], lengths: Mapping[str, Lengths]
) -> dict[str, float]:
    """τ_eff by module; both arguments are site → module → number. Sites are added in name order.

    Modules whose weights are all zero are absent.
    """
    total, steps = defaultdict[str, float](float), defaultdict[str, float](float)
    for site in sorted(weights):
        for module, weight in sorted(weights[site].items()):
            if weight > 0:
                total[module] += weight
                steps[module] += weight * lengths[site][module]
    return {module: steps[module] / total[module] for module in total}


def problem_with(lengths: Lengths, trained: Iterable[str]) -> str | None:
    """Why these cannot be the lengths of an update of the ``trained`` modules; None if they can.

    >>> problem_with({"head": 3.0}, ["head"])
    >>> problem_with({"head": 0.0}, ["head"])
    "says that its update of module 'head' is 0.0 steps long; finite and >= 1 is wanted"
    """
    for module in sorted(set(trained) | set(lengths)):
        found = lengths.get(module)
        if found is None:
            return f"does not say how many steps long its update of module {module!r} is"
        if not math.isfinite(found) or found < 1:
            return (
                f"says that its update of module {module!r} is {found} steps long; finite and >= 1 "
                "is wanted"
            )
    return None
