"""From the plan's task to a module: encoders per modality, their fusion, a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from fedcore.config.task import Modality, Task
from fedcore.errors import ConfigError
from fedcore.models.decision import MeanOfDecisions, Stacked, WeightsOfDecisions
from fedcore.models.encoders import ConvEncoder
from fedcore.models.fusion import (
    AttentionFusion,
    ConcatenationFusion,
    CrossAttentionFusion,
    SumFusion,
)
from fedcore.models.heads import ClassificationHead
from fedcore.models.multimodal import Multimodal
from fedcore.models.zoo import zoo_encoder

Fusion = Literal[
    "sum", "concatenation", "attention", "cross_attention",
    "decision_mean", "decision_weights", "decision_stacking",
]  # fmt: skip


class MultimodalClassifier(Multimodal):
    """Logits of a subject's class from the modalities that the subject has."""

    def __init__(
        self, encoder: Mapping[str, nn.Module], fusion: nn.Module, head: nn.Module, *,
        modality_dropout: float, flip: bool,
    ) -> None:  # fmt: skip
        super().__init__(encoder, modality_dropout=modality_dropout, flip=flip)
        self.fusion = fusion
        self.head = head

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """``inputs``: by modality an image (B, C, X, Y, Z), or of a photo (B, C, X, Y), and
        "present" (B, M) of 0 and 1.

        A modality that is not in ``inputs`` is not computed and its encoder gets no gradient. An
        image whose ``present`` is 0 may hold anything, NaN included. Returns logits (B, K).
        """
        present = self._seen(inputs["present"] > 0.5)
        images = self._shown(inputs, present, self._turned(present))
        tokens = {name: self.encoder[name](image) for name, image in images.items()}
        blank = torch.zeros_like(next(iter(tokens.values())))
        given = torch.tensor([name in tokens for name in self.modalities], device=present.device)
        every = torch.stack([tokens.get(name, blank) for name in self.modalities], dim=1)
        return self.head(self.fusion(every, present & given))  # type: ignore[no-any-return]


def classifier(
    task: Task,
    *,
    width: int = 8,
    features: int = 32,
    encoders: Mapping[str, Mapping[str, Any]] | None = None,
    fusion: Fusion = "sum",
    dropout: float = 0.0,
    modality_dropout: float = 0.0,
    flip: bool = True,
) -> MultimodalClassifier:
    """The built-in model of a task with image modalities. Its weights come from torch's generator.

    ``width``: channels of the first stage of the small encoder, which is each modality's that
    ``encoders`` does not name. ``encoders``: modality → ``name`` of another, and what its class
    takes, e.g. ``{"ct": {"name": "densenet121"}}``. ``features``: size of a modality's vector.
    ``fusion``: see ``docs/models.md``; of decisions, neither ``features`` nor ``dropout`` count.
    ``modality_dropout``: while training, the chance to hide each modality that a subject has; one
    always stays. ``flip``: while training, mirror every other head left to right. Raises
    ConfigError when an argument or the task does not fit.
    """
    if not task.modalities:
        raise ConfigError("task.modalities is empty: name at least one, or bring your own model")
    if width < 4 or width % 4 or features < 1:
        raise ConfigError("task.model: width must be a positive multiple of 4, features positive")
    if not (0 <= dropout < 1 and 0 <= modality_dropout < 1):
        raise ConfigError("task.model: dropout and modality_dropout must lie in [0, 1)")
    size, joined, head = _joined(fusion, features, len(task.classes), dropout)
    chosen = encoders or {}
    unknown = sorted(set(chosen) - set(task.modalities))
    if unknown:
        raise ConfigError(
            f"task.model: encoders names {unknown[0]!r}, which is none of the modalities "
            f"({', '.join(task.modalities)})"
        )
    made = {
        name: _encoder(modality, size, width, **chosen.get(name, {"name": "conv"}))
        for name, modality in task.modalities.items()
    }
    if fusion == "decision_stacking":
        made = {name: Stacked(model, size) for name, model in made.items()}
    return MultimodalClassifier(made, joined, head, modality_dropout=modality_dropout, flip=flip)


def _encoder(
    modality: Modality, features: int, width: int, *, name: str = "", **arguments: Any
) -> nn.Module:
    """An encoder of this name for images of this modality."""
    shape = {"channels": modality.channels, "dimensions": modality.dimensions}
    if name != "conv":
        return zoo_encoder(name, features, arguments=arguments, **shape)
    if arguments:
        raise ConfigError(f"task.model: the encoder conv takes no {min(arguments)!r}")
    return ConvEncoder(width, features, **shape)


def _joined(
    kind: str, features: int, classes: int, dropout: float
) -> tuple[int, nn.Module, nn.Module]:
    """The size of the encoders' vectors, what fuses them, and what makes logits of that."""
    match kind:
        case "sum":
            fusion: nn.Module = SumFusion()
        case "concatenation":
            fusion = ConcatenationFusion()
        case "attention":
            fusion = AttentionFusion(features)
        case "cross_attention":
            fusion = CrossAttentionFusion(features)
        case "decision_mean":
            return classes, MeanOfDecisions(), nn.Identity()
        case "decision_weights":
            return classes + 1, WeightsOfDecisions(), nn.Identity()
        case "decision_stacking":
            return classes, SumFusion(), nn.Identity()
        case _:
            raise ConfigError(
                f"task.model: fusion {kind!r} is unknown; use one of {', '.join(get_args(Fusion))}"
            )
    return features, fusion, ClassificationHead(features, classes, dropout=dropout)
