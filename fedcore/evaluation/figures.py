"""From the counts of one slice to its figures, as plain JSON-able data. None = undefined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedcore.evaluation import intervals
from fedcore.evaluation.counts import CONFIDENCE_UNITS, FloatArray


def figures(counts: Mapping[str, FloatArray], classes: Sequence[str]) -> dict[str, Any]:
    """The figures of one slice from its ``counts``. With I = ``{"value", "low", "high"}``:

    - ``num_examples``, ``accuracy`` (I), ``confusion`` (row = true class, column = predicted)
    - ``macro_auc``, ``sensitivity``, ``specificity``, ``f1`` (I): means over the classes defined
    - ``per_class``: class → ``{num_examples, auc, sensitivity, specificity, f1}``, each I
    - ``undefined``: the classes without an AUC, since nobody or everybody has them
    - ``roc``: class → ``{fpr, tpr}``, one point for each bin in use, empty where undefined
    - ``reliability``: ``[{confidence, observed, num_examples}]``, one for each bin in use, and
      ``calibration_error``, their mean distance weighed by subjects (ECE of the highest score,
      Guo et al. 2017, https://arxiv.org/abs/1706.04599)
    """
    confusion, reliability = counts["confusion"], _reliability(counts["reliability"])
    total = confusion.sum()
    estimates = intervals.by_class(confusion, counts["positives"], counts["negatives"])
    rho = intervals.correlations(confusion)
    macro: dict[str, Any] = {
        m: intervals.macro(of, rho[m]).plain()[0] for m, of in estimates.items()
    }
    listed = {m: of.plain() for m, of in estimates.items()}
    per_class: dict[str, dict[str, Any]] = {}
    for k, name in enumerate(classes):
        per_class[name] = {"num_examples": int(confusion[k].sum())}
        per_class[name] |= {m: of[k] for m, of in listed.items()}
    return {
        "num_examples": int(total),
        "macro_auc": macro.pop("auc"),
        "accuracy": intervals.wilson(confusion.trace(), total).plain()[0],
        **macro,
        "calibration_error": _calibration_error(reliability),
        "per_class": per_class,
        "undefined": [name for name in classes if per_class[name]["auc"]["value"] is None],
        "confusion": confusion.astype(int).tolist(),
        "roc": {
            name: _roc(counts["positives"][k], counts["negatives"][k])
            for k, name in enumerate(classes)
        },
        "reliability": reliability,
    }


def _roc(positives: FloatArray, negatives: FloatArray) -> dict[str, list[float]]:
    """False and true positive rates from the highest bin down; empty where undefined."""
    sides = {"fpr": negatives[::-1], "tpr": positives[::-1]}
    if not all(side.any() for side in sides.values()):
        return {"fpr": [], "tpr": []}
    used = (positives + negatives)[::-1] > 0
    return {
        name: [0.0, *(side.cumsum()[used] / side.sum()).tolist()] for name, side in sides.items()
    }


def _reliability(counts: FloatArray) -> list[dict[str, float]]:
    return [
        {
            "confidence": float(units / CONFIDENCE_UNITS / subjects),
            "observed": float(right / subjects),
            "num_examples": int(subjects),
        }
        for subjects, right, units in counts.T
        if subjects > 0
    ]


def _calibration_error(reliability: Sequence[Mapping[str, float]]) -> float | None:
    subjects = [level["num_examples"] for level in reliability]
    distances = [abs(level["confidence"] - level["observed"]) for level in reliability]
    return float(np.average(distances, weights=subjects)) if subjects else None
