"""Heads: the fused maps → what the task asks for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedcore.models.encoders import stage


class ClassificationHead(nn.Module):
    """Fused maps (B, C, X, Y, Z) → logits (B, K).

    Two convolutions that see all modalities and where they are, then mean and maximum over space:
    the maximum keeps a small lesion that a mean over the whole brain would dilute. Three channels
    say where a voxel lies (CoordConv, Liu et al. 2018, https://arxiv.org/abs/1807.03247), because
    pooling forgets place and place is a sign here.
    """

    def __init__(self, channels: int, width: int, classes: int, *, dropout: float) -> None:
        super().__init__()
        self.trunk = nn.Sequential(stage(channels + 3, width, stride=1), stage(width, width))
        self.classify = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * width, classes))

    def forward(self, fused: Tensor) -> Tensor:
        maps = self.trunk(torch.cat([fused, _coordinates(fused)], dim=1))
        pooled = torch.cat([maps.mean(dim=(2, 3, 4)), maps.amax(dim=(2, 3, 4))], dim=1)
        return self.classify(pooled)  # type: ignore[no-any-return]


def _coordinates(maps: Tensor) -> Tensor:
    """(B, C, X, Y, Z) → (B, 3, X, Y, Z): each voxel's place along each axis, in [−1, 1]."""
    axes = [torch.linspace(-1.0, 1.0, size, device=maps.device) for size in maps.shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).to(maps.dtype)
    return grid.expand(maps.shape[0], -1, -1, -1, -1)
