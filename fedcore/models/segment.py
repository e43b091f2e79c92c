"""From the plan's task to a module that says of each voxel what it is.

An encoder per modality makes maps at several scales; at each scale they are fused over the
modalities that a subject has; one decoder goes back up. As HeMIS (Havaei et al. 2016,
https://arxiv.org/abs/1607.05194) and, at every scale, U-HVED (Dorent et al. 2019,
https://arxiv.org/abs/1907.11150) do it, without the latter's variational part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedcore.config.task import Task
from fedcore.errors import ConfigError
from fedcore.models.fusion import FLOOR
from fedcore.models.multimodal import Multimodal, mirrored


class MultimodalSegmenter(Multimodal):
    """Logits of each voxel's class from the modalities that the subject has."""

    def __init__(
        self, encoder: Mapping[str, nn.Module], fusion: Sequence[nn.Module], decoder: nn.Module,
        head: nn.Module, *, modality_dropout: float, flip: bool,
    ) -> None:  # fmt: skip
        super().__init__(encoder, modality_dropout=modality_dropout, flip=flip)
        self.fusion = nn.ModuleList(fusion)
        self.decoder = decoder
        self.head = head

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """``inputs`` as ``MultimodalClassifier`` takes them. Returns logits (B, K, X, Y, Z).

        An image whose ``present`` is 0 may hold anything; a modality that is not in ``inputs`` is
        not computed, and its encoder gets no gradient.
        """
        present = self._seen(inputs["present"] > 0.5)
        turned = self._turned(present)
        logits = self._logits(self._shown(inputs, present, turned), present)
        return mirrored(logits, turned)  # where the target is

    def _logits(self, images: Mapping[str, Tensor], present: Tensor) -> Tensor:
        columns = self._columns(present)
        has = torch.stack([columns[name] for name in images], dim=1)  # (B, M) of those given
        pyramids = [self.encoder[name](image) for name, image in images.items()]
        scales = zip(self.fusion, zip(*pyramids, strict=True), strict=True)
        fused = [fuse(torch.stack(maps, dim=1), has) for fuse, maps in scales]
        return self.head(self.decoder(fused))  # type: ignore[no-any-return]


class MeanFusion(nn.Module):
    """Maps (B, M, C, X, Y, Z), present (B, M) → the mean over those present (B, C, X, Y, Z).

    What stands in the maps of an absent modality never changes it; without any, it is zero.
    """

    def forward(self, maps: Tensor, present: Tensor) -> Tensor:
        weights = present.to(maps.dtype) / present.sum(dim=1, keepdim=True).clamp(min=1)
        maps = maps.masked_fill(~_by_map(present), 0.0)
        return (maps * _by_map(weights)).sum(dim=1)


class AttentionFusion(nn.Module):
    """As ``MeanFusion``, weighed at each voxel by a softmax of learnt scores; at first the mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv3d(channels, 1, kernel_size=1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]

    def forward(self, maps: Tensor, present: Tensor) -> Tensor:
        maps = maps.masked_fill(~_by_map(present), 0.0)
        scores = torch.stack([self.score(of) for of in maps.unbind(dim=1)], dim=1)
        attention = torch.softmax(scores.masked_fill(~_by_map(present), FLOOR), dim=1)
        return (attention * maps).sum(dim=1)


class MapEncoder(nn.Module):
    """(B, 1, X, Y, Z) → a map of each of ``widths`` channels, each half as fine as the last."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        pairs = zip([1, *widths], widths, strict=False)
        self.stages = nn.ModuleList(
            block(a, b, stride=1 if scale == 0 else 2) for scale, (a, b) in enumerate(pairs)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = [image]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


class Decoder(nn.Module):
    """Fused maps, finest first → one map as fine as the first (B, C, X, Y, Z) (U-Net, Ronneberger
    et al. 2015, https://arxiv.org/abs/1505.04597).

    The finest stage only mixes channels: at full size a convolution would cost more than all else.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        joints = list(pairwise(widths))
        self.stages = nn.ModuleList(
            block(fine + coarse, fine, size=1 if scale == 0 else 3)
            for scale, (fine, coarse) in enumerate(joints)
        )

    def forward(self, fused: Sequence[Tensor]) -> Tensor:
        *finer, found = fused
        for stage, fine in zip(reversed(self.stages), reversed(finer), strict=True):
            found = functional.interpolate(found, size=fine.shape[2:], mode="nearest")
            found = stage(torch.cat([fine, found], dim=1))
        return found


def block(channels_in: int, channels_out: int, *, stride: int = 1, size: int = 3) -> nn.Sequential:
    """Convolution, normalisation within a subject, activation. ``channels_out``: 4 divides it."""
    convolution = nn.Conv3d(
        channels_in, channels_out, size, stride=stride, padding=size // 2, bias=False
    )
    nn.init.kaiming_normal_(convolution.weight)
    normalisation = nn.GroupNorm(num_groups=4, num_channels=channels_out)
    return nn.Sequential(convolution, normalisation, nn.LeakyReLU(0.1, inplace=True))


def segmenter(
    task: Task,
    *,
    width: int = 8,
    scales: int = 4,
    fusion: Literal["mean", "attention"] = "mean",
    modality_dropout: float = 0.0,
    flip: bool = True,
) -> MultimodalSegmenter:
    """The built-in model of a segmentation. Its weights come from torch's generator.

    ``width``: channels of the finest maps, twice as many at each coarser of the ``scales``.
    ``modality_dropout``, ``flip``: as for ``build.classifier``. Raises ConfigError when an argument
    or the task does not fit.
    """
    modalities = tuple(task.modalities)
    if not modalities:
        raise ConfigError("task.modalities is empty: name at least one, or bring your own model")
    if width < 4 or width % 4 or scales < 2:
        raise ConfigError(
            "task.model: width must be a positive multiple of 4, and scales at least 2"
        )
    if not 0 <= modality_dropout < 1:
        raise ConfigError("task.model: modality_dropout must lie in [0, 1)")
    if fusion not in ("mean", "attention"):
        raise ConfigError(f"task.model: fusion {fusion!r} is unknown; use mean or attention")
    widths = [width * 2**scale for scale in range(scales)]
    fusions = [AttentionFusion(w) if fusion == "attention" else MeanFusion() for w in widths]
    return MultimodalSegmenter(
        {name: MapEncoder(widths) for name in modalities},
        fusions,
        Decoder(widths),
        nn.Conv3d(width, len(task.classes), kernel_size=1),
        modality_dropout=modality_dropout,
        flip=flip,
    )


def _by_map(present: Tensor) -> Tensor:
    return present.view(*present.shape, 1, 1, 1, 1)
