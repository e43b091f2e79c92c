"""One encoder per modality: an image → a vector of what it shows.

An encoder is a module with an attribute ``features`` and a forward (B, C, X, Y, Z) →
(B, features), or of a photo (B, C, X, Y) → (B, features). Nothing else is asked of it, so other
architectures fit in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvEncoder(nn.Module):
    """Three strided convolutions, mean and maximum over space, a linear map to ``features``.

    The maximum keeps a small lesion that a mean over the whole brain would dilute. The last
    convolution also sees where it is (CoordConv, Liu et al. 2018,
    https://arxiv.org/abs/1807.03247), because pooling forgets place, and place is a sign here.
    """

    def __init__(
        self, width: int, features: int, *, channels: int = 1, dimensions: int = 3
    ) -> None:
        super().__init__()
        self.features = features
        self.low = nn.Sequential(
            stage(channels, width, dimensions), stage(width, 2 * width, dimensions)
        )
        self.high = stage(2 * width + dimensions, 4 * width, dimensions)
        self.project = nn.Linear(8 * width, features)

    def forward(self, image: Tensor) -> Tensor:
        low = self.low(image)
        maps = self.high(torch.cat([low, _coordinates(low)], dim=1))
        space = tuple(range(2, maps.ndim))
        pooled = torch.cat([maps.mean(dim=space), maps.amax(dim=space)], dim=1)
        return self.project(pooled)  # type: ignore[no-any-return]


def stage(
    channels_in: int, channels_out: int, dimensions: int = 3, *, stride: int = 2
) -> nn.Sequential:
    """Convolution, normalisation, activation: (B, C_in, X, Y, Z) → (B, C_out, X/2, Y/2, Z/2).

    ``dimensions``: 2 is the same without Z. ``stride``: by how much each axis shrinks.

    Normalised within a subject, never across a batch, so that neither another site's intensities
    nor (with private gradients) another subject leaks in. Kaiming's initialisation (He et al.
    2015, https://arxiv.org/abs/1502.01852). ``channels_out``: a multiple of 4.
    """
    kind = nn.Conv2d if dimensions == 2 else nn.Conv3d
    convolution = kind(
        channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False
    )
    nn.init.kaiming_normal_(convolution.weight)
    normalisation = nn.GroupNorm(num_groups=4, num_channels=channels_out)
    return nn.Sequential(convolution, normalisation, nn.LeakyReLU(0.1, inplace=True))


def _coordinates(maps: Tensor) -> Tensor:
    """(B, C, X, Y, Z) → (B, 3, X, Y, Z), or 2 of 2: each voxel's place by axis, in [−1, 1]."""
    axes = [torch.linspace(-1.0, 1.0, size, device=maps.device) for size in maps.shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).to(maps.dtype)
    return grid.expand(maps.shape[0], *(-1,) * grid.ndim)
