"""What a subject's images go through before a model sees them, in training and in serving."""

from __future__ import annotations

from collections.abc import Sequence

from fedcore.config.plan import Modality
from fedcore.data import preprocess
from fedcore.data.nifti import Volume
from fedcore.errors import DataError


class Preparation:
    """One subject's images, one after the other, onto one grid: that around the first of them."""

    def __init__(self, shape: Sequence[int], spacing_mm: float) -> None:
        self._shape, self._spacing_mm = shape, spacing_mm
        self._grid: preprocess.Grid | None = None
        self._reference = ""

    def image(self, volume: Volume, name: str, modality: Modality) -> preprocess.FloatArray:
        """The image of a modality as a model takes it, (X, Y, Z). Raises DataError."""
        if self._grid is None:
            self._reference = name
            self._grid = preprocess.centred_grid(
                volume.voxels.shape, volume.affine, shape=self._shape, spacing_mm=self._spacing_mm
            )
        image = preprocess.resample(*volume, self._grid)
        if name != self._reference and image.min() == image.max():
            raise DataError("off the grid", reason=f"no overlap with {self._reference}")
        return preprocess.normalise(image, modality.kind, modality.window)
