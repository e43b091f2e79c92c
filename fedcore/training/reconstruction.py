"""How far a generative model's images are from the true ones, subject by subject."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedcore.config.learning import Training
from fedcore.training.compute import Compute
from fedcore.training.local import Examples, batches
from fedcore.training.reproducible import reproducible


class Reconstructs(Protocol):
    """A module that has a word on every image of a subject."""

    modalities: tuple[str, ...]

    def expected(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every modality's images as the subject's own let expect them, of the inputs' shapes."""


def errors(
    module: nn.Module, dataset: Examples, training: Training
) -> dict[str, NDArray[np.float64]]:
    """Modality → mean squared error (N,) of each image, of the subjects who have the modality.

    ``module`` must reconstruct. Raises DataError when the dataset is empty.
    """
    compute = Compute.choose(training.device, mixed_precision=False)
    compute.place(module)
    module.eval()
    reconstructs = cast(Reconstructs, module)
    found = defaultdict[str, list[Tensor]](list)
    with reproducible(0, training.threads), torch.inference_mode():
        for inputs, _ in batches(dataset, training.batch_size):
            images: Any = compute.send(inputs)
            expected = reconstructs.expected(images)
            for name, has in zip(reconstructs.modalities, images["present"].T > 0.5, strict=True):
                if name in images:
                    difference = (expected[name] - images[name])[has]
                    found[name].append(difference.square().flatten(1).mean(dim=1).double().cpu())
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}
