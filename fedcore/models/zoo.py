"""MONAI's encoders by name. The only importer of MONAI's networks.

All are normalised within a subject (GroupNorm in place of MONAI's BatchNorm), for the reasons that
``encoders.stage`` gives, and end in a linear map to ``features``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedcore.errors import ConfigError

GROUPS = 8
"""Of channels that are normalised together, where their number is a multiple of it."""


def zoo_encoder(
    name: str, features: int, *, channels: int, dimensions: int, arguments: Mapping[str, Any]
) -> nn.Module:
    """The encoder of this name: (B, channels, X, Y[, Z]) → (B, features).

    ``arguments``: of MONAI's class. Raises ConfigError where the name or an argument is unknown, or
    MONAI is not installed.
    """
    if name not in NAMES:
        raise ConfigError(
            f"task.model: there is no encoder {name!r}; use conv, or one of {', '.join(NAMES)}"
        )
    try:
        return _without_batch_norm(_MAKERS[name](features, channels, dimensions, arguments))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"task.model: the encoder {name!r} needs {error.name}, which is not installed here; "
            "install fedcore[client], or use conv"
        ) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"task.model: the encoder {name!r} cannot be made: {error}") from error


class SegResEncoder(nn.Module):
    """The encoder of SegResNet (Myronenko 2018, https://arxiv.org/abs/1810.11654), pooled by mean
    and maximum, and a linear map."""

    def __init__(self, maps: nn.Module, channels: int, features: int) -> None:
        super().__init__()
        self.maps = maps
        self.project = nn.Linear(2 * channels, features)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.maps(image)[-1].flatten(2)
        return self.project(torch.cat([maps.mean(dim=2), maps.amax(dim=2)], dim=1))  # type: ignore[no-any-return]


def _resnet(
    features: int, channels: int, dimensions: int, arguments: Mapping[str, Any],
    *, block: str, layers: list[int],
) -> nn.Module:  # fmt: skip
    """He et al. 2016 (https://arxiv.org/abs/1512.03385)."""
    from monai.networks.nets.resnet import ResNet

    given: dict[str, Any] = {"block_inplanes": [64, 128, 256, 512], **arguments}
    return ResNet(
        block, layers, spatial_dims=dimensions, n_input_channels=channels, num_classes=features,
        **given,
    )  # fmt: skip


def _densenet(
    features: int, channels: int, dimensions: int, arguments: Mapping[str, Any],
    *, blocks: tuple[int, ...],
) -> nn.Module:  # fmt: skip
    """Huang et al. 2017 (https://arxiv.org/abs/1608.06993)."""
    from monai.networks.nets.densenet import DenseNet

    given: dict[str, Any] = {"block_config": blocks, **arguments}
    return DenseNet(dimensions, channels, features, **given)


def _segresnet(
    features: int, channels: int, dimensions: int, arguments: Mapping[str, Any]
) -> nn.Module:
    from monai.networks.nets.segresnet_ds import SegResEncoder as Maps

    maps = Maps(spatial_dims=dimensions, in_channels=channels, **arguments)
    deepest = maps.init_filters * 2 ** (len(maps.blocks_down) - 1)
    return SegResEncoder(maps, deepest, features)


def _without_batch_norm(module: nn.Module) -> nn.Module:
    """GroupNorm in its place. (MONAI's argument for it does not reach a ResNet's blocks.)"""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            channels = child.num_features
            setattr(module, name, nn.GroupNorm(math.gcd(GROUPS, channels), channels))
        else:
            _without_batch_norm(child)
    return module


_MAKERS: Mapping[str, Callable[..., nn.Module]] = {
    "resnet10": partial(_resnet, block="basic", layers=[1, 1, 1, 1]),
    "resnet18": partial(_resnet, block="basic", layers=[2, 2, 2, 2]),
    "resnet34": partial(_resnet, block="basic", layers=[3, 4, 6, 3]),
    "resnet50": partial(_resnet, block="bottleneck", layers=[3, 4, 6, 3]),
    "densenet121": partial(_densenet, blocks=(6, 12, 24, 16)),
    "densenet169": partial(_densenet, blocks=(6, 12, 32, 32)),
    "densenet201": partial(_densenet, blocks=(6, 12, 48, 32)),
    "segresnet": _segresnet,
}

NAMES = tuple(_MAKERS)
