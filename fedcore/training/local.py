"""One site's part of a round: train on its examples, or score them.

Written for any module, dataset and loss: nothing here knows about images.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from fedcore.aggregation import statistics
from fedcore.config.learning import Training
from fedcore.errors import ConfigError, DataError, PermanentError
from fedcore.evaluation.overlap import spared
from fedcore.params import FloatArray, Params, module_of
from fedcore.seeds import derive
from fedcore.training.alignment import Features, Term
from fedcore.training.augment import Vary
from fedcore.training.compute import Compute, Inputs
from fedcore.training.emphasis import Emphasis, classes_of, emphasis, groups_of
from fedcore.training.objectives import proximal
from fedcore.training.patches import probabilities, seen
from fedcore.training.reproducible import reproducible
from fedcore.training.state import get_params
from fedcore.training.telling import Told, tell

Loss = Callable[[Tensor, Tensor], Tensor]


class Examples(Protocol):
    """A dataset: index → (inputs, target). A method ``collate(items)`` is used if there is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...


@dataclass(frozen=True)
class TrainResult:
    """What came of local training.

    ``params``: all of the module's. ``trained``: module name → examples that reached it, only for
    modules that a gradient reached; the others are as they were. ``measurements``: ``loss`` and
    ``loss_first`` (mean over the examples in the last and the first epoch, without the
    objective's term) and ``steps``. ``steps``: module name → steps that moved what the sites share
    of it. The statistics that the site tells (``aggregation.statistics``) are among the params, and
    count as trained by all examples; ``loss_before``, of the params before the round, is measured
    with them.
    """

    params: Mapping[str, FloatArray]
    trained: Mapping[str, int]
    num_examples: int
    measurements: Mapping[str, float]
    steps: Mapping[str, int] = field(default_factory=dict)


def train(
    module: nn.Module, dataset: Examples, loss: Loss, training: Training, *, seed: int,
    compute: Compute | None = None, correction: Params | None = None, min_cell: int = 1,
    tell_loss: bool = False, vary: Vary | None = None,
) -> TrainResult:  # fmt: skip
    """Train a copy of ``module`` for ``training.epochs``, bit for bit the same for the same seed.

    ``module`` stays as it is, so that nothing of a round (a counter, a cache) reaches the next one
    in a client that stays warm. ``compute`` overrides what ``training`` says of device and
    precision. ``correction`` is added to the gradients of the shared params that it names.
    ``min_cell``: subjects of the smallest group that is told of. ``tell_loss``: whether the loss
    before the round is wanted. ``vary``: what becomes of a batch's inputs before each step.

    Raises DataError when the dataset is empty, PermanentError when the loss is no longer finite.
    """
    compute = compute or _compute(training)
    module = copy.deepcopy(module)
    site = _Site.of(module, dataset, training)
    with reproducible(seed, training.threads), ExitStack() as stack:
        compute.place(module)
        taken = seen(dataset, training, seed=seed)
        told = _told(module, taken, loss, training, compute, site, min_cell, tell_loss)
        loader = _numbered(
            taken, training.batch_size, visits=training.visits,
            order=derive(seed, "order"), pin_memory=compute.is_gpu,
        )  # fmt: skip
        module.train()
        term = site.term(module, training, stack)
        losses, trained, steps, moved = list[float](), Counter[str](), 0, Counter[str]()
        for epochs, chosen in _phases(module, training):
            trainer = _Trainer(
                module, loss, training, compute, chosen, correction or {}, site.emphasis, term,
                vary,
            )  # fmt: skip
            for _ in range(epochs):
                mean, reached = trainer.epoch(loader, len(losses))
                losses.append(mean)
                trained |= reached
            steps += trainer.steps
            moved += trainer.steps_of
        params = {**get_params(module), **told.statistics}
    measurements = {"loss": losses[-1], "loss_first": losses[0], "steps": float(steps)}
    if tell_loss:
        measurements["loss_before"] = told.loss
    in_all = dict(sorted({**trained, **dict.fromkeys(told.statistics, len(dataset))}.items()))
    return TrainResult(params, in_all, len(dataset), measurements, dict(sorted(moved.items())))


def predict(
    module: nn.Module, dataset: Examples, training: Training, *, least: Sequence[int] = (),
    compute: Compute | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # fmt: skip
    """What evaluation counts from, a row a subject, in the dataset's order and full precision.

    Of logits (B, K): softmax scores (N, K) and targets (N,). Of logits of voxels (B, K, X, Y, Z):
    how many were called each class rightly and in all (N, K, 2), and are it (N, K), so that memory
    does not grow with the voxels; with ``training.patches`` of windows that cover the whole. A
    class that fewer than ``least[k]`` of a subject's voxels are called is not called at all. Raises
    DataError when the dataset is empty, ConfigError when the outputs are neither.
    """
    compute = compute or _compute(training)
    compute.place(module)
    module.eval()
    loader = _loader(dataset, training.batch_size, pin_memory=compute.is_gpu)
    found, targets = [], []
    with reproducible(0, training.threads), torch.inference_mode():
        for inputs, target in loader:
            if training.patches is None:
                outputs = module(compute.send(inputs))
            else:
                size = target.shape[1:]
                outputs = probabilities(module, inputs, size, training.patches, compute)
            rows, of = _rows(outputs, target.long(), least)
            found.append(rows)
            targets.append(of)
    return torch.cat(found).numpy(), torch.cat(targets).numpy()


def _rows(outputs: Tensor, target: Tensor, least: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What ``predict`` gives of one batch."""
    if outputs.dim() == 2 and target.dim() == 1:
        return outputs.double().softmax(dim=1).cpu(), target
    if outputs.dim() > 2 and outputs.shape[2:] == target.shape[1:]:
        if any(least):
            outputs = torch.from_numpy(spared(outputs.float().cpu().numpy(), least))
        return voxel_counts(outputs.argmax(dim=1).cpu(), target, outputs.shape[1])
    raise ConfigError(
        f"the model gives outputs of shape {tuple(outputs.shape)} for targets of shape "
        f"{tuple(target.shape)}; classification needs logits (batch, classes), a segmentation "
        "(batch, classes, X, Y, Z): check task.model in the plan"
    )


def voxel_counts(called: Tensor, target: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """By subject and class, voxels called so rightly and in all (B, K, 2), and that are it (B, K).

    >>> found, true = voxel_counts(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 1]]), 2)
    >>> found.tolist(), true.tolist()
    ([[[1.0, 1.0], [1.0, 2.0]]], [[2, 1]])
    """
    of_class = [(called == k, target == k) for k in range(classes)]
    found = [torch.stack([(c & t).flatten(1).sum(1), c.flatten(1).sum(1)], 1) for c, t in of_class]
    true = [t.flatten(1).sum(1) for _, t in of_class]
    return torch.stack(found, dim=1).double(), torch.stack(true, dim=1)


def batches(dataset: Examples, size: int) -> Iterable[tuple[Any, Tensor]]:
    """All of the dataset, in its order. Raises DataError if it is empty."""
    return _loader(dataset, size)


def first_batch(dataset: Examples, training: Training) -> tuple[Inputs, Tensor]:
    """Inputs and targets of the dataset's first examples, as a step takes them: with
    ``training.patches`` a patch of each. Raises DataError if the dataset is empty."""
    inputs, targets = next(iter(_loader(seen(dataset, training, seed=0), training.batch_size)))
    return inputs, targets


def input_shapes(dataset: Examples) -> dict[str, tuple[int, ...]]:
    """The shape of every model input, without the batch; a lone tensor is called "input".

    With a "present" column per modality, looks on until an example of each modality was found.
    Raises DataError if the dataset is empty.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for inputs, _ in _loader(dataset, batch_size=1):
        named = inputs if isinstance(inputs, dict) else {"input": inputs}
        shapes |= {name: tuple(tensor.shape[1:]) for name, tensor in named.items()}
        if "present" not in shapes or len(shapes) > shapes["present"][0]:
            break
    return shapes


def require_examples(dataset: Examples) -> None:
    """Raises DataError if the dataset is empty."""
    if len(dataset) == 0:
        raise DataError(
            "the dataset is empty: check that the site's subjects have the plan's modalities, "
            "a label among task.classes and consent, and what was left out and why",
            reason="empty",
        )


def _phases(module: nn.Module, training: Training) -> list[tuple[int, set[str]]]:
    """Epochs, and the names of the parameters that they train, one phase after the other.

    With ``local_epochs`` those of FedRep (Collins et al. 2021, Algorithm 1,
    https://arxiv.org/abs/2102.07078): the local ones on the shared ones as they came, then the
    shared ones on that. Raises ConfigError if a phase has nothing to train.
    """
    names = {name for name, p in module.named_parameters() if p.requires_grad}
    if training.local_epochs == 0:
        return [(training.epochs, names)]
    local = {name for name in names if training.stays(name)}
    for what, chosen in (("no", local), ("every", names - local)):
        if not chosen:
            raise ConfigError(
                f"training: local_epochs with {what} trainable parameter among training.local; "
                "correct the patterns, or remove local_epochs"
            )
    return [(training.local_epochs, local), (training.epochs, names - local)]


@dataclass(frozen=True)
class _Site:
    """What of a site's examples the plan goes by, beside the examples themselves."""

    emphasis: Emphasis
    classes: Tensor | None
    groups: Sequence[str] | None

    @classmethod
    def of(cls, module: nn.Module, dataset: Examples, training: Training) -> _Site:
        require_examples(dataset)
        classes, groups = classes_of(dataset, training), groups_of(dataset, training)
        known = {name: b.cpu().numpy() for name, b in module.named_buffers(recurse=False)}
        return cls(emphasis(training, classes, groups, known), classes, groups)

    def term(self, module: nn.Module, training: Training, stack: ExitStack) -> Term | None:
        """What is added to a batch's loss while the ``stack`` is open."""
        if training.alignment is None or self.classes is None:
            return None
        features = stack.enter_context(Features(module, training.alignment))
        target = module.get_buffer(statistics.MOMENTS).clone()
        return Term(features, training.alignment, target, self.classes)


def _told(
    module: nn.Module, dataset: Examples, loss: Loss, training: Training, compute: Compute,
    site: _Site, min_cell: int, tell_loss: bool,
) -> Told:  # fmt: skip
    """What the plan has the site tell; nothing is looked at where it asks for nothing."""
    if not tell_loss and not training.statistics:
        return Told()
    return tell(
        module, _numbered(dataset, training.batch_size), loss, training, site.emphasis,
        classes=site.classes, groups=site.groups, compute=compute, min_cell=min_cell,
    )  # fmt: skip


class _Trainer:
    """The state of one phase: optimiser, scaler, the point it started from.

    Of the module's parameters only the ``chosen`` require a gradient from here on.
    """

    def __init__(
        self, module: nn.Module, loss: Loss, training: Training, compute: Compute,
        chosen: set[str], correction: Params, emphasis: Emphasis, term: Term | None,
        vary: Vary | None,
    ) -> None:  # fmt: skip
        self.module, self.loss, self.compute = module, loss, compute
        self.emphasis, self.term, self.vary = emphasis, term, vary
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in chosen)
        self.trainable = {n: p for n, p in module.named_parameters() if p.requires_grad}
        # A local parameter has no global one to stay near.
        shared = {name: p for name, p in self.trainable.items() if not training.stays(name)}
        self.start = {name: p.detach().clone() for name, p in shared.items()}
        self.correction = {
            name: torch.tensor(correction[name]).to(p)
            for name, p in shared.items()
            if name in correction
        }
        self.objective = proximal(training.proximal_mu) if training.proximal_mu > 0 else None
        self.optimizer = optimizer(self.trainable, training)
        self.scaler = compute.scaler()
        self.visits = training.visits
        self.moved: set[str] = set()
        self.steps, self.steps_of = 0, Counter[str]()

    def epoch(self, loader: DataLoader[Any], epoch: int) -> tuple[float, Counter[str]]:
        """Mean loss over the examples, and how many examples reached each module."""
        losses, sizes, examples = [], [], Counter[str]()
        for inputs, target, index in loader:
            loss, reached = self.step(inputs, target, index)
            losses.append(loss)
            sizes.append(len(target))
            examples += _examples(reached, inputs, len(target), self.module)
        # Read once an epoch, because reading a loss makes the CPU wait for the GPU.
        values = torch.stack(losses).double().cpu().numpy()
        for step in np.flatnonzero(~np.isfinite(values)):
            raise PermanentError(
                f"the loss became {values[step]} in step {step + 1} of epoch {epoch + 1}: lower "
                "training.learning_rate, or look for values that are not finite in the data"
            )
        # Rounded up, because a module that was reached by one visit of several was trained.
        once = {name: -(-number // self.visits) for name, number in examples.items()}
        return float(np.average(values, weights=sizes)), Counter(once)

    def step(self, inputs: Inputs, target: Tensor, index: Tensor) -> tuple[Tensor, set[str]]:
        """One optimiser step: the loss, left on the device, and the modules it reached.

        ``index``: the numbers of the examples (B,).
        """
        self.optimizer.zero_grad(set_to_none=True)
        inputs = self.compute.send(inputs)
        if self.vary is not None:
            inputs = self.vary(inputs)
        with self.compute.autocast():
            outputs = self.module(inputs)
            target = target.to(self.compute.device, non_blocking=True)
            loss = self.emphasis.loss(self.loss, outputs, target, index)
        term = None if self.term is None else self.term(index)
        whole = loss if term is None else loss + term
        self.scaler.scale(whole).backward()  # type: ignore[no-untyped-call]
        reached = {module_of(name) for name, p in self.trainable.items() if p.grad is not None}
        self.moved |= reached
        if self.objective is not None:
            # Elsewhere its gradient is zero; adding it would make those modules look trained.
            moved = {n: self.trainable[n] for n in self.start if module_of(n) in self.moved}
            if moved:
                self.scaler.scale(self.objective(moved, self.start)).backward()  # type: ignore[no-untyped-call]
        for name, more in self.correction.items():
            gradient = self.trainable[name].grad
            if gradient is not None:
                gradient.add_(more)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.steps += 1
        now = reached if self.objective is None else self.moved
        self.steps_of.update(now & {module_of(name) for name in self.start})
        return loss.detach(), reached


def _examples(reached: set[str], inputs: Inputs, size: int, module: nn.Module) -> Counter[str]:
    """How many examples of one batch each of the modules that were ``reached`` saw.

    All of them, but for the encoder of a modality that has a column in ``inputs["present"]``
    (named, in order, by the module's attribute ``modalities``): it saw the subjects marked there.
    """
    counts = dict.fromkeys(reached, size)
    modalities = getattr(module, "modalities", None)
    if modalities and isinstance(inputs, dict) and "present" in inputs:
        columns = inputs["present"].sum(dim=0).tolist()
        seen = {f"encoder.{m}": int(n) for m, n in zip(modalities, columns, strict=True)}
        counts |= {name: number for name, number in seen.items() if name in reached}
    return Counter(counts)


class _Numbered:
    """The same examples, each with its number: what is known of it beside goes by that.

    ``visits``: how often each of them is there.
    """

    def __init__(self, dataset: Examples, visits: int) -> None:
        self._dataset, self._visits = dataset, visits
        self._collate = getattr(dataset, "collate", default_collate)

    def __len__(self) -> int:
        return len(self._dataset) * self._visits

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        number = index % len(self._dataset)
        return self._dataset[number], number

    def collate(self, items: Sequence[tuple[Any, int]]) -> tuple[Any, Tensor, Tensor]:
        inputs, target = self._collate([example for example, _ in items])
        return inputs, target, torch.tensor([index for _, index in items])


def _numbered(
    dataset: Examples, batch_size: int, *, visits: int = 1, **how: Any
) -> DataLoader[Any]:
    """As ``_loader``, with the numbers of the examples (B,) beside each batch, each ``visits``
    times."""
    require_examples(dataset)
    return _loader(_Numbered(dataset, visits), batch_size, **how)


def _loader(
    dataset: Examples, batch_size: int, *, order: int | None = None, pin_memory: bool = False
) -> DataLoader[Any]:
    """Batches in the dataset's order, or in the random order that the seed ``order`` gives."""
    require_examples(dataset)
    return DataLoader(
        cast(Dataset[Any], dataset),
        batch_size=batch_size,
        shuffle=order is not None,
        generator=None if order is None else torch.Generator().manual_seed(order),
        collate_fn=getattr(dataset, "collate", default_collate),
        pin_memory=pin_memory,
    )


def optimizer(parameters: Mapping[str, nn.Parameter], training: Training) -> torch.optim.Optimizer:
    """The plan's optimiser over these parameters, anew, each at the plan's rate for its name."""
    by_rate: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        by_rate.setdefault(training.rate_of(name), []).append(parameter)
    match training.optimizer:
        case "sgd":
            kind: type[torch.optim.Optimizer] = torch.optim.SGD
        case "adam":
            kind = torch.optim.Adam
        case "adamw":
            kind = torch.optim.AdamW
    groups = [{"params": group, "lr": rate} for rate, group in by_rate.items()]
    settings: dict[str, Any] = {"weight_decay": training.weight_decay}
    return kind(groups, **settings)


def _compute(training: Training) -> Compute:
    return Compute.choose(training.device, mixed_precision=training.mixed_precision)
