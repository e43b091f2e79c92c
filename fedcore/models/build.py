"""From the plan's task to a module: encoders per modality, their fusion, a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from fedcore.config.plan import Task
from fedcore.errors import ConfigError
from fedcore.models.encoders import ConvEncoder
from fedcore.models.fusion import AttentionFusion, ConcatenationFusion
from fedcore.models.heads import ClassificationHead

Fusion = AttentionFusion | ConcatenationFusion


class MultimodalClassifier(nn.Module):
    """Logits of a subject's class from the modalities that the subject has.

    ``modalities`` names the columns of ``present``, in the order of the plan.
    """

    def __init__(
        self,
        encoder: Mapping[str, nn.Module],
        fusion: Fusion,
        head: nn.Module,
        *,
        modality_dropout: float,
    ) -> None:
        super().__init__()
        self.modalities = tuple(encoder)
        self.modality_dropout = modality_dropout
        self.encoder = nn.ModuleDict(encoder)
        self.fusion = fusion
        self.head = head

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """``inputs``: by modality an image (B, 1, X, Y, Z), and "present" (B, M) of 0 and 1.

        A modality that is not in ``inputs`` is not computed and its encoder gets no gradient. An
        image whose ``present`` is 0 may hold anything, NaN included. Returns logits (B, K).
        """
        present = inputs["present"] > 0.5
        if self.training and self.modality_dropout > 0:
            present = _drop(present, self.modality_dropout)
        blank = torch.zeros(present.shape[0], self.fusion.features, device=present.device)
        tokens, here = [], []
        for name, column in zip(self.modalities, present.unbind(dim=1), strict=True):
            if name in inputs:
                image = inputs[name].masked_fill(~column.view(-1, 1, 1, 1, 1), 0.0)
                tokens.append(self.encoder[name](image))
                here.append(column)
            else:
                tokens.append(blank)
                here.append(torch.zeros_like(column))
        fused = self.fusion(torch.stack(tokens, dim=1), torch.stack(here, dim=1))
        return self.head(fused)  # type: ignore[no-any-return]


def classifier(
    task: Task,
    *,
    width: int = 8,
    features: int = 64,
    fusion: Literal["attention", "concatenation"] = "attention",
    dropout: float = 0.1,
    modality_dropout: float = 0.0,
) -> MultimodalClassifier:
    """The built-in model of a task with image modalities. Its weights come from torch's generator.

    ``width``: channels of an encoder's first stage. ``features``: size of the vector of a modality.
    ``modality_dropout``: while training, the chance to hide each modality that a subject has; one
    always stays. Raises ConfigError when an argument or the task does not fit.
    """
    modalities = tuple(task.modalities)
    if not modalities:
        raise ConfigError("task.modalities is empty: name at least one, or bring your own model")
    if min(width, features) < 4 or width % 4 or features % 4:
        raise ConfigError("task.model: width and features must be positive multiples of 4")
    if not (0 <= dropout < 1 and 0 <= modality_dropout < 1):
        raise ConfigError("task.model: dropout and modality_dropout must lie in [0, 1)")
    return MultimodalClassifier(
        {name: ConvEncoder(width, features) for name in modalities},
        _fusion(fusion, features, len(modalities)),
        ClassificationHead(features, len(task.classes), dropout=dropout),
        modality_dropout=modality_dropout,
    )


def _fusion(kind: str, features: int, modalities: int) -> Fusion:
    if kind == "attention":
        return AttentionFusion(features)
    if kind == "concatenation":
        return ConcatenationFusion(features, modalities=modalities)
    raise ConfigError(f"task.model: fusion {kind!r} is unknown; use attention or concatenation")


def _drop(present: Tensor, chance: float) -> Tensor:
    """Hide modalities at random, (B, M) → (B, M), but never the last one a subject has."""
    draw = torch.rand(present.shape, device=present.device).masked_fill(~present, -1.0)
    kept = (draw >= chance) | (draw == draw.amax(dim=1, keepdim=True))
    return present & kept
