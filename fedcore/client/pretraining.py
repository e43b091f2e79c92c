"""Before a site joins: its encoders learn to reconstruct its own images, at the site.

In the first rounds of a run, a client first trains an autoencoder from the round's global encoder,
the same at all sites, on its own training subjects' images, and begins the round's training from
the encoder that comes of it. What it learnt is part of the round's update, with all that protects
one; the decoder never leaves this function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import default_collate

from fedcore import seeds
from fedcore.config.learning import Training
from fedcore.config.plan import Plan
from fedcore.errors import ConfigError
from fedcore.models.autoencoder import Autoencoder
from fedcore.params import FloatArray
from fedcore.records import TrainOrder
from fedcore.training import local


def pretrained(
    plan: Plan, order: TrainOrder, module: nn.Module, dataset: Any, min_cell: int
) -> tuple[dict[str, FloatArray], dict[str, float]]:
    """Params of ``module`` that pre-training changed, by name; and what it reached by modality: the
    number of images, and their mean squared error in the first and the last epoch.

    Nothing in later rounds, and nothing of a modality that no training subject of the site has. Of
    fewer than ``min_cell`` images no error is told. The same for the same order and data.
    ``module`` stays as it is. Raises ConfigError where it has no encoder of that name that is
    trained.
    """
    how, changed, errors = plan.training.pretraining, dict[str, FloatArray](), dict[str, float]()
    if how is None or order.round_num >= how.rounds:
        return changed, errors
    for modality in sorted(how.modalities):
        encoder = _encoder(module, modality)
        images = _Images(dataset, modality, module.modalities)  # type: ignore[arg-type]
        if len(images) == 0:
            continue
        seed = seeds.derive(plan.seed, "pretrain", order.site, order.round_num, modality)
        training = Training(
            epochs=how.epochs, learning_rate=how.learning_rate,
            batch_size=plan.training.batch_size, device=plan.training.device,
            threads=plan.training.threads,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            # All sites' decoders begin alike, so that encoders are pulled the same way.
            torch.manual_seed(seeds.derive(plan.seed, "decoder", modality))
            autoencoder = Autoencoder(encoder, images[0][1].shape)
        result = local.train(autoencoder, images, mse_loss, training, seed=seed)
        for name, array in result.params.items():
            if name.startswith("trunk."):
                changed[f"encoder.{modality}.{name.removeprefix('trunk.')}"] = array
        if len(images) >= min_cell:
            errors[f"pretraining.{modality}.images"] = float(len(images))
            errors[f"pretraining.{modality}.first"] = result.measurements["loss_first"]
            errors[f"pretraining.{modality}.last"] = result.measurements["loss"]
    return changed, errors


def _encoder(module: nn.Module, modality: str) -> nn.Module:
    try:
        encoder = module.get_submodule(f"encoder.{modality}")
    except AttributeError:
        raise ConfigError(
            f"training: pretraining: the model has no module encoder.{modality}; use "
            "fedcore.models.build:classifier, or remove pretraining"
        ) from None
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ConfigError(
            f"training: pretraining of {modality!r} changes what training.freeze keeps; remove one"
        )
    return encoder


class _Images:
    """The images of one modality, each its own target, of the subjects that have it.

    ``columns``: the modalities, in the order of "present".
    """

    def __init__(self, dataset: Any, modality: str, columns: Sequence[str]) -> None:
        self._dataset, self._modality, self._columns = dataset, modality, columns
        self._collate = getattr(dataset, "collate", default_collate)
        self._subjects = [n for n in range(len(dataset)) if modality in self._inputs(n)]

    def __len__(self) -> int:
        return len(self._subjects)

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        image = self._inputs(self._subjects[index])[self._modality][0]
        return image, image

    def _inputs(self, number: int) -> dict[str, Tensor]:
        """Of one subject, without what it lacks."""
        inputs, _ = self._collate([self._dataset[number]])
        has = dict(zip(self._columns, (inputs["present"][0] > 0.5).tolist(), strict=True))
        return {name: tensor for name, tensor in inputs.items() if has.get(name)}
