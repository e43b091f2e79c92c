"""Real anatomy: the MNI152 maps that nilearn ships, and one subject's own deformation of them.

Template: ICBM 152 nonlinear symmetric 2009a (Fonov et al. 2011,
https://doi.org/10.1016/j.neuroimage.2010.07.033), read from nilearn's files without importing
the parts of nilearn that take seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedcore.data.phantoms.fields import FloatArray, smooth

CENTRE_MM = np.array([0.0, -18.0, 18.0])
"""Middle of every phantom's grid, in MNI millimetres (x to the right, y forward, z up)."""

EXTENT_MM = np.array([183.0, 219.0, 183.0])
_CLOSING_MM = 12.0


@dataclass(frozen=True)
class Anatomy:
    """A head on a grid of cubic voxels, arrays (X, Y, Z).

    ``grey``, ``white``: fraction of the voxel. ``depth``: millimetres outside (+) or inside (−)
    the smooth surface around the brain, as a surgeon would see it under the dura.
    """

    grey: FloatArray
    white: FloatArray
    depth: FloatArray
    voxel_mm: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """(X, Y, Z)."""
        width, depth, height = self.grey.shape
        return width, depth, height

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel → MNI millimetres, RAS+."""
        matrix = np.diag([self.voxel_mm] * 3 + [1.0])
        matrix[:3, 3] = CENTRE_MM - self.voxel_mm * (np.array(self.grey.shape) - 1) / 2
        return matrix

    def axes_mm(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Coordinates of the voxels along x, y and z, shaped to broadcast over (X, Y, Z)."""
        x, y, z = (
            (start + self.voxel_mm * np.arange(size)).astype(np.float32)
            for start, size in zip(self.affine[:3, 3], self.grey.shape, strict=True)
        )
        return x[:, None, None], y[None, :, None], z[None, None, :]


@lru_cache(maxsize=2)
def template(voxel_mm: float) -> Anatomy:
    """The MNI152 head on a grid of ``voxel_mm``. The arrays are shared: do not write to them."""
    grey, white, brain = (_resampled(name, voxel_mm) for name in ("gm", "wm", "t1"))
    # The maps overlap by a little where they were rounded.
    excess = np.maximum(grey + white, 1.0)
    return Anatomy(grey / excess, white / excess, _depth(brain > 0.5, voxel_mm), voxel_mm)


def deformed(anatomy: Anatomy, rng: np.random.Generator, *, bend_mm: float = 2.5) -> Anatomy:
    """One subject's head: turned, scaled and bent smoothly (about ``bend_mm``, one sigma)."""
    turn = _rotation(rng.normal(0.0, np.radians([2.5, 2.0, 2.5])))
    matrix = (turn @ np.diag(1.0 / rng.normal(1.0, 0.03, 3))).astype(np.float32)
    shape = anatomy.grey.shape
    x, y, z = (axis - centre for axis, centre in zip(anatomy.axes_mm(), CENTRE_MM, strict=True))
    middle = (np.array(shape, np.float32) - 1) / 2
    places = np.stack([
        middle[i]
        + (matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] * z + bend_mm * smooth(rng, shape, 6))
        / anatomy.voxel_mm
        for i in range(3)
    ])  # fmt: skip

    def sampled(volume: FloatArray) -> FloatArray:
        return ndimage.map_coordinates(volume, places, order=1, mode="nearest")  # type: ignore[no-any-return]

    return Anatomy(
        sampled(anatomy.grey), sampled(anatomy.white), sampled(anatomy.depth), anatomy.voxel_mm
    )


def _resampled(name: str, voxel_mm: float) -> FloatArray:
    """One of nilearn's 1 mm maps, averaged over the voxels of our grid, in [0, 1]."""
    folder = resources.files("nilearn") / "datasets" / "data"
    with resources.as_file(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz") as at:
        image = nibabel.Nifti1Image.from_filename(at)
        fine = np.asarray(image.dataobj).astype(np.float32)
    fine = np.minimum(fine / 60.0, 1.0) if name == "t1" else fine / 255.0
    shape = tuple(np.round(EXTENT_MM / voxel_mm).astype(int))
    start = CENTRE_MM - voxel_mm * (np.array(shape) - 1) / 2 - image.affine[:3, 3]
    averaged = ndimage.uniform_filter(fine, size=round(voxel_mm))
    return ndimage.affine_transform(  # type: ignore[no-any-return]
        averaged, [voxel_mm] * 3, offset=start, output_shape=shape, order=1, mode="constant"
    )


def _depth(brain: NDArray[np.bool_], voxel_mm: float) -> FloatArray:
    """Signed distance (mm) to the brain closed by a ball: no sulcus or cistern is outside."""
    grown = ndimage.distance_transform_edt(~brain, voxel_mm) <= _CLOSING_MM
    closed = ndimage.distance_transform_edt(grown, voxel_mm) > _CLOSING_MM
    outside = ndimage.distance_transform_edt(~closed, voxel_mm)
    inside = ndimage.distance_transform_edt(closed, voxel_mm)
    return ndimage.gaussian_filter((outside - inside).astype(np.float32), 0.8)  # type: ignore[no-any-return]


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn about x, then y, then z, by radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix
