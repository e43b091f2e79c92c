"""What generative models share: from a latent vector and a class to the images of a subject.

For z (L,) and a class c, the image of modality m is W_m z + t_m,c: **a mean head of each class, and
how heads vary around it**. Linear maps, because a hospital has some dozens of subjects; the
templates t are what makes a class of what is drawn (docs/synthetic.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedcore.config.task import Task
from fedcore.errors import ConfigError
from fedcore.models.multimodal import Multimodal

COARSE = 2
"""Voxels an axis that who reads an image takes together."""


class Decoder(nn.Module):
    """z and a class → the image of one modality, on a grid of ``shape``."""

    def __init__(self, shape: Sequence[int], classes: int, latent: int) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.outward = nn.Linear(latent, prod(shape))
        self.template = nn.Linear(classes, prod(shape), bias=False)
        nn.init.normal_(self.outward.weight, std=0.02)
        nn.init.zeros_(self.outward.bias)
        nn.init.zeros_(self.template.weight)

    def decode(self, z: Tensor, weights: Tensor) -> Tensor:
        """The image (B, …, V), flat, of z (B, …, L) with ``weights`` (B, …, K) of classes."""
        return self.outward(z) + self.template(weights)  # type: ignore[no-any-return]


class Generative(Multimodal):
    """A model that draws subjects who do not exist, with every modality."""

    def __init__(
        self, encoder: Mapping[str, Decoder], classes: int, *,
        latent: int, modality_dropout: float, flip: bool,
    ) -> None:  # fmt: skip
        super().__init__(encoder, modality_dropout=modality_dropout, flip=flip)
        self.classes, self.latent = classes, latent

    def sample(self, classes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """New subjects of these classes (B,): name → images (B, 1, X, Y, Z)."""
        weights = functional.one_hot(classes, self.classes).float()
        noise = torch.randn((len(classes), self.latent), generator=generator)
        return self._images(self._latent(noise, weights), weights)

    def _latent(self, noise: Tensor, weights: Tensor) -> Tensor:  # noqa: ARG002
        """z (B, L) of a class, of what was drawn from N(0, 1): just that, unless a model says."""
        return noise

    def _images(self, z: Tensor, weights: Tensor) -> dict[str, Tensor]:
        parts = {name: cast(Decoder, self.encoder[name]) for name in self.modalities}
        return {
            name: part.decode(z, weights).view(len(z), 1, *part.shape)
            for name, part in parts.items()
        }

    def _each_class(self, of: Tensor) -> Tensor:
        """(B, K, K): every class, one-hot, for each of B subjects anew, so that a gradient can be
        told by subject. The size is a tensor's, which an export leaves free."""
        return torch.eye(self.classes, device=of.device).expand(of.shape[0], -1, -1)


def check(task: Task, shape: Sequence[int], latent: int) -> None:
    """Raises ConfigError where nothing can be drawn for the task, on a grid of this shape."""
    if not task.modalities:
        raise ConfigError("task.modalities is empty: name at least one, or bring your own model")
    if task.target is not None:
        raise ConfigError("task.model: this one learns images of a class; remove task.target")
    apart = [name for name, modality in task.modalities.items() if not modality.shares_grid]
    if apart:
        raise ConfigError(
            f"task.model: {apart[0]!r} has a grid of its own, and this model has one for all; "
            "name mr, ct and pet modalities only"
        )
    if len(shape) != 3 or min(shape) < COARSE:
        raise ConfigError("task.model: shape wants three sizes, as the dataset has them")
    if latent < 1:
        raise ConfigError("task.model: latent must be positive")


def coarse_size(shape: Sequence[int]) -> int:
    """Voxels of an image of this shape after ``coarse``."""
    return prod(-(-size // COARSE) for size in shape)


def coarse(images: Tensor) -> Tensor:
    """(B, C, X, Y, Z) → (B, C, V): each image flat, and with voxels taken together."""
    return functional.avg_pool3d(images, COARSE, ceil_mode=True).flatten(2)
