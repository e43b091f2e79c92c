"""A subject's modalities as one picture: side by side, and laid over the first with its grid.

For humans at the site: a picture shows a patient, and stays there.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from fedcore.data.preprocess import Affine, covering_grid, resample, resample_mask

Array = NDArray[Any]
Mask = NDArray[np.bool_]

_TILE, _GAP, _LINE = 208, 6, 15  # pixels
_FONT = 12
_OUTLINE = (0, 229, 255)  # in no grey, magenta or green
_INK, _FAINT = (235, 238, 242), (150, 160, 170)
_FINEST = 160  # voxels along the longest edge of the grid that affines lead to
_SIDES = {"axial": "RL", "coronal": "RL", "sagittal": "AP"}

Column = tuple[str, Mapping[str, NDArray[np.uint8]], Mapping[str, Mask] | None]
"""A name, plane → colours (rows, columns, 3), and what is outlined on them."""


def planes(volume: Array, at: tuple[int, int, int]) -> dict[str, Array]:
    """Axial, coronal and sagittal slices through voxel ``at`` of an RAS+ volume (X, Y, Z).

    In radiological convention, row 0 on top: axial and coronal have the patient's right on the
    left, sagittal has anterior on the left. A slice (X, Y) gives the axial plane only.
    """
    if volume.ndim == 2:
        return {"axial": volume[::-1, ::-1].T}
    x, y, z = at
    return {
        "axial": volume[::-1, ::-1, z].T,
        "coronal": volume[::-1, y, ::-1].T,
        "sagittal": volume[x, ::-1, ::-1].T,
    }


def centre(mask: Mask) -> tuple[int, int, int]:
    """The voxel in whose three planes most of the lesion shows; the middle if there is none."""
    at = []
    for axis in range(3):
        if axis >= mask.ndim or not mask.any():
            at.append(mask.shape[axis] // 2 if axis < mask.ndim else 0)
            continue
        area = mask.sum(axis=tuple(other for other in range(mask.ndim) if other != axis))
        at.append(int(area.argmax()))
    return at[0], at[1], at[2]


def squared(plane: Array, *edges: float) -> Array:
    """A plane of pixels with these ``edges`` with square ones: what is coarser is interpolated.

    >>> squared(np.eye(2), 3.0, 1.0).shape
    (6, 2)
    """
    zoomed: Array = ndimage.zoom(plane, np.array(edges) / min(edges), order=1)
    return zoomed


def panel(
    images: Mapping[str, Array],
    affines: Mapping[str, Affine] | None = None,
    *,
    masks: Mapping[str, Mask] | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
    title: str = "",
    alone: Mapping[str, Mapping[str, Array]] | None = None,
) -> bytes:
    """A PNG: a column per modality, then one per overlay on the first; axial, coronal, sagittal.

    ``images``: modality → RAS+ volume (X, Y, Z). Without ``affines`` they share one grid of cubic
    voxels; with them (modality → (4, 4)) they are brought onto one around the first. An overlay
    shows the first modality in magenta and the other in green: what agrees is grey. ``masks``, on
    the grid of their modality's image, are outlined, the first one's on the overlays too.
    ``notes``: what was done to each, in lines below its column. ``alone``: modality → its planes,
    grey (rows, columns) or in colours (rows, columns, 3), of an image that shares no grid: it has a
    column and no overlay.

    Raises ValueError without an image.
    """
    if not images and not alone:
        raise ValueError("a picture needs an image")
    columns = _overlaid(*_on_one_grid(images, affines, masks or {})) if images else []
    for name, views in (alone or {}).items():
        columns.append((name, {plane: _coloured(_grey(p)) for plane, p in views.items()}, None))
    return _drawn(columns, notes or {}, title)


def _overlaid(shown: Mapping[str, Array], outlines: Mapping[str, Mask]) -> list[Column]:
    """A column for each image of one grid, and one for each laid over the first."""
    first = next(iter(shown))
    at = centre(outlines.get(first, np.zeros(shown[first].shape, bool)))
    grey = {name: planes(_grey(image), at) for name, image in shown.items()}
    edges = {name: planes(mask, at) for name, mask in outlines.items()}
    columns: list[Column] = [
        (name, {plane: _coloured(p) for plane, p in grey[name].items()}, edges.get(name))
        for name in shown
    ]
    for name in list(shown)[1:]:
        both = {plane: _tinted(grey[first][plane], p) for plane, p in grey[name].items()}
        columns.append((f"{first} + {name}", both, edges.get(first)))
    return columns


def _on_one_grid(
    images: Mapping[str, Array], affines: Mapping[str, Affine] | None, masks: Mapping[str, Mask]
) -> tuple[dict[str, Array], dict[str, Mask]]:
    if affines is None:
        return dict(images), dict(masks)
    first = next(iter(images))
    affine, shape = affines[first], images[first].shape
    edges = np.linalg.norm(affine[:3, :3], axis=0) * shape
    grid = covering_grid(shape, affine, max(1.0, float(edges.max()) / _FINEST))
    return (
        {name: resample(np.asarray(image, np.float32), affines[name], grid)
         for name, image in images.items()},
        {name: resample_mask(mask, affines[name], grid) for name, mask in masks.items()},
    )  # fmt: skip


def _grey(image: Array) -> NDArray[np.float32]:
    """0 to 1, between the 1st and the 99.7th percentile."""
    low, high = np.percentile(image, (1, 99.7))
    scaled = (np.asarray(image, np.float32) - low) / max(float(high - low), 1e-6)
    return np.asarray(np.nan_to_num(scaled.clip(0, 1)), np.float32)


def _coloured(grey: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(rows, columns, 3), of greys or colours in [0, 1]."""
    return _tinted(grey, grey) if grey.ndim == 2 else (255 * grey).astype(np.uint8)


def _tinted(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(rows, columns, 3): ``one`` in red and blue, ``other`` in green."""
    return (255 * np.stack([one, other, one], axis=-1)).astype(np.uint8)


def _drawn(columns: Sequence[Column], notes: Mapping[str, Sequence[str]], title: str) -> bytes:
    tiles = [
        {plane: _tile(pixels, (edges or {}).get(plane)) for plane, pixels in shown.items()}
        for _, shown, edges in columns
    ]
    heights = [
        max(tile.height for tile in row if tile is not None)
        for row in zip_longest(*(column.values() for column in tiles))
    ]
    top = _GAP + (2 if title else 1) * (_LINE + 4)
    lines = max((len(_wrapped(notes.get(name, ()))) for name, _, _ in columns), default=0)
    width = _GAP + len(columns) * (_TILE + _GAP)
    height = top + sum(heights) + _GAP * len(heights) + lines * _LINE + _GAP
    page = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(_FONT)
    if title:
        draw.text((_GAP, _GAP), title, _INK, font)
    for number, ((name, _, _), column) in enumerate(zip(columns, tiles, strict=True)):
        x, y = _GAP + number * (_TILE + _GAP), top
        draw.text((x, top - _LINE - 3), name, _INK, font)
        for (plane, tile), tall in zip(column.items(), heights, strict=False):
            page.paste(tile, (x, y))
            for edge, side in zip((x + 3, x + _TILE - 11), _SIDES.get(plane, ""), strict=False):
                draw.text((edge, y + 2), side, _INK, font, stroke_width=1, stroke_fill="black")
            y += tall + _GAP
        y = top + sum(heights) + _GAP * len(heights)
        for line in _wrapped(notes.get(name, ())):
            draw.text((x, y), line, _FAINT, font)
            y += _LINE
    data = BytesIO()
    page.save(data, "png", optimize=True)
    return data.getvalue()


def _tile(pixels: NDArray[np.uint8], mask: Mask | None) -> Image.Image:
    """A plane, _TILE wide, with the outline of a mask."""
    size = (_TILE, max(1, round(_TILE * pixels.shape[0] / pixels.shape[1])))
    tile = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    if mask is None or not mask.any():
        return tile
    scaled = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC)
    inside = np.asarray(scaled) > 127
    drawn = np.array(tile)
    drawn[inside & ~ndimage.binary_erosion(inside)] = _OUTLINE
    return Image.fromarray(drawn)


def _wrapped(lines: Sequence[str], width: int = 33) -> list[str]:
    """Lines that fit a column."""
    return [part for line in lines for part in textwrap.wrap(line, width) or [""]]
