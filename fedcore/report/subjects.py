"""Subjects as a radiologist reads them: three planes through the lesion, right on the left.

Of the eye a B-scan, the vitreous on top, and the photo as it is.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from fedcore.data.pictures import centre, planes
from fedcore.report.run import Record

Array = NDArray[np.float64]

_BRAIN_WINDOW_HU = (0.0, 80.0)
_LUNG_HU = -500.0  # a plan that looks below is not about a brain
_CONTOUR = "#00e5ff"  # on none of the colour maps in use
_WIDTH_INCHES, _DOTS_PER_INCH = 2.4, 150


@dataclass(frozen=True)
class Panel:
    """One modality of one subject: ``source`` is a data URI, ``display`` the window in words."""

    modality: str
    source: str
    alt: str
    display: str


@dataclass(frozen=True)
class Subject:
    """One subject in every modality there is."""

    title: str
    note: str
    panels: tuple[Panel, ...]
    outlined: bool


def subjects(pictures: Sequence[Record], modalities: Record) -> list[Subject]:
    """The pictures drawn; ``modalities`` is the plan's, for kinds and windows."""
    return [_subject(picture, modalities) for picture in pictures]


def window(image: Array, kind: str, limits: Any) -> tuple[float, float, str, str]:
    """Low, high, colour map and, in words, how an image of ``kind`` is shown."""
    if kind == "ct":
        if limits and limits[0] < _LUNG_HU:
            low, high = map(float, limits)
            return low, high, "gray", f"window {low:g} to {high:g} HU".replace("-", "−")
        low, high = _BRAIN_WINDOW_HU
        return low, high, "gray", f"brain window {low:g}–{high:g} HU"
    if kind == "pet":
        high = float(limits[1]) if limits else float(image.max())
        return 0.0, high, "hot", f"SUV 0–{high:.3g}"
    low, high = (float(value) for value in np.percentile(image, (2, 99.9)))
    return (
        low,
        high,
        "gray",
        "B-scan, relative intensity" if kind == "oct" else "relative intensity",
    )


def _subject(picture: Record, modalities: Record) -> Subject:
    title = str(picture.get("title", ""))
    given = picture.get("mask")
    mask = None if given is None or not np.any(given) else np.asarray(given) > 0.5
    panels = []
    for modality, array in (picture.get("images") or {}).items():
        about = modalities.get(modality) or {}
        kind = about.get("kind", "mr")
        if kind == "fundus":
            alt = f"{title}: {modality}, a photo"
            panels.append(Panel(modality, _uri(Image.fromarray(array)), alt, "as photographed"))
            continue
        image = np.nan_to_num(np.asarray(array, dtype=float))
        outline = mask if mask is not None and mask.shape == image.shape else None
        low, high, colours, display = window(image, kind, about.get("window"))
        at = centre(np.zeros(image.shape, bool) if outline is None else outline)
        shown = planes(image, at)
        outlines = {} if outline is None else planes(outline.astype(float), at)
        source = _png(shown, outlines, (low, high), colours)
        told = display if kind == "oct" else f"{', '.join(shown)} plane, {display}"
        alt = f"{title}: {modality}, {told}"
        panels.append(Panel(modality, source, alt, display))
    return Subject(title, str(picture.get("note") or ""), tuple(panels), mask is not None)


def _png(
    shown: dict[str, Array], outlines: dict[str, Array], limits: tuple[float, float], colours: str
) -> str:
    """The planes on black, axial large and the other two below it, as a data URI."""
    extents = _extents({plane: pixels.shape for plane, pixels in shown.items()})
    left, right, bottom, top = np.array(list(extents.values())).T
    size = right.max() - left.min(), top.max() - bottom.min()
    height = _WIDTH_INCHES * size[1] / size[0]
    figure = Figure((_WIDTH_INCHES, height), dpi=_DOTS_PER_INCH, facecolor="black")
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    for plane, pixels in shown.items():
        extent = extents[plane]
        axes.imshow(pixels, cmap=colours, vmin=limits[0], vmax=limits[1], extent=extent,
                    interpolation="bicubic")  # fmt: skip
        if plane in outlines and np.ptp(outlines[plane]) > 0:
            axes.contour(outlines[plane], levels=[0.5], colors=[_CONTOUR], linewidths=0.9,
                         extent=extent, origin="upper")  # fmt: skip
        _letters(axes, "AP" if plane == "sagittal" else "RL", extent)
    axes.set(xlim=(left.min(), right.max()), ylim=(bottom.min(), top.max()))
    axes.set_axis_off()
    canvas.draw()
    return _uri(Image.fromarray(np.asarray(canvas.buffer_rgba())))


def _uri(drawn: Image.Image) -> str:
    # A palette is half of the bytes; maximum coverage keeps the thin outline's colour in it.
    few = drawn.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    data = BytesIO()
    few.save(data, "png")
    return f"data:image/png;base64,{b64encode(data.getvalue()).decode()}"


def _extents(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[float, float, float, float]]:
    """Where each plane lies (left, right, bottom, top), in units of the figure's width."""
    rows, columns = shapes["axial"]
    extents = {"axial": (0.0, 1.0, 0.0, rows / columns)}
    below = [plane for plane in shapes if plane != "axial"]
    scale = 1 / sum(shapes[plane][1] for plane in below) if below else 0.0
    left = 0.0
    for plane in below:
        height, width = (scale * pixels for pixels in shapes[plane])
        extents[plane] = (left, left + width, -height, 0.0)
        left += width
    return extents


def _letters(axes: Axes, sides: str, extent: tuple[float, float, float, float]) -> None:
    """The body's sides in the plane's upper corners, where there is little else."""
    left, right, _, top = extent
    for x, letter, align in ((left + 0.02, sides[0], "left"), (right - 0.02, sides[1], "right")):
        axes.text(x, top - 0.02, letter, ha=align, va="top", color="white", fontsize=7)
