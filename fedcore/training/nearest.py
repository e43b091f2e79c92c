"""How near what a generative model draws comes to real subjects."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Draws(Protocol):
    """A module that makes subjects who do not exist, each with every modality."""

    def sample(self, classes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Of these classes (B,): modality → images (B, 1, X, Y, Z)."""


def drawn(module: nn.Module, count: int, classes: int, *, seed: int) -> dict[str, Tensor]:
    """Modality → images (count, 1, X, Y, Z) of subjects of each of so many classes in turn.

    The same everywhere for the same params and seed. ``module`` must draw; it stays as it is.
    """
    draws = cast(Draws, copy.deepcopy(module).cpu().eval())
    with torch.no_grad():
        return draws.sample(torch.arange(count) % classes, torch.Generator().manual_seed(seed))


def to_nearest(subjects: Any, synthetic: Mapping[str, Tensor]) -> NDArray[np.float64]:
    """By subject (N,), the distance to the nearest synthetic one.

    The mean squared difference over the modalities that the subject has, each in units of what it
    varies among the synthetic.
    """
    spread = {name: images.var(dim=0).mean() for name, images in synthetic.items()}
    found = []
    for number in range(len(subjects)):
        inputs, _ = subjects.collate([subjects[number]])
        has = dict(zip(synthetic, (inputs["present"][0] > 0.5).tolist(), strict=True))
        by_modality = [
            (synthetic[name] - inputs[name]).square().flatten(1).mean(dim=1) / spread[name]
            for name in synthetic
            if has[name]
        ]
        found.append(float(torch.stack(by_modality).mean(dim=0).min()))
    return np.array(found)
