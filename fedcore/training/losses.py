"""Losses of a segmentation, MONAI's."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor, nn


def dice_ce(outputs: Tensor, targets: Tensor, **arguments: Any) -> Tensor:
    """Soft Dice (Milletari et al. 2016, https://arxiv.org/abs/1606.04797) plus cross-entropy.

    ``outputs``: logits (B, K, X, Y, Z); ``targets``: classes (B, X, Y, Z). Dice is of each subject,
    so that the loss of a batch is the mean of its subjects', and without the background, which
    would drown the rest. ``arguments``: those of ``monai.losses.DiceCELoss``.
    """
    loss: Tensor = _dice_ce(**arguments)(outputs, targets.unsqueeze(1))
    return loss


@cache
def _dice_ce(**arguments: Any) -> nn.Module:
    from monai.losses.dice import DiceCELoss  # takes seconds, and only segmentations need it

    settings: dict[str, Any] = {"to_onehot_y": True, "softmax": True, "include_background": False}
    return DiceCELoss(**settings | arguments)
