"""What the page says in sentences: the headline's figures, privacy, who took part."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedcore.evaluation.headline import headline
from fedcore.report.numbers import bounds, count, finite, scientific, share
from fedcore.report.run import Record, RunReport


@dataclass(frozen=True)
class Tile:
    """One figure of the headline. ``threshold`` is the gate's; ``at_most`` turns its direction.

    ``by_site``: it needs figures by site or by group.
    """

    label: str
    interval: Any
    meaning: str
    threshold: float | None = None
    at_most: bool = False
    by_site: bool = False

    @property
    def measured(self) -> bool:
        """Whether there is a value at all."""
        return not math.isnan(bounds(self.interval)[0])

    @property
    def failed(self) -> bool:
        """Whether the gate asks for it and does not get it; what is missing does not pass."""
        if self.threshold is None:
            return False
        value = bounds(self.interval)[0]
        return not (value <= self.threshold if self.at_most else value >= self.threshold)

    @property
    def marks(self) -> tuple[float, float, float]:
        """Value, low and high in percent of the tile's scale (0 to 1), for its bar."""
        value, low, high = (100 * min(max(x, 0.0), 1.0) for x in bounds(self.interval))
        return value, value if math.isnan(low) else low, value if math.isnan(high) else high


def tiles(run: RunReport) -> list[Tile]:
    """The figures that matter, on subjects that were never trained on."""
    overall, gates = run.final.get("overall") or {}, run.plan.get("gates") or {}
    first = headline(overall)
    worst_site, worst = worst_site_of(run, first.key)
    gap_of, gap = largest_gap(run)
    by_site = [
        Tile("Worst site", worst, f"{first.label} at {worst_site}" if worst_site else
             f"{first.label} by site", gates.get(f"min_site_{first.of_class}"), by_site=True),
        Tile("Group gap", gap, f"difference in {first.label} between values of {gap_of}"
             if gap_of else f"difference in {first.label} between groups",
             gates.get("max_group_gap"), at_most=True, by_site=True),
    ]  # fmt: skip
    if first.key == "dice":
        return [
            Tile("Dice", overall.get("dice"), "how far found and true outline agree: 0 is nowhere, "
                 "1 to the voxel; mean over the subjects who have a structure, then over "
                 "structures", gates.get("min_dice")),
            Tile("Sensitivity", overall.get("sensitivity"), "the share of a structure that is "
                 "found; the same means", gates.get("min_sensitivity")),
            Tile("Specificity", overall.get("specificity"), "of those without a structure, the "
                 "share in whom none is found", gates.get("min_specificity")),
            Tile("Pooled Dice", overall.get("pooled_dice"), "of all voxels together, which large "
                 "structures decide"),
            *by_site,
        ]  # fmt: skip
    return [
        Tile("Macro AUC", overall.get("macro_auc"), "how well the classes are told apart; 0.5 is "
             "chance, 1 is perfect", gates.get("min_macro_auc")),
        Tile("Sensitivity", overall.get("sensitivity"), "of those who have a class, the share that "
             "is found; mean over classes", gates.get("min_sensitivity")),
        Tile("Specificity", overall.get("specificity"), "of those without a class, the share that "
             "is not called so; mean over classes", gates.get("min_specificity")),
        Tile("Accuracy", overall.get("accuracy"), "the share of subjects given the right class",
             gates.get("min_accuracy")),
        *by_site,
    ]  # fmt: skip


def worst_site_of(run: RunReport, key: str) -> tuple[str | None, Any]:
    """The site where that figure is lowest, and its interval."""
    found = {
        site: interval
        for site, about in run.sites.items()
        if not math.isnan(bounds(interval := (about.get("summary") or {}).get(key))[0])
    }
    if not found:
        return None, None
    site = min(found, key=lambda name: bounds(found[name])[0])
    return site, found[site]


def largest_gap(run: RunReport) -> tuple[str | None, float | None]:
    """The attribute with the largest gap between two of its groups, and that gap."""
    gaps = {name: finite(item.get("gap")) for name, item in run.fairness.items()}
    gaps = {name: gap for name, gap in gaps.items() if not math.isnan(gap)}
    if not gaps:
        return None, None
    name = max(gaps, key=lambda attribute: gaps[attribute])
    return name.replace("_", " "), gaps[name]


def verdict_word(verdict: Record | None) -> str:
    """PASS or FAIL; a run that no gate judged has neither."""
    if verdict is None:
        return "NOT JUDGED"
    return "PASS" if verdict.get("passed") is True else "FAIL"


def guarantee(privacy: Record | None) -> list[str]:
    """What differential privacy promises here, for a reader who never heard of it.

    The bound on how much likelier an outcome becomes is the definition: Dwork and Roth 2014,
    https://doi.org/10.1561/0400000042, definition 2.4.
    """
    if privacy is None:
        return ["Privacy was not accounted for in this run: assume no formal guarantee."]
    unit, epsilon = str(privacy.get("unit") or "site"), finite(privacy.get("epsilon"))
    if math.isnan(epsilon):
        return [
            str(privacy.get("statement") or "")
            or "No formal guarantee. No noise hides what any one site contributed, so with the "
            "model and enough effort something about training data might be inferred.",
            "What holds all the same: images and names stay at the hospital; model updates and "
            "counts are what leaves it.",
        ]
    factor = f"{math.exp(epsilon):.3g}" if epsilon < 20 else "more than 10⁸"
    sentences = [
        f"ε = {epsilon:.3g} at δ = {scientific(privacy.get('delta'))}, per {unit}. Whether one "
        f"{unit} took part or not, any conclusion drawn from the model is at most {factor} times "
        f"as likely, but for a chance of δ.",
    ]
    if epsilon > 10:
        sentences.append("That is a weak promise: as a rule of thumb ε below 10 is worth having, "
                         "and below 1 strong.")  # fmt: skip
    if unit == "subject":
        sentences.append("It speaks of all scans of one person together, at the site where they "
                         "lie.")  # fmt: skip
    if unit == "site":
        sentences.append("It speaks of a whole site's contribution to the published model, "
                         "and says nothing of what people can see at the site itself.")  # fmt: skip
    return sentences


def pretraining(run: RunReport) -> list[str]:
    """What the encoders that began by reconstruction reached, over the sites."""
    return [
        f"The encoder of {modality} began by reconstructing the sites' own images "
        f"({count(of.get('images'))} at {count(of.get('sites'))} sites). Their mean squared error "
        f"was {share(of.get('first'), 3)} in the first epoch and {share(of.get('last'), 3)} in the "
        "last."
        for modality, of in run.pretraining.items()
    ]


@dataclass(frozen=True)
class Attendance:
    """One site over the rounds: a mark per round, and why it was dropped when it was."""

    site: str
    marks: tuple[tuple[Any, str], ...]
    reasons: Mapping[str, int]

    def times(self, mark: str) -> int:
        """In how many rounds the site has this mark."""
        return sum(found == mark for _, found in self.marks)


def attendance(run: RunReport) -> list[Attendance]:
    """Who took part: ``in``, ``dropped`` or ``rest`` (not asked) for every site and round."""
    asked = {site for item in run.history for site in (*(item.get("cohort") or ()),
                                                      *(item.get("dropped") or {}))}  # fmt: skip
    return [_attended(run, site) for site in sorted(asked | set(run.sites))]


def _attended(run: RunReport, site: str) -> Attendance:
    marks, reasons = [], Counter[str]()
    for item in run.history:
        dropped = item.get("dropped") or {}
        mark = "rest"
        if site in dropped:
            mark = "dropped"
            reasons[str(dropped[site])] += 1
        elif site in (item.get("cohort") or ()):
            mark = "in"
        marks.append((item.get("round_num"), mark))
    return Attendance(site, tuple(marks), dict(reasons))


def fewer_bytes(run: RunReport) -> str | None:
    """How many times fewer bytes the rounds took than float32 would have; None if unknown."""
    rounds = [part for phase, part in run.bytes.items() if phase in ("training", "validation")]
    sent = sum(finite(part.get(way)) for part in rounds for way in ("up", "down"))
    uncoded = finite(run.bytes_as_float32)
    if not rounds or not sent > 0 or math.isnan(uncoded):
        return None
    return f"{uncoded / sent:.1f}"
