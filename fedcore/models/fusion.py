"""Fusion: the vectors of the modalities a subject has → one vector, whatever is missing.

forward: tokens (B, M, F) and present (B, M, bool) → (B, F). What stands in the token of an absent
modality never changes the result. No weight here belongs to one modality alone, so that sites with
different scanners train all of it: what does is in that modality's encoder, and is averaged over
the sites that have it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedcore.errors import ConfigError

FLOOR = -1e4
"""What an absent modality's score becomes: finite, so that the softmax over none is defined."""


class SumFusion(nn.Module):
    """Evidence adds up: the sum of what the present modalities say.

    With a linear head this is a concatenation, zero where absent, under one linear map per
    modality (which the encoder holds, so that it is averaged over the sites that have it).
    """

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        return tokens.masked_fill(~present.unsqueeze(2), 0.0).sum(dim=1)


class ConcatenationFusion(nn.Module):
    """The modalities' features side by side, zero where absent, and the mask; a hidden layer on it.

    With x_m what an encoder found before its last map, and p_m the mask::

        fused = LeakyReLU([W_1 … W_M  v_1 … v_M] · [p_1·x_1 … p_M·x_M  p_1 … p_M])

    Column block W_m and column v_m belong to modality m: they are the weight and the bias of its
    encoder's last map, whose output W_m·x_m + v_m is the token. What is left here is the sum of the
    present tokens, and the activation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.activation = nn.LeakyReLU(0.1)

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        summed = tokens.masked_fill(~present.unsqueeze(2), 0.0).sum(dim=1)
        return self.activation(summed)  # type: ignore[no-any-return]


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
        scores = self.score(self.normalise(tokens)).squeeze(2).masked_fill(~present, FLOOR)
        attention = torch.softmax(scores, dim=1).unsqueeze(2)
        return (attention * tokens).sum(dim=1) * present.sum(dim=1, keepdim=True)


class CrossAttentionFusion(nn.Module):
    """Each present modality looks at the others; then the sum of what they say.

    One layer of a transformer (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), normalised
    first (Xiong et al. 2020, https://arxiv.org/abs/2002.04745), over the present tokens alone: what
    one modality shows can change what another means. Its residual branches end in maps that start
    at zero, so that it starts as SumFusion. Raises ConfigError if ``heads`` do not divide
    ``features``.
    """

    def __init__(self, features: int, heads: int = 4) -> None:
        super().__init__()
        if features % heads:
            raise ConfigError(
                f"task.model: fusion cross_attention wants features in multiples of {heads}, its "
                f"heads, and they are {features}"
            )
        self.heads = heads
        self.normalise = nn.LayerNorm(features)
        self.query = nn.Linear(features, features)
        self.key = nn.Linear(features, features)
        self.value = nn.Linear(features, features)
        self.join = nn.Linear(features, features)
        self.widen = nn.Sequential(
            nn.LayerNorm(features), nn.Linear(features, 2 * features), nn.GELU()
        )
        self.narrow = nn.Linear(2 * features, features)
        for last in (self.join, self.narrow):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        absent = ~present.unsqueeze(2)
        tokens = tokens.masked_fill(absent, 0.0)
        tokens = tokens + self._seen(self.normalise(tokens), present)
        tokens = tokens + self.narrow(self.widen(tokens))
        return tokens.masked_fill(absent, 0.0).sum(dim=1)

    def _seen(self, tokens: Tensor, present: Tensor) -> Tensor:
        """What each token takes from the present ones, (B, M, F)."""
        query, key, value = (
            map_(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, M, F/heads)
            for map_ in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        scores = scores.masked_fill(~present[:, None, None, :], FLOOR)
        return self.join((scores.softmax(dim=3) @ value).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]
