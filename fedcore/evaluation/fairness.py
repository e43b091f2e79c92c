"""How differently a model serves the groups of one attribute (sex, age band, scanner).

Two groups are compared on the classes that both have: a mean over other classes would make a gap
of who is ill with what. Where both have every class this is the difference of their macro figures.

- **AUC gap**, of a segmentation **Dice gap**: subgroup performance disparity (Seyyed-Kalantari et
  al. 2021, https://doi.org/10.1038/s41591-021-01595-0)
- **sensitivity gap**: equal opportunity (Hardt et al. 2016, https://arxiv.org/abs/1610.02413), the
  mean over classes of the difference in true positive rate
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from statistics import fmean
from typing import Any

from fedcore.evaluation.headline import headline

Figures = Mapping[str, Any]


def gaps(summary: Figures) -> dict[str, dict[str, Any]]:
    """The largest gap between two groups, for each attribute of ``metrics.summarise``'s result.

    Returns attribute → ``{"metric": "macro_auc" or "dice", "gap", "best", "worst", "undefined",
    "equal_opportunity": {…}}`` where the last holds the same for ``"sensitivity"``. ``gap`` is
    None where no two groups can be compared; ``undefined`` lists the groups that can be compared
    with no other.

    >>> def group(auc):
    ...     return {"per_class": {"ill": {"auc": {"value": auc}, "sensitivity": {"value": 0.5}}}}
    >>> found = gaps({"groups": {"sex": {"F": group(0.75), "M": group(0.5), "X": group(None)}}})
    >>> found["sex"]["gap"], found["sex"]["best"], found["sex"]["undefined"]
    (0.25, 'F', ['X'])
    """
    first = headline(summary.get("overall") or {})
    return {
        attribute: {
            **_largest(groups, first.key, first.of_class),
            "equal_opportunity": _largest(groups, "sensitivity", "sensitivity"),
        }
        for attribute, groups in summary.get("groups", {}).items()
    }


def _largest(groups: Mapping[str, Figures], metric: str, of_class: str) -> dict[str, Any]:
    defined = {group: _defined(figures, of_class) for group, figures in groups.items()}
    differences = {}
    for one, other in combinations(defined, 2):
        shared = defined[one].keys() & defined[other].keys()
        if shared:
            differences[one, other] = fmean(defined[one][name] - defined[other][name]
                                            for name in sorted(shared))  # fmt: skip
    compared = {group for pair in differences for group in pair}
    best, worst, gap = None, None, None
    if differences:
        best, worst = max(differences, key=lambda pair: abs(differences[pair]))
        gap = abs(differences[best, worst])
        if differences[best, worst] < 0:
            best, worst = worst, best
    return {
        "metric": metric,
        "gap": gap,
        "best": best,
        "worst": worst,
        "undefined": [group for group in groups if group not in compared],
    }


def _defined(figures: Figures, of_class: str) -> dict[str, float]:
    """Class → value, for the classes where the group's figure is a finite number."""
    found = {
        name: (of.get(of_class) or {}).get("value")
        for name, of in (figures.get("per_class") or {}).items()
    }
    return {name: x for name, x in found.items() if x is not None and math.isfinite(x)}
