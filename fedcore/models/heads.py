"""Heads: the fused vector → what the task asks for."""

from __future__ import annotations

from torch import Tensor, nn


class ClassificationHead(nn.Module):
    """(B, F) → logits (B, K), through one hidden layer."""

    def __init__(self, features: int, classes: int, *, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(features),
            nn.Linear(features, features),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(features, classes),
        )

    def forward(self, fused: Tensor) -> Tensor:
        return self.layers(fused)  # type: ignore[no-any-return]
