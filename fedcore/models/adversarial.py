"""A generative model that learns by a game: what it draws is to pass for the real images.

A **conditional GAN** (Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661; Mirza and Osindero
2014) of several modalities. The generator makes images x̂ of a class c and of z ~ N(0, 1). The
critic scores images for each class, D(x, c); with x a real subject of class c, it earns::

    D(x, c) − D(x̂, c) − ½ D(x, c)² − ½ D(x̂, c)²

and the generator what brings D(x̂, c) up. The squares are the critic's alone: they keep its scores
at or near (p − q)/(p + q), p and q being the densities of real and made images of the class (least
squares, Mao et al. 2017, https://arxiv.org/abs/1611.04076), and the generator's part never fades.

**Both sides in one loss**: the critic sees x̂ through a reversal of its gradient (Ganin and
Lempitsky 2015, https://arxiv.org/abs/1409.7495). So one backward pass and one optimiser play the
game, in the ordinary loop at the ordinary sites; the rounds take the mean of both players (FedGAN,
Rasouli et al. 2020, https://arxiv.org/abs/2006.07228). ``training.learning_rates`` can give each
its own pace (Heusel et al. 2017, https://arxiv.org/abs/1706.08500).

**It is judged by what can be learnt from it.** Beside the players stands a judge, a classifier that
learns from made subjects alone and hands the generator nothing. While evaluating, the model's
outputs are the judge's, of real subjects: *trained on synthetic, tested on real* (Esteban et al.
2017, https://arxiv.org/abs/1706.02633), at every site, in every evaluation. Its macro AUC is what
the gate sees, and what the ONNX export gives.

**A modality that a subject lacks** is in none of its scores: critic and judge read the made subject
in the modalities that the real one beside it has. There is no way back from images to z, so a
subject's missing images cannot be filled in; that is for ``generate``.
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
from fedcore.models.drawing import Decoder, Generative, check, coarse, coarse_size

_UNITS = {"mr": 1.0, "ct": 0.1, "pet": 0.1}
"""What prepared images of a kind vary by between subjects, so that one learning rate fits all."""


class Player(Decoder):
    """One modality's part of all three: z → image, and image → what critic and judge read in it.

    ``unit``: of the image that is made and read, as the maps have it.
    """

    def __init__(
        self, shape: Sequence[int], classes: int, latent: int, *, width: int, unit: float
    ) -> None:
        super().__init__(shape, classes, latent)
        self.unit = unit
        self.critic = nn.Linear(prod(shape), width + classes)
        self.judge = nn.Linear(coarse_size(shape), width + classes)
        for reader in (self.critic, self.judge):
            nn.init.normal_(reader.weight, std=0.1)
            nn.init.zeros_(reader.bias)

    def decode(self, z: Tensor, weights: Tensor) -> Tensor:
        """As a ``Decoder``, in units."""
        return self.unit * super().decode(z, weights)


class ConditionalGan(Generative):
    """While training, minus the loss of the game if the subject is of a class, (B, K), of which
    ``nll_loss`` picks the true one; while evaluating, the judge's log p(class | images)."""

    def __init__(
        self, encoder: Mapping[str, Player], classes: int, *, latent: int, width: int, flip: bool
    ) -> None:
        super().__init__(encoder, classes, latent=latent, modality_dropout=0.0, flip=flip)
        self.width = width
        self.critic = nn.Linear(width, classes)
        self.judge = nn.Linear(width, classes)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """As ``ConditionalVae``: images by name, and "present" (B, M) of 0 and 1."""
        present = inputs["present"] > 0.5
        images = self._shown(inputs, present, self._turned(present))
        if self.training:
            return self._game(images, present)
        return self._judged({name: coarse(image) for name, image in images.items()}, present)[:, 0]

    def _game(self, images: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Beside each real subject a made one of each class, scored by critic and judge."""
        z = torch.randn(present.shape[0], 1, self.latent, device=present.device)
        shown, told = dict[str, Tensor](), dict[str, Tensor]()
        for name, image in images.items():
            part, flat = self._part(name), image.flatten(1).unsqueeze(1)
            made = part.decode(z, self._each_class(z))  # (B, K, V)
            still = made.detach()
            shown[name] = torch.cat([flat, still, _reversed(made)], dim=1)
            told[name] = coarse(still.view(*still.shape[:2], *part.shape))
        scores = self._read("critic", shown, present)  # (B, 1 + 2K, K)
        of_still, of_made = scores[:, 1:].chunk(2, dim=1)
        real, still, made = scores[:, 0], _own(of_still), _own(of_made)
        game = real - made - 0.5 * real.square() - 0.5 * still.square()
        return game + _own(self._judged(told, present))

    def _judged(self, images: Mapping[str, Tensor], present: Tensor) -> Tensor:
        return self._read("judge", images, present).log_softmax(dim=2)

    def _read(self, who: str, images: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Scores (B, C, K) by ``who`` of C subjects (images (B, C, V)), who have what is
        ``present`` (B, M).

        A line, which tells mean heads apart, and a hidden layer for how they vary. What is read is
        divided by √V, so that a step of the optimiser moves a score no more than it moves an image
        (the equalised rate of Karras et al. 2018, https://arxiv.org/abs/1710.10196).
        """
        read = torch.zeros(present.shape[0], 1, self.width + self.classes, device=present.device)
        columns = self._columns(present)
        for name, image in images.items():
            part = self._part(name)
            scaled = image / part.unit / image.shape[2] ** 0.5
            read = read + getattr(part, who)(scaled) * columns[name].view(-1, 1, 1)
        hidden, line = read[..., : self.width], read[..., self.width :]
        return line + getattr(self, who)(functional.silu(hidden))  # type: ignore[no-any-return]

    def _part(self, name: str) -> Player:
        return cast(Player, self.encoder[name])


def conditional_gan(
    task: Task, *, shape: Sequence[int], latent: int = 8, width: int = 32, flip: bool = True
) -> ConditionalGan:
    """The adversarial model of a task with 3-D image modalities on one grid.

    ``shape``: as the dataset has it. ``latent``: length of z. ``width``: of the hidden layer that
    critic and judge have each. ``flip``: while training, mirror every other head left to
    right. Raises ConfigError when an argument or the task does not fit.
    """
    check(task, shape, latent)
    if width < 1:
        raise ConfigError("task.model: width must be positive")
    classes = len(task.classes)
    players = {
        name: Player(shape, classes, latent, width=width, unit=_UNITS[modality.kind])
        for name, modality in task.modalities.items()
    }
    return ConditionalGan(players, classes, latent=latent, width=width, flip=flip)


def _reversed(value: Tensor) -> Tensor:
    """The same value, with its gradient turned round."""
    return 2 * value.detach() - value


def _own(scores: Tensor) -> Tensor:
    """Of scores (B, K, K) of a made subject of each class, those for its own (B, K)."""
    return scores.diagonal(dim1=1, dim2=2)
