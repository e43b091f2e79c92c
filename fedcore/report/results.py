"""Figures of the final model: forest plots, ROC, confusion, calibration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator

from fedcore.evaluation.headline import headline
from fedcore.report.numbers import bounds, count, share, spread, words
from fedcore.report.run import Record
from fedcore.report.style import INK, MUTED, ON_ACCENT, SERIES, canvas, to_svg

Row = tuple[str, Record | None]
"""A label and its metrics; None makes the label a heading."""


def _shown(metrics: Iterable[Record]) -> tuple[tuple[str, str], ...]:
    """The figures of a forest: what a run is first judged by, and sensitivity."""
    first = headline({key: True for of in metrics for key in of})
    return (first.key, first.label), ("sensitivity", "sensitivity")


def forest(
    name: str, rows: Sequence[Row], thresholds: Mapping[str, float | None] | None = None
) -> Markup | None:
    """Macro AUC, or Dice, and sensitivity with 95 % intervals, a row each, on one scale."""
    shown = _shown(metrics for _, metrics in rows if metrics)
    (first, label), _ = shown
    measured = [
        bounds(metrics.get(key)) for _, metrics in rows if metrics for key, _ in shown
    ]  # fmt: skip
    if not measured or np.isnan(np.array(measured)).all():
        return None
    left = max(0.0, np.floor(np.nanmin(np.array(measured)) * 10) / 10)
    figure, panels = canvas(height=0.85 + 0.24 * len(rows), columns=len(shown))
    for axes, (key, title) in zip(panels, shown, strict=True):
        for y, (_, metrics) in enumerate(rows):
            if metrics is not None:
                _whisker(axes, y, bounds(metrics.get(key)), overall=y == 0)
        if (threshold := (thresholds or {}).get(key)) is not None:
            axes.axvline(threshold, color=INK, linewidth=1, linestyle=":")
        axes.set(title=title, xlim=(left - 0.01, 1.02), ylim=(len(rows) - 0.5, -0.5))
        axes.xaxis.set_major_locator(MultipleLocator(0.1 if left >= 0.5 else 0.2))
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
    panels[0].set_yticks(range(len(rows)), [label for label, _ in rows])
    for tick, (_, metrics) in zip(panels[0].get_yticklabels(), rows, strict=True):
        tick.set_color(MUTED if metrics is None else INK)
    said = "; ".join(
        f"{row} {share(bounds(metrics.get(first))[0])} {spread(metrics.get(first))}"
        for row, metrics in rows
        if metrics is not None
    )
    told = f"{label[:1].upper()}{label[1:]} with 95 % interval: {said}."
    return to_svg(figure, f"forest-{name}", told)


def compared(overall: Any, baselines: Record, label: str = "macro AUC") -> Markup | None:
    """The federated model beside those trained at one site alone and those trained centrally.

    None if there is no other to compare it with.
    """
    alone = baselines.get("single_site_macro_auc") or {}
    rows = [
        ("federated", bounds(overall), SERIES[0], "o"),
        ("all data in one place", bounds(baselines.get("centralised_macro_auc")), SERIES[2], "D"),
        *((f"{site} alone", bounds(value), SERIES[1], "s") for site, value in alone.items()),
    ]
    rows = [row for row in rows if row[0] == "federated" or not np.isnan(row[1][0])]
    if len(rows) == 1:
        return None
    values = np.array([value for _, value, _, _ in rows])
    figure, (axes,) = canvas(height=0.75 + 0.26 * len(rows))
    for y, (_, (value, low, high), colour, marker) in enumerate(rows):
        axes.plot([low, high], [y, y], color=colour, linestyle="-")
        axes.plot([value], [y], color=colour, marker=marker, ms=6)
        if not np.isnan(value):
            axes.annotate(share(value), (np.fmax(value, high), y), (8, 0), va="center",
                          textcoords="offset points", fontsize=8)  # fmt: skip
    axes.axvline(values[0, 0], color=SERIES[0], linewidth=1, linestyle=":")
    axes.set(xlim=(np.floor(np.nanmin(values) * 10) / 10 - 0.02, 1.04), xlabel=label)
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows], color=INK)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    said = "; ".join(f"{row} {share(value[0])}" for row, value, _, _ in rows)
    return to_svg(figure, "compared", f"{label[:1].upper()}{label[1:]}: {said}.")


def overlap(metrics: Record) -> Markup | None:
    """How many subjects have which Dice, a line a structure."""
    counts = {
        name: np.array(of["histogram"], float)
        for name, of in (metrics.get("per_class") or {}).items()
        if any(of.get("histogram") or ())
    }
    if not counts:
        return None
    figure, (axes,) = canvas(4.2, 4.3)
    said = []
    for name, of in counts.items():
        edges = np.linspace(0, 1, len(of) + 1)
        axes.stairs(of, edges, label=f"{name} ({count(of.sum())})", linewidth=1.6)
        said.append(f"{name}: {count(of[edges[:-1] >= 0.5].sum())} of {count(of.sum())} above 0.5")
    axes.set(xlabel="Dice", ylabel="subjects who have it", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper left", ncols=2)
    return to_svg(figure, "overlap", f"Subjects by Dice. {'; '.join(said)}.")


def roc(metrics: Record) -> Markup | None:
    """One-vs-rest ROC curves, a line a class."""
    curves = {name: curve for name, curve in (metrics.get("roc") or {}).items() if curve["fpr"]}
    if not curves:
        return None
    figure, (axes,) = canvas(4.2, 4.3)
    per_class = metrics.get("per_class") or {}
    labels = []
    for name, curve in curves.items():
        auc = share(bounds(per_class.get(name, {}).get("auc"))[0])
        labels.append(f"{name} {auc}")
        axes.plot(curve["fpr"], curve["tpr"], label=labels[-1], clip_on=False)
    _diagonal(axes)
    axes.set(xlabel="1 − specificity", ylabel="sensitivity")
    figure.legend(loc="outside upper left", ncols=2)
    return to_svg(
        figure, "roc", f"ROC curves, one class against the rest. AUC: {', '.join(labels)}."
    )


def confusion(metrics: Record, classes: Sequence[str]) -> Markup | None:
    """Counts, and below each its share of the row (of those who truly have that class)."""
    counts = np.array(metrics.get("confusion") or [], dtype=float)
    if counts.ndim != 2 or counts.shape != (len(classes), len(classes)):
        return None
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    figure, (axes,) = canvas(4.2, 4.3)
    for (row, column), fraction in np.ndenumerate(shares):
        axes.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, color=SERIES[0],
                                 alpha=0.06 + 0.94 * fraction, linewidth=0))  # fmt: skip
        ink = ON_ACCENT if fraction > 0.5 else INK
        axes.text(column, row - 0.06, count(counts[row, column]), ha="center", va="bottom",
                  color=ink, fontsize=11)  # fmt: skip
        axes.text(column, row + 0.08, f"{100 * fraction:.0f} %", ha="center", va="top",
                  color=ink, fontsize=8)  # fmt: skip
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=0 if len(classes) < 6 else 45, color=INK)
    axes.set_yticks(ticks, classes, rotation=90, va="center", color=INK)
    axes.set(xlim=(-0.5, len(classes) - 0.5), ylim=(len(classes) - 0.5, -0.5), aspect="equal",
             xlabel="predicted", ylabel="truly")  # fmt: skip
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    said = "; ".join(
        f"{name}: {counts[i, i]:.0f} of {totals[i, 0]:.0f} right" for i, name in enumerate(classes)
    )
    return to_svg(figure, "confusion", f"Confusion matrix. {said}.")


def calibration(metrics: Record) -> Markup | None:
    """What the model was sure of against how often it was right; area = number of subjects."""
    bins = [b for b in metrics.get("reliability") or [] if b.get("num_examples")]
    points = np.array([(*bounds(b["confidence"])[:1], *bounds(b["observed"])[:1],
                        b["num_examples"]) for b in bins])  # fmt: skip
    if not bins or np.isnan(points).any(axis=1).all():
        return None
    figure, (axes,) = canvas(4.2, 4.3)
    confidence, observed, subjects = points.T
    axes.plot(confidence, observed, color=SERIES[0], linewidth=1)
    axes.scatter(confidence, observed, 220 * subjects / subjects.max(), color=SERIES[0], alpha=0.75,
                 linewidth=0, clip_on=False)  # fmt: skip
    _diagonal(axes)
    axes.set(xlabel="the model's confidence", ylabel="share that was right")
    said = ", ".join(f"{share(x)} → {share(y)}" for x, y, _ in points)
    return to_svg(figure, "calibration", f"Confidence → share that was right: {said}.")


def group_rows(final: Record) -> list[Row]:
    """The rows of the groups' forest: overall, then each attribute's values below its name."""
    rows: list[Row] = [("all", final.get("overall") or {})]
    for attribute, values in (final.get("groups") or {}).items():
        rows.append((words(attribute), None))
        rows.extend((f"{value}", metrics) for value, metrics in values.items())
    return rows


def _whisker(axes: Axes, y: int, interval: tuple[float, float, float], *, overall: bool) -> None:
    value, low, high = interval
    if np.isnan(value):
        axes.text(0.02, y, "not measured", transform=axes.get_yaxis_transform(), va="center",
                  color=MUTED, fontsize=8)  # fmt: skip
        return
    colour = SERIES[1] if overall else SERIES[0]
    axes.plot([low, high], [y, y], color=colour, linestyle="-", solid_capstyle="butt")
    axes.plot([value], [y], color=colour, marker="D" if overall else "o", ms=5.5)


def _diagonal(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
    ticks = ["0", "0.5", "1"]
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xticks([0, 0.5, 1], ticks)
    axes.set_yticks([0, 0.5, 1], ticks)
