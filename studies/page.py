"""``docs/studies.md``: its tables and figures, from ``benchmarks/studies.json``.

    python -m studies.page

The prose is written by hand; what stands between ``<!-- study: NAME -->`` and ``<!-- end -->`` is
made here. So no figure of the page is older than the evidence, which a test holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from fedcore.report.style import INK, SERIES, canvas, style
from studies.rows import Row, read

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "studies.md"
_PART = re.compile(r"(<!-- study: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Fill the page, and draw its figures beside it."""
    rows = read()
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    for study in dict.fromkeys(row.study for row in rows):
        drawn = figure(_figures([row for row in rows if row.study == study]))
        with rc_context({"svg.hashsalt": study}):  # the same evidence, the same file
            drawn.savefig(DOCS / f"studies-{study}.svg", metadata={"Date": None}, facecolor="white")


def filled(page: str, rows: Iterable[Row]) -> str:
    """The page with every study's part made anew; one without rows says so."""
    every = list(rows)

    def part(match: re.Match[str]) -> str:
        study = match.group(2)
        of = [row for row in every if row.study == study]
        text = _part(study, of) if of else "\nNot run yet.\n\n"
        return match.group(1) + text + match.group(3)

    return _PART.sub(part, page)


def _part(study: str, rows: Sequence[Row]) -> str:
    figures, goals = _figures(rows), [row for row in rows if row.goal is not None]
    picture = f"![{study}: mean and standard deviation](studies-{study}.svg)"
    tables = [_pivot([row for row in figures if row.metric == metric]) for metric in _of(figures)]
    return "\n\n".join(["", picture, *tables, *([_goals(goals)] if goals else []), ""])


def _figures(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.goal is None]


def _of(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row.metric for row in rows))


def _pivot(rows: Sequence[Row]) -> str:
    """One metric: a line a method, a column a setting."""
    settings = list(dict.fromkeys(row.setting for row in rows))
    cells = {(row.method, row.setting): _figure(row) for row in rows}
    lines = [
        f"| {method} | " + " | ".join(cells.get((method, setting), "") for setting in settings)
        for method in dict.fromkeys(row.method for row in rows)
    ]
    seeds = max(row.seeds for row in rows)
    of = f"{_words(rows[0].metric)}, {seeds} seed{'s' * (seeds > 1)}"
    head = f"| {of} | " + " | ".join(settings) + " |"
    return "\n".join([head, "|---" * (len(settings) + 1) + "|", *(f"{line} |" for line in lines)])


def _goals(rows: Sequence[Row]) -> str:
    lines = [
        f"| {row.setting} | {row.method} | {_words(row.metric)} | {_figure(row)} "
        f"| {row.goal:g} | {'**yes**' if row.met else '**no**'} |"
        for row in rows
    ]
    head = "| goals: setting | method | what | mean ± sd | at least | met |"
    return "\n".join([head, "|---" * 6 + "|", *lines])


def _figure(row: Row) -> str:
    """One seed has no spread, and 0.000 would claim one."""
    return f"{row.mean:.3f} ± {row.sd:.3f}" if row.seeds > 1 else f"{row.mean:.3f}"


def _words(metric: str) -> str:
    return metric.replace("macro_auc", "macro AUC").replace("_", " ")


def figure(rows: Sequence[Row]) -> Figure:
    """A panel a setting, a line a method: a dot at the mean, a bar of the standard deviation."""
    first = [row for row in rows if row.metric == rows[0].metric]
    settings = list(dict.fromkeys(row.setting for row in first))
    methods = list(dict.fromkeys(row.method for row in first))[::-1]
    ends = [row.mean + side * row.sd for row in first for side in (-1, 1)]
    room = 0.05 * (max(ends) - min(ends)) or 0.01
    with style():
        width, height = 2.0 + 2.1 * len(settings), 0.7 + 0.24 * len(methods)
        drawn, panels = canvas(width, height, columns=len(settings))
        for axes, setting in zip(panels, settings, strict=True):
            of = {row.method: row for row in first if row.setting == setting}
            for place, method in enumerate(methods):
                if method in of:
                    axes.errorbar(of[method].mean, place, xerr=of[method].sd, fmt="o", ms=4,
                                  linestyle="none", color=SERIES[0], ecolor=SERIES[5])  # fmt: skip
            axes.set_yticks(range(len(methods)), methods, color=INK)
            axes.set_title(setting)
            axes.set_xlim(min(ends) - room, max(ends) + room)  # panels are compared
            axes.set_xlabel(_words(rows[0].metric))
    return drawn


if __name__ == "__main__":
    main()
