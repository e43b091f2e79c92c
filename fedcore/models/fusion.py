"""Fusion: the vectors of the modalities a subject has → one vector, whatever is missing.

forward: tokens (B, M, F) and present (B, M, bool) → (B, F). What stands in the token of an absent
modality never changes the result. No weight here belongs to one modality alone, so that sites with
different scanners train all of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SumFusion(nn.Module):
    """Evidence adds up: the sum of what the present modalities say.

    With a linear head this is a concatenation, zero where absent, under one linear map per
    modality (which the encoder holds, so that it is averaged over the sites that have it).
    """

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        return tokens.masked_fill(~present.unsqueeze(2), 0.0).sum(dim=1)


class AttentionFusion(nn.Module):
    """The present modalities' mean, weighted by attention, times how many there are.

    The weights are a softmax of learnt scores (Ilse et al. 2018, https://arxiv.org/abs/1802.04712);
    with equal scores this is SumFusion. A subject without any modality gives zeros.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.normalise = nn.LayerNorm(features)
        self.score = nn.Linear(features, 1)
        nn.init.zeros_(self.score.weight)

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        tokens = tokens.masked_fill(~present.unsqueeze(2), 0.0)
        # A finite floor, so that the softmax over no modality at all is defined.
        scores = self.score(self.normalise(tokens)).squeeze(2).masked_fill(~present, -1e4)
        attention = torch.softmax(scores, dim=1).unsqueeze(2)
        return (attention * tokens).sum(dim=1) * present.sum(dim=1, keepdim=True)
