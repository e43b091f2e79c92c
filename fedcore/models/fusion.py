"""Fusion: the features of the modalities a subject has → one vector, whatever is missing.

forward: tokens (B, M, F) and present (B, M, bool) → (B, features). What stands in the token of an
absent modality never changes the result.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentionFusion(nn.Module):
    """Multi-head attention of one learnt query over the present modalities (B, M, F) → (B, F).

    The pooling of Ilse et al. 2018 (https://arxiv.org/abs/1802.04712) in the heads of Vaswani et
    al. 2017. A learnt token that is always present keeps the softmax defined for a subject without
    any modality. No weight belongs to one modality alone, so sites with different scanners train
    all of it.
    """

    def __init__(self, features: int, *, heads: int = 4) -> None:
        super().__init__()
        self.features = features
        self.heads = heads
        self.norm = nn.LayerNorm(features)
        self.score = nn.Linear(features, heads)
        self.value = nn.Linear(features, features)
        self.blank = nn.Parameter(torch.zeros(1, 1, features))

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        batch = tokens.shape[0]
        tokens = torch.cat([self.norm(tokens), self.blank.expand(batch, -1, -1)], dim=1)
        present = torch.cat([present, torch.ones_like(present[:, :1])], dim=1)
        scores = self.score(tokens).masked_fill(~present.unsqueeze(2), float("-inf"))
        attention = scores.softmax(dim=1).transpose(1, 2).unsqueeze(2)  # (B, H, 1, M+1)
        values = self.value(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)
        fused: Tensor = (attention @ values).flatten(1)  # (B, H, 1, F/H) → (B, F)
        return fused


class ConcatenationFusion(nn.Module):
    """The features side by side, zero where absent, and the mask: (B, M, F) → (B, F).

    A column belongs to one modality: at a site without it the column rests, and its mean with the
    other sites is diluted. AttentionFusion has no such columns.
    """

    def __init__(self, features: int, *, modalities: int) -> None:
        super().__init__()
        self.features = features
        self.mix = nn.Linear(modalities * (features + 1), features)

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        mask = present.unsqueeze(2)
        tokens = tokens.masked_fill(~mask, 0.0)
        return self.mix(torch.cat([tokens, mask.to(tokens.dtype)], dim=2).flatten(1))  # type: ignore[no-any-return]
