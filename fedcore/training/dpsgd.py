"""One site's part of a round with differential privacy for each subject: DP-SGD.

A step (Abadi et al. 2016, https://arxiv.org/abs/1607.00133, algorithm 1), over the subjects S that
a Poisson sample of ``sampling_rate`` gives:

    params ← optimiser(params, (Σ_{i∈S} min(1, C/‖g_i‖)·g_i + N(0, (zC)²·I)) / (rate·N))

with g_i the gradient of subject i alone over all modules together, C ``clip_norm`` and z
``noise_multiplier``. The unit is the subject because the dataset has one example a subject; a
modality that the subject lacks has gradient zero.

**What is public**: N, the site's number of training subjects, which every reply names. So the
neighbouring data set is the one where a subject's gradients are zero and N is as it was; the sum
moves by at most C, as if the subject were added or removed. **What does not depend on a subject**:
the noise is on every trainable parameter, sampled or not, and all of them count as trained, whoever
has which modality; an empty sample is a step of noise alone; no loss is told.

**Gradients of single subjects** are Opacus' (hooks where it knows the layer, 3-D convolutions among
them, functorch elsewhere), for models that take dictionaries too. Of a large sample, only
``training.batch_size`` subjects are in memory at a time. **Ghost clipping** (Li et al. 2021,
https://arxiv.org/abs/2110.05679) takes each gradient's norm without holding it and a second
backward pass to sum them. Opacus' has the short cut for linear layers and embeddings alone: other
layers' gradients are made and dropped one layer at a time. So it is used where the gradients of one
batch would fill more than ``GHOST_FROM`` bytes; below, keeping them is faster.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from torch import Tensor, nn
from torch.utils.data import default_collate

from fedcore.config.learning import Training
from fedcore.config.protection import SubjectPrivacy
from fedcore.errors import ConfigError, PermanentError
from fedcore.params import module_of
from fedcore.privacy.gaussian import keyed_normals, keyed_uniforms
from fedcore.training import local
from fedcore.training.augment import Vary
from fedcore.training.compute import Compute, Inputs
from fedcore.training.local import Examples, Loss, TrainResult
from fedcore.training.objectives import proximal
from fedcore.training.patches import seen
from fedcore.training.reproducible import reproducible
from fedcore.training.state import get_params

GHOST_FROM = 1 << 29
"""Bytes of the gradients of one batch, subject by subject, above which they are not held."""

_TINY = 1e-6  # as Opacus has it: norms are float32, and a subject must not exceed the bound


def train(
    module: nn.Module, dataset: Examples, loss: Loss, training: Training, privacy: SubjectPrivacy,
    *, key: bytes, seed: int, ghost: bool | None = None, vary: Vary | None = None,
) -> TrainResult:  # fmt: skip
    """Train a copy of ``module`` for ``privacy.steps``, bit for bit the same for the same key.

    ``key``: 32 secret bytes from which samples and noise are drawn; who has them can take the
    noise away. ``seed``: of what is no secret (dropout, mirroring, where a patch lies, ``vary``).
    ``module`` must be fit for it, as ``models.mend`` leaves it; ``loss`` is called for one subject
    at a time. ``ghost`` overrides the choice of ghost clipping. ``vary``: as in ``local.train``;
    what becomes of a subject must not depend on the others of its batch. In the result all modules
    count as trained, by all N subjects.

    Raises DataError when the dataset is empty, ConfigError when the module gives no gradients of
    single subjects or changes its buffers, PermanentError when a gradient is not finite.
    """
    local.require_examples(dataset)
    compute = Compute.choose(training.device, mixed_precision=False)
    uniforms, normals = keyed_uniforms(key, "sample"), keyed_normals(key, "noise")
    module, taken = copy.deepcopy(module), seen(dataset, training, seed=seed)
    with reproducible(seed, training.threads):
        compute.place(module)
        module.train()
        buffers = [buffer.clone() for buffer in module.buffers()]
        how = (privacy, compute, training.batch_size, ghost, vary)
        with _Gradients(module, loss, *how) as gradients:
            trainable = gradients.trainable
            shared = {name: p for name, p in trainable.items() if not training.stays(name)}
            start = {name: parameter.detach().clone() for name, parameter in shared.items()}
            optimizer = local.optimizer(trainable, training)
            for _ in range(privacy.steps):
                chosen = np.flatnonzero(uniforms(len(dataset)) < privacy.sampling_rate)
                sums = gradients.clipped_sum(taken, chosen.tolist())
                expected = privacy.sampling_rate * len(dataset)
                for name, parameter in trainable.items():
                    noise = torch.from_numpy(normals(parameter.numel())).view(parameter.shape)
                    total = sums[name].cpu() + privacy.noise_multiplier * privacy.clip_norm * noise
                    parameter.grad = (total / expected).to(parameter)
                _add_proximal(shared, start, training.proximal_mu)
                optimizer.step()
        _require_unchanged(module, buffers)
        params = get_params(module)
    trained = dict.fromkeys(sorted(map(module_of, trainable)), len(dataset))
    return TrainResult(params, trained, len(dataset), {"steps": float(privacy.steps)})


class _Gradients:
    """Sums of clipped gradients of single subjects; a context in which the module has hooks."""

    def __init__(
        self, module: nn.Module, loss: Loss, privacy: SubjectPrivacy, compute: Compute,
        batch_size: int, ghost: bool | None, vary: Vary | None,
    ) -> None:  # fmt: skip
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self.trainable = dict(sorted(named))  # in the order in which noise is drawn
        self._loss, self._compute, self._batch_size = loss, compute, batch_size
        self._clip_norm, self._vary = privacy.clip_norm, vary
        held = 4 * batch_size * sum(p.numel() for p in self.trainable.values())
        self._ghost = held > GHOST_FROM if ghost is None else ghost
        self._module = self._hooked(module)
        self._sums: dict[str, Tensor] = {}

    def __enter__(self) -> _Gradients:
        return self

    def __exit__(self, *_: object) -> None:
        self._module.cleanup()

    def clipped_sum(self, dataset: Examples, chosen: Sequence[int]) -> dict[str, Tensor]:
        """Σ min(1, C/‖g_i‖)·g_i over the chosen, by parameter, float64; zeros if there is none."""
        self._sums = {
            name: torch.zeros_like(parameter, dtype=torch.float64)
            for name, parameter in self.trainable.items()
        }
        for inputs, targets in _batches(dataset, chosen, self._batch_size):
            self._forget()
            sent = self._compute.send(inputs)
            outputs = self._module(sent if self._vary is None else self._vary(sent))
            target = targets.to(self._compute.device)
            losses = torch.stack([
                self._loss(outputs[i : i + 1], target[i : i + 1]) for i in range(len(target))
            ])  # fmt: skip
            with warnings.catch_warnings():  # an input needs no gradient, and torch warns of it
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                self._add_by_norms(losses) if self._ghost else self._add_held(losses)
        self._forget()
        return self._sums

    def _hooked(self, module: nn.Module) -> Any:
        try:
            if self._ghost:
                return GradSampleModuleFastGradientClipping(
                    module, loss_reduction="sum", strict=False, max_grad_norm=self._clip_norm
                )
            return GradSampleModule(module, loss_reduction="sum", strict=False)
        except Exception as error:  # Opacus raises many kinds
            raise ConfigError(
                f"task.model gives no gradients of single subjects: {error}"
            ) from error

    def _add_held(self, losses: Tensor) -> None:
        """Of a batch's losses (B,): every subject's gradient is held, then scaled and summed."""
        losses.sum().backward()  # type: ignore[no-untyped-call]
        held = {name: p.grad_sample for name, p in self._reached().items()}
        norms = [gradient.flatten(1).norm(dim=1) for gradient in held.values()]
        factors = self._factors(norms, len(losses))
        for name, gradient in held.items():
            self._sums[name] += torch.einsum("b,b...->...", factors, gradient)

    def _add_by_norms(self, losses: Tensor) -> None:
        """The same from norms alone: the second pass gives the scaled losses' gradient."""
        losses.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        reached = self._reached()
        norms = [p._norm_sample for p in reached.values()]
        factors = self._factors(norms, len(losses))
        for parameter in reached.values():
            parameter.grad = None
        self._module.disable_hooks()
        (losses * factors).sum().backward()  # type: ignore[no-untyped-call]
        self._module.enable_hooks()
        for name, parameter in reached.items():
            self._sums[name] += parameter.grad

    def _reached(self) -> dict[str, Any]:
        """The parameters that have a gradient, each also subject by subject.

        The others are those of modalities that nobody in the batch has.
        """
        reached = {name: p for name, p in self.trainable.items() if p.grad is not None}
        kind = "_norm_sample" if self._ghost else "grad_sample"
        for name, parameter in reached.items():
            if getattr(parameter, kind, None) is None:
                raise ConfigError(f"task.model: no gradient of single subjects for {name!r}")
        return reached

    def _factors(self, norms: Sequence[Tensor], size: int) -> Tensor:
        """min(1, C/‖g_i‖) (B,), with the norm over all parameters together."""
        if any(len(one) != size for one in norms):
            raise ConfigError(
                f"task.model: a layer saw other than the {size} subjects of its batch; the first "
                "axis of whatever a layer with parameters takes must be that of the subjects"
            )
        norm = torch.stack(list(norms)).norm(dim=0) if norms else torch.zeros(size)
        if not bool(norm.isfinite().all()):
            raise PermanentError(
                "the gradient of a subject is not finite: lower training.learning_rate, or look "
                "for values that are not finite in the data"
            )
        return (self._clip_norm / (norm + _TINY)).clamp(max=1.0)

    def _forget(self) -> None:
        for parameter in self.trainable.values():
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]
            parameter._norm_sample = None  # type: ignore[attr-defined]


def _batches(
    dataset: Examples, chosen: Sequence[int], size: int
) -> Iterator[tuple[Inputs, Tensor]]:
    collate = getattr(dataset, "collate", default_collate)
    for begin in range(0, len(chosen), size):
        yield collate([dataset[index] for index in chosen[begin : begin + size]])


def _add_proximal(trainable: dict[str, nn.Parameter], start: dict[str, Tensor], mu: float) -> None:
    """FedProx's term depends on params alone, so it is added after the noise."""
    if mu > 0:
        term = proximal(mu)(trainable, start)
        for parameter, more in zip(
            trainable.values(), torch.autograd.grad(term, list(trainable.values())), strict=True
        ):
            parameter.grad = more if parameter.grad is None else parameter.grad + more


def _require_unchanged(module: nn.Module, before: Sequence[Tensor]) -> None:
    for (name, buffer), old in zip(module.named_buffers(), before, strict=True):
        if buffer.is_floating_point() and not torch.equal(buffer, old):
            raise ConfigError(
                f"task.model: the buffer {name!r} changes while training, and would leave the site "
                "without noise; remove it, or register it as an integer that stays at the site"
            )
