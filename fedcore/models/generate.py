"""A generative model: what the images of a subject look like, given the class.

A **conditional variational autoencoder** (Kingma & Welling 2014, https://arxiv.org/abs/1312.6114;
Sohn et al. 2015) of several modalities. For a class c, a latent vector z (L,) and the images x_m
that a subject has::

    p(z | c) = N(μ_c, σ_c²)      p(x | z, c) = Π_m N(x_m; W_m z + t_m,c, s_m²)
    q(z | x) ∝ N(0, 1) · Π_m N(z; encode_m(x_m))

**Any subset of modalities** encodes and every modality decodes, because q is a product of experts
(Wu & Goodman 2018, https://arxiv.org/abs/1802.05335) in which an absent one is a factor of 1. So
one model makes new subjects (z of a class, decoded) and fills in what a subject lacks (z of what
there is, decoded).

**The maps are linear** (``drawing``), which makes it probabilistic PCA around the mean of a class
(Lucas et al. 2019, https://arxiv.org/abs/1911.02469).

**It is a classifier too**, and so trains, travels, is evaluated, gated and exported as one: its
outputs (B, K) bound log p(x | c) from below for every class (the ELBO), and the plan's loss is
``torch.nn.functional:nll_loss``, which picks the true class's. Their softmax is Bayes' rule for
classes that are equally frequent. Its AUC says how much of the class the model holds: where it is
one half, a sample "of a class" is of none.

**The scale** s_m² is that of the largest likelihood, the mean squared error of the image (σ-VAE,
Rybkin et al. 2021, https://arxiv.org/abs/2006.13202), so that modalities of different units weigh
the same. Neighbouring voxels err alike; ``correlated`` of them count as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fedcore.config.task import Task
from fedcore.errors import ConfigError
from fedcore.models.drawing import Decoder, Generative, check, coarse, coarse_size

_LIMIT = 8.0  # of a log-variance: within it float32 is at ease
_LEAST = 1e-6  # a mean squared error that counts as none


class Autoencoder(Decoder):
    """One modality: image (B, 1, X, Y, Z) → its word on z, and z → image.

    Both ways are one module (``encoder.<modality>``): who lacks the modality trains neither.
    """

    def __init__(self, shape: Sequence[int], classes: int, latent: int) -> None:
        super().__init__(shape, classes, latent)
        self.inward = nn.Linear(coarse_size(shape), 2 * latent)
        nn.init.normal_(self.inward.weight, std=0.01)
        nn.init.zeros_(self.inward.bias)

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (B, L) of this expert."""
        return _halves(self.inward(coarse(image)[:, 0]))


class ConditionalVae(Generative):
    """Bounds on log p(images | class), (B, K), of images of any subset of the modalities."""

    def __init__(
        self, encoder: Mapping[str, Autoencoder], classes: int, *,
        latent: int, correlated: float, modality_dropout: float, flip: bool,
    ) -> None:  # fmt: skip
        super().__init__(
            encoder, classes, latent=latent, modality_dropout=modality_dropout, flip=flip
        )
        self.correlated = correlated
        self.prior = nn.Linear(classes, 2 * latent, bias=False)
        nn.init.zeros_(self.prior.weight)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """``inputs``: by modality an image (B, 1, X, Y, Z), and "present" (B, M) of 0 and 1.

        A modality that is not in ``inputs`` is not computed and its module gets no gradient. An
        image whose ``present`` is 0 may hold anything, NaN included. While evaluating, what all
        classes have in common is taken away, in which float32 would drown the rest.
        """
        present = inputs["present"] > 0.5
        seen = self._seen(present)  # what the encoders see, so that each learns alone too
        images = self._shown(inputs, present, self._turned(present))
        mean, log_variance = self.posterior(images, seen)
        z = mean
        if self.training:
            z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        bounds = self._log_likelihoods(images, present, z) - self._divergences(mean, log_variance)
        return bounds if self.training else (bounds - bounds.mean(dim=1, keepdim=True)).float()

    def posterior(self, images: Mapping[str, Tensor], seen: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (B, L) of q(z | the modalities that are ``seen``, (B, M))."""
        precision = torch.ones(seen.shape[0], self.latent, device=seen.device)
        weighted = torch.zeros_like(precision)
        columns = self._columns(seen)
        for name, image in images.items():
            mean, log_variance = self._part(name).encode(image)
            says = (-log_variance).exp() * columns[name].unsqueeze(1)
            precision, weighted = precision + says, weighted + says * mean
        return weighted / precision, -precision.log()

    def expected(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every modality as those that a subject has let expect it: name → (B, 1, X, Y, Z)."""
        mean, _ = self._posterior_of(inputs)
        return self._images(mean, self(inputs).softmax(dim=1))

    def divergence(self, inputs: dict[str, Tensor]) -> Tensor:
        """KL(q(z | x) ‖ p(z | c)) (B, K), in nats: what z says of this subject beside its class."""
        return self._divergences(*self._posterior_of(inputs))

    def _posterior_of(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        present = inputs["present"] > 0.5
        return self.posterior(self._shown(inputs, present, None), present)

    def _latent(self, noise: Tensor, weights: Tensor) -> Tensor:
        """Of the class's prior."""
        mean, log_variance = _halves(self.prior(weights))
        return mean + (0.5 * log_variance).exp() * noise

    def _part(self, name: str) -> Autoencoder:
        return cast(Autoencoder, self.encoder[name])

    def _divergences(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        prior, prior_log_variance = _halves(self.prior(self._each_class(mean)))
        mean, log_variance = mean.unsqueeze(1), log_variance.unsqueeze(1)
        spread = (log_variance - prior_log_variance).exp()
        distance = (mean - prior).square() * (-prior_log_variance).exp()
        return 0.5 * (spread + distance - 1 - log_variance + prior_log_variance).sum(dim=2)

    def _log_likelihoods(self, images: Mapping[str, Tensor], present: Tensor, z: Tensor) -> Tensor:
        """log p(x | z, c) (B, K) of the images that each subject has, but for a constant."""
        columns = self._columns(present)
        classes = self._each_class(z)
        total = torch.zeros(z.shape[0], self.classes, device=z.device)
        for name, image in images.items():
            flat = image.flatten(1).unsqueeze(1)
            errors = self._part(name).decode(z.unsqueeze(1), classes) - flat  # (B, K, V)
            if not self.training:
                errors = errors.double()  # the classes differ by little
            error = errors.square().mean(dim=2).clamp(min=_LEAST)
            voxels = flat.shape[2] / self.correlated
            total = total - 0.5 * voxels * error.log() * columns[name].unsqueeze(1)
        return total


def conditional_vae(
    task: Task, *, shape: Sequence[int], latent: int = 32, correlated: float = 27.0,
    modality_dropout: float = 0.3, flip: bool = True,
) -> ConditionalVae:  # fmt: skip
    """The generative model of a task with 3-D image modalities on one grid.

    ``shape``: as the dataset has it. ``latent``: length of z. ``correlated``: how many voxels count
    as one; the larger, the smoother, and the less of one subject is in z. ``modality_dropout``:
    while training, the chance that the encoders do not see a modality which a subject has; one
    always is seen. ``flip``: while training, mirror every other head left to right. Raises
    ConfigError when an argument or the task does not fit.
    """
    check(task, shape, latent)
    if not correlated > 0:
        raise ConfigError("task.model: correlated must be positive")
    if not 0 <= modality_dropout < 1:
        raise ConfigError("task.model: modality_dropout must lie in [0, 1)")
    classes = len(task.classes)
    return ConditionalVae(
        {name: Autoencoder(shape, classes, latent) for name in task.modalities},
        classes, latent=latent, correlated=correlated,
        modality_dropout=modality_dropout, flip=flip,
    )  # fmt: skip


def _halves(values: Tensor) -> tuple[Tensor, Tensor]:
    """A mean, and a log-variance within bounds."""
    mean, log_variance = values.chunk(2, dim=-1)
    return mean, _LIMIT * torch.tanh(log_variance / _LIMIT)
