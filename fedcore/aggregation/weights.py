"""How much a site counts in the mean, and what the server accepts as a weight.

With noise, the weights must be bounded: the largest one scales the sensitivity of the sum
(``privacy.gaussian.stddev``). Bounded weights lie in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

UNIFORM = 1.0
"""Every site counts the same, whatever its size."""


def examples(num_examples: int, cap: float | None = None) -> float:
    """A site counts by its examples: n, or min(n, cap) / cap in [0, 1] when a cap is given.

    >>> examples(30), examples(30, cap=40), examples(300, cap=40)
    (30.0, 0.75, 1.0)
    """
    if num_examples < 0:
        raise ValueError(f"num_examples is {num_examples}; it cannot be negative")
    return float(num_examples) if cap is None else min(num_examples, cap) / cap


def problem_with(
    weights: Mapping[str, float], trained: Iterable[str], bound: float | None
) -> str | None:
    """Why these weights (by module) cannot be used for an update of the ``trained`` modules.

    None if they can: exactly one weight a module, finite, not negative, at most ``bound``.

    >>> problem_with({"head": 0.5}, ["head"], bound=1.0)
    >>> problem_with({"head": 2.0}, ["head"], bound=1.0)
    "has the weight 2.0 for module 'head'; at most 1.0 is allowed"
    """
    wanted = set(trained)
    if missing := sorted(wanted - set(weights)):
        return f"has no weight for module {missing[0]!r}"
    if unknown := sorted(set(weights) - wanted):
        return f"has a weight for module {unknown[0]!r}, which it did not train"
    for module, weight in sorted(weights.items()):
        if not math.isfinite(weight) or weight < 0:
            return f"has the weight {weight} for module {module!r}; finite and >= 0 is wanted"
        if bound is not None and weight > bound:
            return f"has the weight {weight} for module {module!r}; at most {bound} is allowed"
    return None
