"""The gate: whether a model may be promoted. What is missing or undefined fails, with its reason.

The thresholds are those of ``Gates`` in the plan. Each is compared with the estimate itself, not
with its interval. Three rules make it fail closed:

- every site must have sent its evaluation, whatever else is asked;
- but for accuracy, every class must be measurable over all sites together: a mean over the
  classes that happen to be defined says nothing of the others. A single site or group may lack a
  class, and is judged on those it has, but never on none;
- a threshold that is not known, or not a number, is one that nothing reaches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedcore.evaluation import fairness

Summary = Mapping[str, Any]

_OVERALL = {
    "min_macro_auc": "macro_auc",
    "min_dice": "dice",
    "min_accuracy": "accuracy",
    "min_sensitivity": "sensitivity",
    "min_specificity": "specificity",
}
_WORST_SITE = {"min_site_auc": "macro_auc", "min_site_dice": "dice"}


@dataclass(frozen=True)
class Check:
    """One question of the gate. ``reason`` is one sentence, empty where it passed."""

    name: str
    threshold: float
    value: float | None
    passed: bool
    reason: str


@dataclass(frozen=True)
class Verdict:
    """Whether every check passed, the reasons of those that did not, and all of them."""

    passed: bool
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]


def judge(
    thresholds: Mapping[str, float],
    summary: Summary,
    site_summaries: Mapping[str, Summary | None],
    sites: Sequence[str],
) -> Verdict:
    """Compare the summaries of ``metrics.summarise`` with the thresholds that the plan asks.

    ``sites`` are all that must have been evaluated. A plan without thresholds asks nothing: it
    passes, and the one reason says so.

    >>> judge({"min_accuracy": 0.8}, {"overall": {"accuracy": {"value": 0.7}}}, {"a": {}}, ["a"])
    ... # doctest: +ELLIPSIS
    Verdict(passed=False, reasons=('min_accuracy: 0.7000, and at least 0.8 is asked',), checks=...)
    """
    if not thresholds:
        return Verdict(True, ("no gate was asked: the plan sets no threshold",), ())
    checks = [_evaluated(site_summaries, sites)]
    for name, threshold in thresholds.items():
        if name in _OVERALL:
            checks.append(_overall(name, threshold, summary))
        elif name in _WORST_SITE:
            checks.append(_worst_site(name, threshold, summary, site_summaries, sites))
        elif name == "max_group_gap":
            checks.append(_widest_gap(name, threshold, summary))
        else:
            checks.append(_check(name, threshold, None, ["no such threshold is known"]))
    reasons = tuple(check.reason for check in checks if not check.passed)
    return Verdict(not reasons, reasons, tuple(checks))


def _evaluated(site_summaries: Mapping[str, Summary | None], sites: Sequence[str]) -> Check:
    missing = [site for site in sites if site_summaries.get(site) is None]
    faults = [f"no evaluation from {', '.join(missing)}"] if missing else []
    if not sites:
        faults.append("there is no site")
    return _check("sites_evaluated", float(len(sites)), float(len(sites) - len(missing)), faults)


def _overall(name: str, threshold: float, summary: Summary) -> Check:
    value = _value(summary, _OVERALL[name])
    faults = [] if name == "min_accuracy" else _unmeasured(summary)
    return _check(name, threshold, value, faults + _below(value, threshold))


def _worst_site(
    name: str,
    threshold: float,
    summary: Summary,
    site_summaries: Mapping[str, Summary | None],
    sites: Sequence[str],
) -> Check:
    found = {site: _value(site_summaries.get(site) or {}, _WORST_SITE[name]) for site in sites}
    defined = {site: value for site, value in found.items() if value is not None}
    undefined = [site for site in found if site not in defined]
    worst = min(defined, key=lambda site: defined[site], default=None)
    faults = _unmeasured(summary)
    if undefined or not sites:
        faults.append(f"undefined at {', '.join(undefined) or 'every site'}")
    if worst is not None:
        faults += [f"at {worst} {fault}" for fault in _below(defined[worst], threshold)]
    return _check(name, threshold, None if worst is None else defined[worst], faults)


def _widest_gap(name: str, threshold: float, summary: Summary) -> Check:
    gaps = fairness.gaps(summary)
    defined = {attribute: gap for attribute, gap in gaps.items() if gap["gap"] is not None}
    undefined = [attribute for attribute in gaps if attribute not in defined]
    widest = max(defined, key=lambda attribute: defined[attribute]["gap"], default=None)
    faults = _unmeasured(summary)
    if undefined or not gaps:
        faults.append(f"no two groups of {', '.join(undefined) or 'any attribute'} can be compared")
    if widest is None:
        return _check(name, threshold, None, faults)
    gap = defined[widest]
    value = float(gap["gap"])
    if not value <= threshold:
        faults.append(
            f"{value:.4f} between {gap['best']} and {gap['worst']} of {widest}, and at most "
            f"{threshold:g} is asked"
        )
    return _check(name, threshold, value, faults)


def _unmeasured(summary: Summary) -> list[str]:
    undefined = (summary.get("overall") or {}).get("undefined")
    if undefined is None:
        return ["the summary does not say which classes are undefined"]
    return [f"nothing can be said of {', '.join(undefined)}"] if undefined else []


def _below(value: float | None, threshold: float) -> list[str]:
    if value is None:
        return ["undefined"]
    return [] if value >= threshold else [f"{value:.4f}, and at least {threshold:g} is asked"]


def _value(summary: Summary, metric: str) -> float | None:
    """The overall figure, None unless it is a finite number."""
    value = ((summary.get("overall") or {}).get(metric) or {}).get("value")
    return float(value) if value is not None and math.isfinite(value) else None


def _check(name: str, threshold: float, value: float | None, faults: Sequence[str]) -> Check:
    reason = f"{name}: {'; '.join(faults)}" if faults else ""
    return Check(name, threshold, value, not faults, reason)
