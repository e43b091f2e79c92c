"""Windows over a volume: MONAI's places and weights, without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers.utils import sliding_window_inference

from fedcore.windows import Place, blend, places, weights

PATCH = (4, 6, 5)


def curved(window: Any) -> Any:
    """A model that sees what is around, so that a voxel's answer depends on the window it is in."""
    return torch.cat([window - window.mean((2, 3, 4), keepdim=True), window.cumsum(3)], dim=1)


@pytest.mark.parametrize("size", [(4, 6, 5), (9, 6, 11), (5, 13, 7)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_the_blend_is_monais(size: tuple[int, ...], overlap: float) -> None:
    volume = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(1))
    looked_at: list[tuple[int, ...]] = []

    def answer(place: Place) -> Any:
        window = volume[(..., *place)]
        looked_at.append(tuple(window.shape[2:]))
        return curved(window).numpy()

    found = blend(size, answer, patch=PATCH, overlap=overlap)
    wanted = sliding_window_inference(volume, PATCH, 1, curved, overlap=overlap, mode="gaussian")
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert set(looked_at) == {PATCH}, "no more than a patch at a time"


@pytest.mark.parametrize("patch", [PATCH, (96, 96, 8), (1, 1, 1)])
def test_the_weights_are_monais(patch: tuple[int, int, int]) -> None:
    wanted = compute_importance_map(patch, mode="gaussian", sigma_scale=0.125)
    np.testing.assert_allclose(weights(patch), wanted, rtol=1e-5)


def test_one_window_over_all_is_the_whole() -> None:
    volume = torch.randn(2, 1, *PATCH)
    whole = curved(volume).numpy()
    found = blend(PATCH, lambda place: curved(volume[(..., *place)]).numpy(), patch=PATCH,
                  overlap=0.5)  # fmt: skip
    np.testing.assert_allclose(found, whole, rtol=1e-6)


def test_a_volume_smaller_than_a_window_is_none() -> None:
    with pytest.raises(ValueError, match=r"a window of \(4, 6, 5\) voxels in a volume of \(9, 5,"):
        places((9, 5, 9), PATCH, 0.5)
