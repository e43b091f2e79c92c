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

**The maps are linear**: a mean head for each class, and what varies (probabilistic PCA, which a
linear VAE comes to: Lucas et al. 2019, https://arxiv.org/abs/1911.02469). A hospital has some
dozens of subjects, and the templates are what makes a class of what is drawn (docs/synthetic.md).

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

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedcore.config.task import Task
from fedcore.errors import ConfigError

_COARSE = 2  # voxels an axis that the encoder takes together
_LIMIT = 8.0  # of a log-variance: within it float32 is at ease
_LEAST = 1e-6  # a mean squared error that counts as none


class Autoencoder(nn.Module):
    """One modality: image (B, 1, X, Y, Z) → its word on z, and z → image.

    Both ways are one module (``encoder.<modality>``): who lacks the modality trains neither.
    """

    def __init__(self, shape: Sequence[int], classes: int, latent: int) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.inward = nn.Linear(prod(-(-size // _COARSE) for size in shape), 2 * latent)
        self.outward = nn.Linear(latent, prod(shape))
        self.template = nn.Linear(classes, prod(shape), bias=False)
        nn.init.normal_(self.inward.weight, std=0.01)
        nn.init.normal_(self.outward.weight, std=0.02)
        for start in (self.inward.bias, self.outward.bias, self.template.weight):
            nn.init.zeros_(start)

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (B, L) of this expert."""
        coarse = functional.avg_pool3d(image, _COARSE, ceil_mode=True)
        return _halves(self.inward(coarse.flatten(1)))

    def decode(self, z: Tensor, weights: Tensor) -> Tensor:
        """The mean image (B, …, V), flat, of z (B, …, L) with ``weights`` (B, …, K) of classes."""
        return self.outward(z) + self.template(weights)  # type: ignore[no-any-return]


class ConditionalVae(nn.Module):
    """Bounds on log p(images | class), (B, K), of images of any subset of the modalities.

    ``modalities`` names the columns of ``present``, in the order of the plan.
    """

    def __init__(
        self, encoder: Mapping[str, Autoencoder], classes: int, *,
        latent: int, correlated: float, modality_dropout: float, flip: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.modalities = tuple(encoder)
        self.classes, self.latent, self.correlated = classes, latent, correlated
        self.modality_dropout, self.flip = modality_dropout, flip
        self.encoder = nn.ModuleDict(encoder)
        self.prior = nn.Linear(classes, 2 * latent, bias=False)
        nn.init.zeros_(self.prior.weight)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """``inputs``: by modality an image (B, 1, X, Y, Z), and "present" (B, M) of 0 and 1.

        A modality that is not in ``inputs`` is not computed and its module gets no gradient. An
        image whose ``present`` is 0 may hold anything, NaN included. While evaluating, what all
        classes have in common is taken away, in which float32 would drown the rest.
        """
        inputs = self._blanked(inputs)
        seen = inputs["present"] > 0.5
        if self.training:
            inputs, seen = self._varied(inputs)
        mean, log_variance = self.posterior(inputs, seen)
        z = mean
        if self.training:
            z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        bounds = self._log_likelihoods(inputs, z) - self._divergences(mean, log_variance)
        return bounds if self.training else (bounds - bounds.mean(dim=1, keepdim=True)).float()

    def posterior(self, inputs: dict[str, Tensor], seen: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (B, L) of q(z | the modalities that are ``seen``, (B, M))."""
        precision = torch.ones(seen.shape[0], self.latent, device=seen.device)
        weighted = torch.zeros_like(precision)
        for name, column in self._given(inputs, seen):
            mean, log_variance = self._part(name).encode(inputs[name])
            says = (-log_variance).exp() * column.unsqueeze(1)
            precision, weighted = precision + says, weighted + says * mean
        return weighted / precision, -precision.log()

    def expected(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every modality as those that a subject has let expect it: name → (B, 1, X, Y, Z)."""
        inputs = self._blanked(inputs)
        mean, _ = self.posterior(inputs, inputs["present"] > 0.5)
        return self._images(mean, self(inputs).softmax(dim=1))

    def sample(self, classes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """New subjects of these classes (B,): name → mean images (B, 1, X, Y, Z)."""
        weights = functional.one_hot(classes, self.classes).float()
        mean, log_variance = _halves(self.prior(weights))
        noise = torch.randn(mean.shape, generator=generator)
        return self._images(mean + (0.5 * log_variance).exp() * noise, weights)

    def divergence(self, inputs: dict[str, Tensor]) -> Tensor:
        """KL(q(z | x) ‖ p(z | c)) (B, K), in nats: what z says of this subject beside its class."""
        inputs = self._blanked(inputs)
        return self._divergences(*self.posterior(inputs, inputs["present"] > 0.5))

    def _images(self, z: Tensor, weights: Tensor) -> dict[str, Tensor]:
        parts = {name: self._part(name) for name in self.modalities}
        return {
            name: part.decode(z, weights).view(len(z), 1, *part.shape)
            for name, part in parts.items()
        }

    def _part(self, name: str) -> Autoencoder:
        return cast(Autoencoder, self.encoder[name])

    def _given(self, inputs: dict[str, Tensor], present: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The modalities that anyone here has, each with its column (B,) of ``present``."""
        for name, column in zip(self.modalities, present.unbind(dim=1), strict=True):
            if name in inputs:
                yield name, column

    def _blanked(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Zeros where a modality is absent."""
        given = self._given(inputs, inputs["present"] > 0.5)
        return inputs | {name: inputs[name].masked_fill(~_cubic(has), 0.0) for name, has in given}

    def _varied(self, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Every other head mirrored; and what the encoders see, so that each learns alone too."""
        present = inputs["present"] > 0.5
        draw = torch.rand(present.shape, device=present.device).masked_fill(~present, -1.0)
        seen = present & ((draw >= self.modality_dropout) | (draw == draw.amax(1, keepdim=True)))
        if not self.flip:
            return inputs, seen
        mirrored = _cubic(torch.rand(len(present), device=present.device) < 0.5)
        return inputs | {
            name: torch.where(mirrored, inputs[name].flip(2), inputs[name])
            for name, _ in self._given(inputs, present)
        }, seen

    def _each_class(self, of: Tensor) -> Tensor:
        """(B, K, K): every class, one-hot, for each of B subjects anew, so that a gradient can be
        told by subject. The size is a tensor's, which an export leaves free."""
        return torch.eye(self.classes, device=of.device).expand(of.shape[0], -1, -1)

    def _divergences(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        prior, prior_log_variance = _halves(self.prior(self._each_class(mean)))
        mean, log_variance = mean.unsqueeze(1), log_variance.unsqueeze(1)
        spread = (log_variance - prior_log_variance).exp()
        distance = (mean - prior).square() * (-prior_log_variance).exp()
        return 0.5 * (spread + distance - 1 - log_variance + prior_log_variance).sum(dim=2)

    def _log_likelihoods(self, inputs: dict[str, Tensor], z: Tensor) -> Tensor:
        """log p(x | z, c) (B, K) of the images that each subject has, but for a constant."""
        classes = self._each_class(z)
        total = torch.zeros(z.shape[0], self.classes, device=z.device)
        for name, column in self._given(inputs, inputs["present"] > 0.5):
            image = inputs[name].flatten(1).unsqueeze(1)
            errors = self._part(name).decode(z.unsqueeze(1), classes) - image  # (B, K, V)
            if not self.training:
                errors = errors.double()  # the classes differ by little
            error = errors.square().mean(dim=2).clamp(min=_LEAST)
            voxels = image.shape[2] / self.correlated
            total = total - 0.5 * voxels * error.log() * column.unsqueeze(1)
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
    if len(shape) != 3 or min(shape) < _COARSE:
        raise ConfigError("task.model: shape wants three sizes, as the dataset has them")
    if latent < 1 or not correlated > 0:
        raise ConfigError("task.model: latent and correlated must be positive")
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


def _cubic(column: Tensor) -> Tensor:
    return column.view(-1, 1, 1, 1, 1)
