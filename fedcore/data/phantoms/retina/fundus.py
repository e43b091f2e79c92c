"""A fundus photo: what the light of a camera shows of an eye."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from fedcore.data.phantoms.fields import FloatArray, smooth
from fedcore.data.phantoms.retina.camera import Camera
from fedcore.data.phantoms.retina.signs import DISC_MM, DISC_RADIUS_MM, Eye, Spot

RADIUS_MM = 6.2
"""Of what a field of 45° shows, its middle between disc and fovea."""

_CENTRE_MM = (1.6, 0.0)
_FINE = 2  # the canvas has so many pixels for each of the photo's
Colour = tuple[float, float, float]
_BLOOD: Colour = (0.42, 0.06, 0.04)


class _Canvas:
    """Colours in [0, 1], (rows, columns, 3), over the retina's millimetres."""

    def __init__(self, size: int) -> None:
        self.size = size
        step = 2 * RADIUS_MM / size
        line = (np.arange(size) - (size - 1) / 2) * step
        self.x = (line + _CENTRE_MM[0])[None, :].astype(np.float32)
        self.y = (_CENTRE_MM[1] - line)[:, None].astype(np.float32)
        self.step = step
        self.colours = np.zeros((size, size, 3), np.float32)

    def lay(self, share: FloatArray, colour: Colour) -> None:
        """``colour`` over what is there, by a share of each pixel."""
        self.colours += share[..., None] * (np.array(colour, np.float32) - self.colours)

    def spots(self, spots: Sequence[Spot], colour: Colour, *, soft: float, opacity: float) -> None:
        """Discs; ``soft``: width of their edge, as a share of the radius."""
        for x, y, radius in spots:
            reach = radius * (1 + soft) + 2 * self.step
            rows = np.abs(self.y[:, 0] - y) < reach
            columns = np.abs(self.x[0] - x) < reach
            if not rows.any() or not columns.any():
                continue
            away = np.hypot(self.x[:, columns] - x, self.y[rows] - y)
            edge = max(soft * radius, self.step)
            share = opacity * np.clip((radius - away) / edge + 0.5, 0.0, 1.0)
            part = self.colours[np.ix_(rows, columns)]
            self.colours[np.ix_(rows, columns)] = part + share[..., None] * (
                np.array(colour, np.float32) - part
            )

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        return (x - self.x[0, 0]) / self.step, (self.y[0, 0] - y) / self.step


def photo(eye: Eye, camera: Camera, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The photo (rows, columns, 3), 8 bits, black around a disc of light."""
    across = round(camera.pixels * camera.field)
    canvas = _Canvas(_FINE * across)
    _background(canvas, rng)
    _fibres(canvas, eye, rng)
    canvas.spots(eye.atrophy, (0.93, 0.72, 0.45), soft=0.15, opacity=0.75)
    canvas.spots(eye.fluid, (0.66, 0.42, 0.24), soft=0.6, opacity=0.35)
    canvas.spots(eye.drusen, (0.95, 0.78, 0.42), soft=0.7, opacity=0.7)
    _vessels(canvas, rng)
    canvas.spots(eye.cotton, (0.95, 0.88, 0.72), soft=0.9, opacity=0.75)
    canvas.spots(eye.exudates, (0.98, 0.90, 0.50), soft=0.2, opacity=0.9)
    canvas.spots(eye.bleedings, _BLOOD, soft=0.5, opacity=0.85)
    canvas.spots(eye.microaneurysms, (0.48, 0.07, 0.05), soft=0.4, opacity=0.85)
    _disc(canvas, eye, rng)
    return _exposed(canvas, eye, camera, across, rng)


def _background(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Pigment and choroid, the macula darker."""
    shape = (canvas.size, canvas.size)
    pigment = rng.uniform(0.75, 1.15)
    base = np.array([0.80 * pigment**0.5, 0.40 * pigment, 0.19 * pigment], np.float32)
    marbled = 1.0 + 0.05 * smooth(rng, shape, 6) + 0.04 * smooth(rng, shape, 22)
    canvas.colours[:] = base * marbled[..., None]
    away = np.hypot(canvas.x, canvas.y)
    macula = rng.uniform(0.35, 0.5) * np.exp(-((away / 1.1) ** 2))
    canvas.lay(macula.astype(np.float32), (0.46, 0.15, 0.06))
    canvas.lay((0.5 * np.exp(-((away / 0.18) ** 2))).astype(np.float32), (0.36, 0.10, 0.04))
    canvas.lay((0.3 * np.exp(-((away / 0.05) ** 2))).astype(np.float32), (0.95, 0.85, 0.7))


def _fibres(canvas: _Canvas, eye: Eye, rng: np.random.Generator) -> None:
    """The nerve fibres' sheen in two arcs around the disc; where they are lost, a dark wedge."""
    x, y = canvas.x - DISC_MM[0], canvas.y - DISC_MM[1]
    away = np.hypot(x, y)
    for side, left in zip((1.0, -1.0), eye.rim, strict=True):
        angle = np.arctan2(side * y, -x)  # from the fovea's side upwards, or downwards
        arc = np.exp(-(((angle - 1.1) / 0.4) ** 2)) * np.exp(-away / 3.5) * (away > 0.8)
        canvas.lay((0.22 * left * arc).astype(np.float32), (0.95, 0.75, 0.5))
        wedge = np.exp(-(((angle - rng.uniform(0.8, 1.2)) / 0.22) ** 2)) * np.exp(-away / 4.0)
        canvas.lay((0.35 * (1 - left) * wedge).astype(np.float32), (0.42, 0.13, 0.06))


def _vessels(canvas: _Canvas, rng: np.random.Generator) -> None:
    """An artery and a vein out of the disc in each of four directions, forking on their way."""
    layer = Image.new("L", (canvas.size, canvas.size))
    draw = ImageDraw.Draw(layer)
    for up in (1.0, -1.0):
        for nasal in (False, True):
            for shade, width in ((150, 0.13), (215, 0.17)):
                start = np.array(DISC_MM) + rng.normal(0.0, 0.12, 2)
                way = np.array([0.7 if nasal else -0.25, 0.6 * up if nasal else up])
                bend = 0.05 * up * (-1.0 if nasal else 1.0) + rng.normal(0.0, 0.01)
                _branch(canvas, draw, start, way, bend, width * rng.uniform(0.85, 1.15), shade, rng)
    share = np.asarray(layer, np.float32) / 255
    blurred: FloatArray = ndimage.gaussian_filter(share, 0.8)
    canvas.lay(0.85 * blurred, _BLOOD)


def _branch(
    canvas: _Canvas, draw: ImageDraw.ImageDraw, at: NDArray[np.float64], way: NDArray[np.float64],
    bend: float, width_mm: float, shade: int, rng: np.random.Generator,
) -> None:  # fmt: skip
    """A vessel in steps of a quarter millimetre, around the fovea and thinner at each fork."""
    way = way / np.linalg.norm(way)
    while width_mm > 0.022 and np.hypot(*(at - _CENTRE_MM)) < RADIUS_MM + 1:
        turn = bend + rng.normal(0.0, 0.06)
        way = np.array([way[0] * np.cos(turn) - way[1] * np.sin(turn),
                        way[0] * np.sin(turn) + way[1] * np.cos(turn)])  # fmt: skip
        near = np.hypot(*at)
        if near < 1.6:  # the fovea has no vessels
            way = way + 0.35 * at / max(near, 0.1)
            way = way / np.linalg.norm(way)
        after = at + 0.25 * way
        pixels = max(1, round(width_mm / canvas.step))
        draw.line([canvas.pixel(*at), canvas.pixel(*after)], fill=shade, width=pixels)
        at = after
        width_mm *= 0.985
        if rng.random() < 0.11:
            side = rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.0)
            forked = np.array([way[0] * np.cos(side) - way[1] * np.sin(side),
                               way[0] * np.sin(side) + way[1] * np.cos(side)])  # fmt: skip
            _branch(canvas, draw, at, forked, -0.3 * bend, 0.62 * width_mm, shade, rng)
            width_mm *= 0.9


def _disc(canvas: _Canvas, eye: Eye, rng: np.random.Generator) -> None:
    """The rim, the paler cup in it, and a vessel's trunk over both."""
    x, y = canvas.x - DISC_MM[0], (canvas.y - DISC_MM[1]) / 1.1
    radius = DISC_RADIUS_MM * rng.uniform(0.9, 1.1)
    away = np.hypot(x, y)
    soft = 0.08
    rim = 0.7 * np.clip((radius - away) / soft + 0.5, 0.0, 1.0)
    canvas.lay(rim.astype(np.float32), (0.96, 0.68, 0.42))
    cup = np.hypot(x - 0.04, y)
    inner = 0.75 * np.clip((eye.cup * radius - cup) / (2 * soft) + 0.5, 0.0, 1.0)
    canvas.lay(inner.astype(np.float32), (1.0, 0.93, 0.72))
    trunk = np.exp(-(((x + 0.02) / 0.09) ** 2)) * np.clip((radius - away) / soft, 0.0, 1.0)
    canvas.lay((0.55 * trunk).astype(np.float32), _BLOOD)


def _exposed(
    canvas: _Canvas, eye: Eye, camera: Camera, across: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """What the camera makes of the canvas."""
    colours = canvas.colours[:, ::-1] if eye.left else canvas.colours
    small = colours.reshape(across, _FINE, across, _FINE, 3).mean(axis=(1, 3))
    small = ndimage.gaussian_filter(small, (camera.blur, camera.blur, 0))
    line = np.linspace(-1.0, 1.0, across, dtype=np.float32)
    away = np.hypot(line[None, :] - rng.normal(0, 0.1), line[:, None] - rng.normal(0, 0.1))
    light = rng.uniform(0.85, 1.1) * (1.0 - camera.vignette * away**2)
    seen = small * light[..., None] * np.array(camera.tint, np.float32)
    seen[np.hypot(line[None, :], line[:, None]) > 1.0] = 0.0
    margin = camera.pixels - across
    frame = np.zeros((camera.pixels, camera.pixels, 3), np.float32)
    top = left = margin // 2
    frame[top : top + across, left : left + across] = seen
    noisy = 255 * frame + camera.noise * rng.standard_normal(frame.shape, dtype=np.float32) * (
        0.25 + (frame > 0)
    )
    return noisy.clip(0, 255).astype(np.uint8)
