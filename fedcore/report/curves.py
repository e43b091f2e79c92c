"""Figures over the rounds: how the model got better, and what each round cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from fedcore.evaluation.headline import headline
from fedcore.report.numbers import bounds, finite, share, size, words
from fedcore.report.run import Record
from fedcore.report.style import INK, MUTED, SERIES, canvas, to_svg

_BAR_SERIES = (*SERIES, MUTED)
_LEGEND_COLUMNS = 3


def quality(history: Sequence[Record], threshold: float | None = None) -> Markup | None:
    """Macro AUC and accuracy, or Dice and sensitivity, with 95 % bands; ``threshold`` is the
    gate's for the first of the two."""
    first = headline({key: True for item in history for key in item})
    second = "sensitivity" if first.key == "dice" else "accuracy"
    figure, (axes,) = canvas()
    said = []
    lowest = 1.0
    for colour, key, label in ((SERIES[0], first.key, first.label), (SERIES[1], second, second)):
        value, low, high = np.array([bounds(item.get(key)) for item in history]).reshape(-1, 3).T
        if np.isnan(value).all():
            continue
        dashes = "-" if key == first.key else "--"
        axes.plot(
            _rounds(history),
            value,
            dashes,
            color=colour,
            marker=_marker(history),
            ms=3,
            label=label,
        )
        axes.fill_between(_rounds(history), low, high, color=colour, alpha=0.16, linewidth=0)
        lowest = min(lowest, np.nanmin([value, low]))
        measured = value[~np.isnan(value)]
        said.append(f"{label} from {share(measured[0])} to {share(measured[-1])}")
    if not said:
        return None
    if threshold is not None:
        axes.axhline(
            threshold, color=INK, linewidth=1, linestyle=":", label=f"gate ({first.label})"
        )
    axes.set_ylim(max(0.0, np.floor(lowest * 10) / 10), 1.005)
    _finish(axes, history, "")
    figure.legend(loc="outside upper left", ncols=_LEGEND_COLUMNS)
    return to_svg(figure, "quality", f"By round, with 95 % intervals: {'; '.join(said)}.")


def by_site(
    history: Sequence[Record], key: str, label: str, limit: float | None = None
) -> Markup | None:
    """One line a site of ``history[i][key][site]``; ``limit`` is a level to draw, e.g. a clip."""
    sites = sorted({site for item in history for site in item.get(key) or {}})
    values = {site: np.array([finite((i.get(key) or {}).get(site)) for i in history])
              for site in sites}  # fmt: skip
    values = {site: line for site, line in values.items() if not np.isnan(line).all()}
    if not values:
        return None
    figure, (axes,) = canvas(height=2.9 + 0.16 * (len(values) // _LEGEND_COLUMNS))
    for site, line in values.items():
        axes.plot(_rounds(history), line, marker=_marker(history), ms=2.5, label=site)
    if limit is not None:
        axes.axhline(limit, color=INK, linewidth=1, linestyle=":", label=f"clipped to {limit:g}")
    axes.set_ylim(bottom=0)
    _finish(axes, history, label)
    figure.legend(loc="outside upper left", ncols=_LEGEND_COLUMNS)
    said = "; ".join(
        f"{site} from {line[~np.isnan(line)][0]:.3g} to {line[~np.isnan(line)][-1]:.3g}"
        for site, line in values.items()
    )
    return to_svg(figure, key, f"{label} by round: {said}.")


def seconds(history: Sequence[Record]) -> Markup | None:
    """Stacked bars of each round's seconds by phase."""
    phases = {phase: None for item in history for phase in item.get("seconds") or {}}
    parts = {words(phase): np.array([finite((i.get("seconds") or {}).get(phase)) for i in history])
             for phase in phases}  # fmt: skip
    return _stacked(history, parts, "seconds", "seconds", None)


def traffic(history: Sequence[Record]) -> Markup | None:
    """Stacked bars of each round's bytes, from the sites and to the sites."""
    parts = {
        "from the sites": np.array([finite(item.get("bytes_up")) for item in history]),
        "to the sites": np.array([finite(item.get("bytes_down")) for item in history]),
    }
    return _stacked(history, parts, "traffic", "", FuncFormatter(lambda value, _: size(value)))


def _stacked(
    history: Sequence[Record],
    parts: Mapping[str, NDArray[np.float64]],
    name: str,
    label: str,
    formatter: FuncFormatter | None,
) -> Markup | None:
    parts = {part: np.nan_to_num(line) for part, line in parts.items()}
    if not any(line.any() for line in parts.values()):
        return None
    figure, (axes,) = canvas()
    base = np.zeros(len(history))
    for i, (part, line) in enumerate(parts.items()):
        colour = _BAR_SERIES[i % len(_BAR_SERIES)]
        hatch = "" if i < len(_BAR_SERIES) else "///"
        axes.bar(_rounds(history), line, 0.72, base, color=colour, label=part, hatch=hatch)
        base = base + line
    axes.grid(visible=False, axis="x")
    if formatter is not None:
        axes.yaxis.set_major_formatter(formatter)
    _finish(axes, history, label)
    figure.legend(loc="outside upper left", ncols=_LEGEND_COLUMNS)
    said = ", ".join(
        f"{part} {size(line.sum()) if formatter else f'{line.sum():.3g} s'}"
        for part, line in parts.items()
    )
    return to_svg(figure, name, f"Stacked bars by round; over all rounds: {said}.")


def _rounds(history: Sequence[Record]) -> list[int]:
    return [int(item.get("round_num", i)) for i, item in enumerate(history)]


def _marker(history: Sequence[Record]) -> str:
    """A dot a round, while dots can be told apart."""
    return "o" if len(history) <= 40 else ""


def _finish(axes: Axes, history: Sequence[Record], label: str) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlim(_rounds(history)[0] - 0.5, _rounds(history)[-1] + 0.5)
    axes.set_xlabel("round")
    axes.set_ylabel(label)
