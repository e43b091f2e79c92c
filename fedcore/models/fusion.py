"""Fusion: the maps of the modalities a subject has → one set of maps, whatever is missing.

forward: maps (B, M, C, X, Y, Z) and present (B, M, bool) → (B, features, X, Y, Z). Place by place,
because what one modality leaves open another decides at the same place. What stands in the maps of
an absent modality never changes the result.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentionFusion(nn.Module):
    """Attention over the present modalities, voxel by voxel: their weighted mean and variance.

    The weights are a softmax of learnt scores (Ilse et al. 2018, https://arxiv.org/abs/1802.04712);
    with equal scores this is HeMIS (Havaei et al. 2016, https://arxiv.org/abs/1607.05194), whose
    variance tells where modalities disagree. No weight belongs to one modality alone, so sites with
    different scanners train all of it. A subject without any modality gives zeros.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = 2 * channels
        self.score = nn.Linear(channels, 1)
        nn.init.zeros_(self.score.weight)

    def forward(self, maps: Tensor, present: Tensor) -> Tensor:
        mask = present[:, :, None, None, None, None]
        maps = maps.masked_fill(~mask, 0.0)
        scores = self.score(maps.movedim(2, -1)).movedim(-1, 2)
        # A finite floor, so that the softmax over no modality at all is defined.
        attention = scores.masked_fill(~mask, -1e4).softmax(dim=1)
        mean = (attention * maps).sum(dim=1)
        variance = (attention * (maps - mean.unsqueeze(1)).square() * mask).sum(dim=1)
        return torch.cat([mean, variance], dim=1)


class ConcatenationFusion(nn.Module):
    """The maps side by side, zero where absent, mixed by a 1×1×1 convolution.

    Weights belong to one modality: at a site without it they rest, and their mean with those of
    the other sites is diluted. AttentionFusion has no such weights.
    """

    def __init__(self, channels: int, *, modalities: int) -> None:
        super().__init__()
        self.features = 2 * channels
        self.mix = nn.Conv3d(modalities * channels, self.features, kernel_size=1)

    def forward(self, maps: Tensor, present: Tensor) -> Tensor:
        mask = present[:, :, None, None, None, None]
        return self.mix(maps.masked_fill(~mask, 0.0).flatten(1, 2))  # type: ignore[no-any-return]
