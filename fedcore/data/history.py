"""What was done to an image, step by step, as JSON has it."""

from __future__ import annotations

from typing import Any

from fedcore.data.nifti import Volume
from fedcore.data.preprocess import Affine, Grid

STEPS = {"orient": 1, "align": 1, "brain_mask": 1, "resample": 1, "normalise": 1, "frame": 1}
"""The version of each step's code. One that gives other bits than before counts up, and nothing
prepared by the old one is used again."""

Step = dict[str, Any]


def step(name: str, **parameters: Any) -> Step:
    """One of STEPS, as it was done."""
    return {"step": name, "version": STEPS[name], **parameters}


def oriented(volume: Volume) -> Step:
    """A volume was read."""
    return step(
        "orient", to="RAS+", shape=list(volume.voxels.shape), affine=listed(volume.affine)
    )  # fmt: skip


def resampled(grid: Grid) -> Step:
    """A volume was brought onto ``grid``."""
    return step(
        "resample", shape=list(grid.shape), spacing_mm=grid.spacing_mm,
        centre_mm=list(grid.centre_mm), interpolation="trilinear", outside="the image's minimum",
    )  # fmt: skip


def listed(matrix: Affine) -> list[list[float]]:
    """A matrix by rows, to a millionth."""
    return [[round(float(value), 6) for value in row] for row in matrix]
