"""An encoder of the classifier with a decoder behind it: an image → the same image, by way of a
vector. It is trained by reconstruction, for which images need no label.

The encoder's last linear map is left out: it says what the features mean to this task, and in some
fusions it is the fusion's own. The decoder is thrown away.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

from torch import Tensor, nn

from fedcore.errors import ConfigError
from fedcore.models.decision import Stacked
from fedcore.models.encoders import stage

COARSEST = 8
"""Voxels of the image an axis for one of the grid that the decoder begins with."""


class Autoencoder(nn.Module):
    """``encoder``: a classifier's, of which this has a copy; ``shape``: an image's, (C, X, Y[, Z]).

    Params of the copy have the names ``trunk.<name in the classifier's encoder>``. Raises
    ConfigError for an encoder without a linear map.
    """

    def __init__(self, encoder: nn.Module, shape: Sequence[int], width: int = 16) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(encoder)
        features = _without_last_map(self.trunk)
        channels, *sizes = shape
        dimensions, self.sizes = len(sizes), tuple(sizes)
        self.grid = (width, *(math.ceil(size / COARSEST) for size in sizes))
        self.spread = nn.Linear(features, math.prod(self.grid))
        finer = [
            nn.Sequential(
                nn.Upsample(scale_factor=2), stage(width, width, dimensions, stride=1)
            )
            for _ in range(int(math.log2(COARSEST)))
        ]  # fmt: skip
        kind = nn.Conv2d if dimensions == 2 else nn.Conv3d
        self.decoder = nn.Sequential(*finer, kind(width, channels, kernel_size=1))

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, X, Y[, Z]) → the same shape."""
        coarse = self.spread(self._seen(image)).unflatten(1, self.grid)
        grown = self.decoder(coarse)
        return grown[(..., *(slice(size) for size in self.sizes))]  # type: ignore[no-any-return]

    def _seen(self, image: Tensor) -> Tensor:
        inner = self.trunk.model if isinstance(self.trunk, Stacked) else self.trunk
        return inner(image)  # type: ignore[no-any-return]


def _without_last_map(encoder: nn.Module) -> int:
    """Put nothing in the place of the encoder's last linear map; returns what goes into it."""
    inner = encoder.model if isinstance(encoder, Stacked) else encoder
    linear = {name: m for name, m in inner.named_modules() if isinstance(m, nn.Linear)}
    if not linear:
        raise ConfigError(
            "training: pretraining needs an encoder that ends in a linear map, and "
            f"{type(inner).__name__} has none; use a built-in encoder, or remove pretraining"
        )
    name, last = list(linear.items())[-1]
    parent, _, own = name.rpartition(".")
    setattr(inner.get_submodule(parent), own, nn.Identity())
    return last.in_features
