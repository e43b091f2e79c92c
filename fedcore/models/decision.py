"""Fusion at the level of decisions: a model per modality, whose opinions are combined.

forward: tokens (B, M, K) and present (B, M, bool) → logits (B, K). A modality's encoder ends in its
own head: its token is that model's logits. What stands in an absent modality's token never matters.
All are trained together, on the loss of what they say together; ``modality_dropout`` lets each
answer alone, too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedcore.models.fusion import FLOOR


class MeanOfDecisions(nn.Module):
    """The mean of the present models' probabilities: log (1/n · Σ_m softmax(token_m)).

    A subject without any modality gets equal probabilities.
    """

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        return _mixed(tokens, torch.zeros_like(present, dtype=tokens.dtype), present)


class WeightsOfDecisions(nn.Module):
    """Their mean with weights that each model states: a mixture of experts (Jacobs et al. 1991,
    https://doi.org/10.1162/neco.1991.3.1.79).

    Tokens are (B, M, K + 1): the last is how much the model trusts what it saw in this subject. The
    weights are the softmax of that over the present modalities. The gate is the last row of an
    encoder's last map, so that it too is averaged over the sites that have the modality.
    """

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        return _mixed(tokens[..., :-1], tokens[..., -1], present)


class Stacked(nn.Module):
    """A modality's model and its column block of a linear model on all their decisions: stacking
    (Wolpert 1992, https://doi.org/10.1016/S0893-6080(05)80023-1).

    Gives S·log softmax(model(image)) + s. The sum of that over the present modalities is the linear
    model on what is present and on the mask, and starts as the product of their opinions. To train
    it on what the models say of subjects that they were not trained on, as Wolpert does, start a
    plan from trained models and freeze ``encoder.*.model.*``.
    """

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model = model
        self.stack = nn.Linear(classes, classes)
        nn.init.eye_(self.stack.weight)
        nn.init.zeros_(self.stack.bias)

    def forward(self, image: Tensor) -> Tensor:
        return self.stack(self.model(image).log_softmax(dim=1))  # type: ignore[no-any-return]


def _mixed(tokens: Tensor, trust: Tensor, present: Tensor) -> Tensor:
    """log Σ_m w_m·p_m (B, K), w the softmax of ``trust`` (B, M) over the present."""
    opinions = tokens.masked_fill(~present.unsqueeze(2), 0.0).log_softmax(dim=2)
    weights = trust.masked_fill(~present, FLOOR).log_softmax(dim=1)
    return torch.logsumexp(opinions + weights.unsqueeze(2), dim=1)
