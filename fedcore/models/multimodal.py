"""What models of several modalities share: an encoder each, and modalities hidden in training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Multimodal(nn.Module):
    """A model with an encoder a modality, for subjects who have any of them.

    ``modalities`` names the columns of ``present``, in the order of the plan. What belongs to one
    is a module, ``encoder.<modality>``: who lacks the modality trains and sends none of it.
    """

    def __init__(
        self, encoder: Mapping[str, nn.Module], *, modality_dropout: float, flip: bool
    ) -> None:
        super().__init__()
        self.modalities = tuple(encoder)
        self.modality_dropout, self.flip = modality_dropout, flip
        self.encoder = nn.ModuleDict(encoder)

    def _seen(self, present: Tensor) -> Tensor:
        """Of what is present (B, M), what the model is shown: in training not always all of it."""
        if self.training and self.modality_dropout > 0:
            return drop(present, self.modality_dropout)
        return present

    def _turned(self, subjects: Tensor) -> Tensor | None:
        """Which of the subjects (B, …) are mirrored left to right: in training every other one."""
        if not (self.training and self.flip):
            return None
        return torch.rand(len(subjects), device=subjects.device) < 0.5

    def _columns(self, present: Tensor) -> dict[str, Tensor]:
        """``present`` (B, M), by modality (B,)."""
        return dict(zip(self.modalities, present.unbind(dim=1), strict=True))

    def _shown(
        self, inputs: Mapping[str, Tensor], present: Tensor, turned: Tensor | None
    ) -> dict[str, Tensor]:
        """The images of the modalities that anyone here has, those ``turned`` (B,) mirrored.

        Zeros where a modality is not ``present`` (B, M): an image there may hold anything, NaN
        included.
        """
        columns = self._columns(present)
        shown = {}
        for name in self.modalities:
            if name in inputs:
                image = inputs[name]
                image = image.masked_fill(~by_subject(columns[name], image), 0.0)
                shown[name] = mirrored(image, turned)
        return shown


def drop(present: Tensor, chance: float) -> Tensor:
    """Hide modalities at random, (B, M) → (B, M), but never the last one a subject has."""
    draw = torch.rand(present.shape, device=present.device).masked_fill(~present, -1.0)
    kept = (draw >= chance) | (draw == draw.amax(dim=1, keepdim=True))
    return present & kept


def mirrored(image: Tensor, turned: Tensor | None) -> Tensor:
    """Those (B,) of the images (B, C, X, …) left to right; None = nobody's."""
    return image if turned is None else torch.where(by_subject(turned, image), image.flip(2), image)


def by_subject(column: Tensor, image: Tensor) -> Tensor:
    """A value a subject (B,), to go with an image (B, C, …)."""
    return column.view(-1, *(1,) * (image.ndim - 1))
