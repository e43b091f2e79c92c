"""One look for every figure: colours that follow the page's theme, and text that stays text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from io import StringIO
from typing import Any

from cycler import cycler
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe & Ito (2008), https://jfly.uni-koeln.de/color/: told apart with any colour vision.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK, MUTED, GRID, ON_ACCENT = "#16202a", "#5b6773", "#d5dbe1", "#fefefe"

# A figure is drawn in these colours and published with the page's variables in their place.
_VARIABLES = {
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)},
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    ON_ACCENT: "var(--on-accent)",
}
_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.prop_cycle": cycler(linestyle=["-", "--", ":"]) * cycler(color=SERIES),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.facecolor": "none",
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # a site may be called a$b$c
    "xtick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
}


def style() -> Any:
    """The context in which every figure of the report is drawn."""
    return rc_context(_STYLE)


def canvas(
    width: float = 5.2, height: float = 3.1, columns: int = 1
) -> tuple[Figure, Sequence[Axes]]:
    """A figure of ``columns`` axes (inches; narrow enough that its text can be read on a phone)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    layout: Any = figure.get_layout_engine()
    layout.set(wspace=0.1)
    axes = figure.subplots(1, columns, sharey=columns > 1, squeeze=False)
    return figure, list(axes[0])


def to_svg(figure: Figure, name: str, alt: str) -> Markup:
    """The figure as inline SVG. ``name`` is unique on the page, ``alt`` says what it shows."""
    text = StringIO()
    svg: Any = FigureCanvasSVG(figure)
    unnamed = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with rc_context({"svg.hashsalt": name}):
        svg.print_svg(text, metadata=unnamed)
    drawn = text.getvalue()
    body = drawn[drawn.index(">", drawn.index("<svg ")) + 1 :]
    width, height = (72 * size for size in figure.get_size_inches())
    themed = re.sub(r"<[^>]*>", lambda tag: _themed(tag.group(), name), body)
    # Matplotlib has escaped every text in it.
    return Markup(  # noqa: S704
        f'<svg class="plot" role="img" aria-label="{escape(alt)}" '
        f'viewBox="0 0 {width:g} {height:g}" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">{themed}'
    )


def _themed(tag: str, name: str) -> str:
    """One tag with the page's colours, and with ids that no other figure has."""
    for colour, variable in _VARIABLES.items():
        tag = tag.replace(colour, variable)
    tag = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", tag)
    return re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", tag)
