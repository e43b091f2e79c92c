"""Training on parts of a subject's grid, and whole answers from a model that learnt on such."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import default_collate

from fedcore.config.learning import Patches, Training
from fedcore.errors import ConfigError
from fedcore.seeds import generator
from fedcore.training.compute import Compute, Inputs
from fedcore.windows import Place, blend


def seen(dataset: Any, training: Training, *, seed: int) -> Any:
    """The examples as a step takes them: whole, or a patch of each if the plan says so."""
    return dataset if training.patches is None else _Cut(dataset, training.patches, seed)


def probabilities(
    module: nn.Module, inputs: Inputs, size: Sequence[int], how: Patches, compute: Compute
) -> Tensor:
    """Of whole volumes of ``size``, window by window: (B, K, X, Y, Z), in main memory.

    Probabilities are blended and not logits, because an export gives probabilities.
    """

    def answer(place: Place) -> NDArray[np.float32]:
        logits: Tensor = module(compute.send(_part(inputs, size, place)))
        return logits.softmax(dim=1).float().cpu().numpy()

    return torch.from_numpy(blend(size, answer, patch=how.shape, overlap=how.overlap))


class _Cut:
    """The same examples, of each a patch: another one every time that it is asked for.

    Where it lies follows from the seed, the example's number and how often it was asked for before.
    No other example has a part in it: with ``privacy.subject`` a subject must move nobody else's
    gradient.
    """

    def __init__(self, dataset: Any, how: Patches, seed: int) -> None:
        self._dataset, self._how, self._seed = dataset, how, seed
        self._asked = Counter[int]()
        self.collate = getattr(dataset, "collate", default_collate)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        inputs, target = self._dataset[index]
        random = generator(self._seed, "patch", index, self._asked[index])
        self._asked[index] += 1
        place = a_place(np.asarray(target), self._how, random)
        return _part(inputs, target.shape, place), target[place]


def a_place(target: NDArray[Any], how: Patches, random: np.random.Generator) -> Place:
    """Where a patch lies, of a subject whose voxels' classes are ``target`` (X, Y, Z).

    Around a voxel of a structure, with the chance ``how.foreground`` and if the subject has one:
    first the structure is drawn, so that a small one is seen as often as a large one. Else
    anywhere. Raises ConfigError if there are no voxels' classes, or fewer than a patch has.
    """
    if target.ndim != 3 or any(np.less(target.shape, how.shape)):
        raise ConfigError(
            f"training: patches of {list(how.shape)} voxels cannot be cut from targets of shape "
            f"{list(target.shape)}; lower patches.shape, or remove patches"
        )
    last = np.subtract(target.shape, how.shape)
    structures = np.flatnonzero(np.bincount(target.ravel())[1:]) + 1
    if len(structures) and random.random() < how.foreground:
        voxels = np.flatnonzero(target == random.choice(structures))
        middle = np.unravel_index(random.choice(voxels), target.shape)
        begin = np.clip(np.subtract(middle, np.floor_divide(how.shape, 2)), 0, last)
    else:
        begin = random.integers(0, last, endpoint=True)
    x, y, z = (slice(at, at + n) for at, n in zip(begin.tolist(), how.shape, strict=True))
    return x, y, z


def _part(inputs: Any, size: Sequence[int], place: Place) -> Any:
    """What lies at the place, of every input on the grid of ``size``; the others as they are."""
    if isinstance(inputs, dict):
        return {name: _part(one, size, place) for name, one in inputs.items()}
    return inputs[(..., *place)] if tuple(inputs.shape[-3:]) == tuple(size) else inputs
