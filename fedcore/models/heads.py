"""Heads: the fused vector → what the task asks for."""

from __future__ import annotations

from torch import Tensor, nn


class ClassificationHead(nn.Module):
    """Fused vector (B, F) → logits (B, K)."""

    def __init__(self, features: int, classes: int, *, dropout: float) -> None:
        super().__init__()
        self.classify = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, classes))

    def forward(self, fused: Tensor) -> Tensor:
        return self.classify(fused)  # type: ignore[no-any-return]
