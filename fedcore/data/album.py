"""A prepared subject as a picture: what a model sees, and what was done to get there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.data import pictures
from fedcore.data.intensities import Mask
from fedcore.data.masks import placement
from fedcore.data.nifti import Volume
from fedcore.data.preparation import Prepared
from fedcore.data.preprocess import FloatArray, resample_mask

_DEPTH_DRAWN = 2  # a tile is narrow: in its own proportions a B-scan would lose half of its rows
_OCT_NOTE = f"B-scan, its depth drawn {_DEPTH_DRAWN} times; mean over depth"


def page(prepared: Prepared, title: str, masks: Mapping[str, Volume] | None = None) -> bytes:
    """A PNG, the reference first, images of the eye last. ``masks``: modality → mask in that
    modality's own millimetres, which goes where the image went. Raises as ``pictures.panel``."""
    history = {entry["modality"]: entry for entry in prepared.history}
    names = sorted(prepared.images, key=lambda name: name != history[name]["reference"])
    views = {name: _own_views(history[name], prepared.images[name]) for name in names}
    notes = {name: told(history[name]) for name in names}
    for name, planes in views.items():
        if "axial" in planes:
            notes[name].append(_OCT_NOTE)
    return pictures.panel(
        {name: prepared.images[name] for name in names if not views[name]},
        masks={name: carried(prepared, name, mask) for name, mask in (masks or {}).items()
               if name in history},
        notes=notes,
        title=title,
        alone={name: planes for name, planes in views.items() if planes},
    )  # fmt: skip


def _own_views(entry: Mapping[str, Any], image: FloatArray) -> dict[str, NDArray[Any]]:
    """Plane → pixels, as it is looked at, of an image with a grid of its own; none of another."""
    done = {step["step"]: step for step in entry["steps"]}
    match done["normalise"]["kind"]:
        case "fundus":
            return {"photo": image.transpose(2, 1, 0)}
        case "oct":
            across, deep, up = done["resample"]["spacing_mm"]
            scan, front = image[:, :, image.shape[2] // 2], image.mean(axis=1)
            return {
                "axial": pictures.squared(scan[::-1, ::-1].T, _DEPTH_DRAWN * deep, across),
                "coronal": pictures.squared(front[::-1, ::-1].T, up, across),
            }
    return {}


def carried(prepared: Prepared, modality: str, mask: Volume) -> Mask:
    """``mask``, drawn on an image of ``modality`` as it came, on the subject's grid (X, Y, Z).

    Raises ValueError if the subject has no such image.
    """
    entry = next((e for e in prepared.history if e["modality"] == modality), None)
    if entry is None or prepared.grid is None:
        raise ValueError(f"no image of {modality} was prepared")
    affine = np.linalg.inv(placement(entry)) @ mask.affine
    return resample_mask(mask.voxels > 0.5, affine, prepared.grid)


def told(entry: Mapping[str, Any]) -> list[str]:
    """An image's history in a line a step, for people."""
    lines = []
    for step in entry["steps"]:
        match step["step"]:
            case "orient":
                lines.append(f"{' x '.join(map(str, step['shape']))} voxels")
            case "brain_mask":
                lines.append(f"brain mask of {step['volume_ml']:.0f} ml")
            case "align":
                lines.append(_alignment(step))
            case "resample":
                edges = " x ".join(f"{edge:g}" for edge in np.ravel(step["spacing_mm"]))
                lines.append(f"{' x '.join(map(str, step['shape']))} of {edges} mm")
            case "frame":
                taken, shape = (" x ".join(map(str, step[name])) for name in ("taken", "shape"))
                lines.append(f"{taken} pixels, field of view to {shape}")
            case "normalise":
                lines.append(_intensities(step))
    return lines


def _alignment(step: Mapping[str, Any]) -> str:
    measured = step["measures"]
    if step["verdict"] == "as_scanned" or not measured:
        done = f"left where the scanner put it, to {step['to']}"
    else:
        done = (
            f"{step['how']} to {step['to']}: {measured['shift_mm']:.1f} mm, "
            f"{measured['turn_degrees']:.1f}°, peak {measured['peak']:.2f}"
        )
    doubts = f"; to be looked at: {', '.join(step['concerns'])}" if step["concerns"] else ""
    return done + doubts


def _intensities(step: Mapping[str, Any]) -> str:
    if "window" in step:
        low, high = step["window"]
        return f"window {low:g} to {high:g} {'HU' if step['kind'] == 'ct' else 'SUV'}"
    return f"{step['normalise']} within the {step['within']}"
