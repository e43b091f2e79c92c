"""Where the head is in an image, and the brain in the head: thresholds and morphology, no weights.

The brain mask is for whole heads on MR (T1, T1 with contrast, PD, FLAIR) and CT. It is not a
segmentation: it keeps the meninges in places, loses thin gyri in others, and fails where the brain
and what surrounds it are equally bright over a broad front. ``doubts`` says when it surely failed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedcore.config.task import Kind

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]

WORKING_MM = 2.0
"""The voxels that ``brain`` is made for."""

BRAIN_ML = (700.0, 2200.0)
"""Outside of this no adult's or child's intracranial volume lies."""

_CT_BODY, _CT_BRAIN, _CT_BONE = -300.0, (-10.0, 90.0), 200.0  # HU
_MR_BRAIN = (0.65, 1.6)  # of the median in the middle of the head: from grey to white matter
_BRIDGE_MM = 7.0  # half of what may link brain and the rest: nerves, vessels, muscle
_EDGE_MM = 1.0  # what wearing down and growing back takes away at the edge
_SULCUS_MM = 4.0  # half of the widest fold that is filled


def head(image: FloatArray, kind: Kind) -> Mask:
    """The body in ``image`` (X, Y, Z), holes filled slice by slice.

    MR and PET: above a tenth of the way from the 2nd to the 98th percentile (BET, Smith 2002);
    CT: above -300 HU.
    """
    if kind == "ct":
        threshold = _CT_BODY
    else:
        low, high = np.percentile(image, (2, 98))
        threshold = low + 0.1 * (high - low)
    found = _largest(ndimage.binary_opening(image > threshold))
    return _filled(found)


def brain(image: FloatArray, kind: Kind, spacing_mm: float) -> Mask:
    """The brain in ``image`` (X, Y, Z) with cubic voxels. All False where none is found.

    What is as bright as brain is worn down until the bridges to the rest break; of the pieces the
    largest is grown back, not beyond what was there, and smoothed.
    """
    body = head(image, kind)
    tissue = _brain_like(image, body, kind)
    core = _largest(_depth(tissue, spacing_mm) > _BRIDGE_MM)
    if not core.any():
        return core
    grown = tissue & (_depth(~core, spacing_mm) <= _BRIDGE_MM + _EDGE_MM)
    wide = _depth(~grown, spacing_mm) <= _SULCUS_MM
    return _filled(body & (_depth(wide, spacing_mm) > _SULCUS_MM))


def doubts(mask: Mask, spacing_mm: float) -> list[str]:
    """Why a brain mask cannot be right, in words; empty if nothing speaks against it.

    >>> doubts(np.zeros((9, 9, 9), bool), 2.0)
    ['the brain mask has 0 ml; 700 to 2200 are taken for real']
    """
    volume = float(mask.sum()) * spacing_mm**3 / 1000
    low, high = BRAIN_ML
    if low <= volume <= high:
        return []
    return [f"the brain mask has {volume:.0f} ml; {low:g} to {high:g} are taken for real"]


def _brain_like(image: FloatArray, body: Mask, kind: str) -> Mask:
    if kind == "ct":
        low, high = _CT_BRAIN
        smooth = ndimage.gaussian_filter(image, 1.0)
        return np.asarray((smooth > low) & (smooth < high) & (image < _CT_BONE) & body)
    # In the middle of the head there is brain, whatever the contrast: its median and its spread.
    depth = _depth(body)
    centre = float(np.median(image[depth > 0.6 * depth.max()]))
    low, high = (share * centre for share in _MR_BRAIN)
    return np.asarray((image > low) & (image < high) & body)


def _depth(mask: Mask, spacing_mm: float = 1.0) -> NDArray[np.float64]:
    """How far it is out of ``mask``."""
    depth: NDArray[np.float64] = ndimage.distance_transform_edt(mask, sampling=spacing_mm)
    return depth


def _largest(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def _filled(mask: Mask) -> Mask:
    """Holes within each axial slice filled: the nose and the ears open the head in 3-D."""
    return np.stack(
        [ndimage.binary_fill_holes(mask[:, :, z]) for z in range(mask.shape[2])], axis=2
    )
