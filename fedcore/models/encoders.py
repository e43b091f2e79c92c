"""One encoder per modality: an image → a feature vector of a size all encoders share.

An encoder is a module with an attribute ``features`` (the size F of what it gives) and a forward
(B, 1, X, Y, Z) → (B, F). Fusion asks for nothing else, so other architectures fit in as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvEncoder(nn.Module):
    """Three strided convolutions, then mean and maximum over space: (B, 1, X, Y, Z) → (B, F).

    The maximum keeps a small bright lesion that a mean over the whole brain would dilute. Before
    the last convolution three channels say where a voxel lies (CoordConv, Liu et al. 2018,
    https://arxiv.org/abs/1807.03247), because pooling forgets place and place is a sign here.
    Every size of image works; normalisation is within a subject, never across a batch, so that
    neither another site's intensities nor (with private gradients) another subject leaks in.
    """

    def __init__(self, width: int, features: int) -> None:
        """``width``: channels of the first stage, doubled at each of the next two."""
        super().__init__()
        self.features = features
        self.low = nn.Sequential(_stage(1, width), _stage(width, 2 * width))
        self.high = _stage(2 * width + 3, 4 * width)
        self.project = nn.Linear(8 * width, features)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.low(image)
        maps = self.high(torch.cat([maps, _coordinates(maps)], dim=1))
        pooled = torch.cat([maps.mean(dim=(2, 3, 4)), maps.amax(dim=(2, 3, 4))], dim=1)
        return self.project(pooled)  # type: ignore[no-any-return]


def _stage(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, kernel_size=3, stride=2, padding=1, bias=False),
        nn.GroupNorm(num_groups=4, num_channels=channels_out),
        nn.LeakyReLU(0.1, inplace=True),
    )


def _coordinates(maps: Tensor) -> Tensor:
    """(B, C, X, Y, Z) → (B, 3, X, Y, Z): each voxel's place along each axis, in [−1, 1]."""
    axes = [torch.linspace(-1.0, 1.0, size, device=maps.device) for size in maps.shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).to(maps.dtype)
    return grid.expand(maps.shape[0], -1, -1, -1, -1)
