"""Images varied while training, as scanners that no site has might show them.

Nobody can learn the scanner of a hospital that takes no part. What can be learnt is that contrast,
shading, noise and sharpness say nothing: *BigAug*, Zhang et al. 2020,
https://doi.org/10.1109/TMI.2020.2973595. What is varied is what scanners of the kind differ in: CT
is in Hounsfield units whoever made it, so its contrast stays.

Intensities alone change, so an outline stays where it was. Every subject is varied on its own, by
torch's generator: with the round's seed the same after a kill, and no subject touches another's
gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from fedcore.config.learning import Augmentation, Training
from fedcore.config.task import Kind, Task
from fedcore.errors import ConfigError
from fedcore.training.compute import Inputs

Vary = Callable[[Inputs], Inputs]
"""A batch's inputs, of the same names and shapes."""

_NOTHING: Mapping[Kind, float] = {"ct": 0.5, "fundus": 0.0}
"""What is no part of the patient (``data.intensities``); in other kinds, the darkest value."""

_KNOTS = 4  # of the field of the shading, along an axis
_TINY = 1e-6


def asked(training: Training, task: Task) -> Vary | None:
    """What the plan asks for; None = images as they are."""
    if training.augment is None:
        return None
    return partial(varied, training.augment, {n: m.kind for n, m in task.modalities.items()})


def varied(how: Augmentation, kinds: Mapping[str, Kind], inputs: Inputs) -> Inputs:
    """``inputs`` with the images of the modalities ``kinds`` varied; what else is there stays.

    An image that is the same everywhere, as that of a subject without the modality, stays too.
    Raises ConfigError where the dataset's images have no names.
    """
    if not isinstance(inputs, dict):
        raise ConfigError(
            "training: augment goes by the names of task.modalities, and task.dataset gives images "
            "without a name; give a dictionary, or remove augment"
        )
    with torch.no_grad():
        return {
            name: _varied(tensor, kinds[name], how) if name in kinds else tensor
            for name, tensor in inputs.items()
        }


def _varied(image: Tensor, kind: Kind, how: Augmentation) -> Tensor:
    """Images (B, C, X, Y, Z), of photos (B, C, X, Y), of one kind: what a detector does last is
    varied last."""
    nothing = _NOTHING.get(kind, _over_space(torch.amin, image))
    patient = image != nothing
    if kind == "mr":
        image = _contrast(image, how)
    if kind == "pet":
        image = image * (how.scale * torch.randn_like(_one(image))).exp()
    blur, noise = how.blur * torch.rand_like(_one(image)), how.noise * torch.rand_like(_one(image))
    image = image + blur * (_smooth(image) - image)
    deviation = _over_space(torch.std, image, correction=0)
    return image + patient * noise * deviation * torch.randn_like(image)


def _contrast(image: Tensor, how: Augmentation) -> Tensor:
    """Of another sequence and another coil, with the mean and the deviation that it had: what is
    normalised at a site is so whatever the scanner."""
    low, high = _over_space(torch.amin, image), _over_space(torch.amax, image)
    gamma = (how.gamma * torch.randn_like(_one(image))).exp()
    found = ((image - low) / (high - low).clamp(min=_TINY)) ** gamma * _shading(image, how)
    mean, deviation = _over_space(torch.mean, found), _over_space(torch.std, found, correction=0)
    scaled = (found - mean) / deviation.clamp(min=_TINY)
    spread = _over_space(torch.std, image, correction=0)
    return scaled * spread + _over_space(torch.mean, image)


def _shading(image: Tensor, how: Augmentation) -> Tensor:
    """A factor for each voxel (B, 1, X, Y, Z), smooth over the image."""
    knots = torch.randn(len(image), 1, *(_KNOTS,) * 3, device=image.device)
    return functional.interpolate(
        (how.shading * knots).exp(), size=image.shape[2:], mode="trilinear", align_corners=True
    )


def _smooth(image: Tensor) -> Tensor:
    """The mean over three voxels an axis, at an edge over those that there are."""
    pool = functional.avg_pool2d if image.ndim == 4 else functional.avg_pool3d
    return pool(image, 3, stride=1, padding=1, count_include_pad=False)


def _one(image: Tensor) -> Tensor:
    """A number for each subject (B, 1, …)."""
    return image[(slice(None), *(slice(1),) * (image.ndim - 1))]


def _over_space(of: Callable[..., Tensor], image: Tensor, **how: int) -> Tensor:
    """By subject and channel (B, C, 1, …)."""
    return of(image, dim=tuple(range(2, image.ndim)), keepdim=True, **how)
