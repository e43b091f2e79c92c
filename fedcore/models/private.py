"""A model for private training: fixed features of a head scan, and a small linear map on them.

The noise of DP-SGD has the norm z·C·√d over d trainable params, the sum of N clipped gradients at
most C·N. With a few dozen subjects a site, a network of 25,000 params drowns. So nothing is learnt
but the last map, of some hundred params, from features that ask for no data (Tramèr and Boneh
2021, https://arxiv.org/abs/2011.11660): what a radiologist looks for, put as arithmetic.

**Features.** A blob of the size of a tumour stands out in a difference of two Gaussians. For each
modality and each region of the head, the brightest and the darkest blob count: by how much they
exceed what a healthy head shows there, which is nothing for most. Healthy are ``HEALTHY``'s
constants, from the public MNI152 template, not from a patient: with the anatomy taken away, what is
left of a scan is the lesion, and subjects differ by little else. Then the vector of a subject is
scaled to a norm below ``GAIN``, on its own, so that no subject is louder than another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fedcore.config.task import Task
from fedcore.errors import ConfigError

NARROW_MM, WIDE_MM = 6.0, 12.0
"""Of the two Gaussians: their difference answers most to blobs of about 9 mm radius and more."""

REGIONS = ("head", "deep", "convexity", "sella")

HEALTHY: Mapping[str, Sequence[tuple[float, float]]] = {
    "ct": ((0.039, 0.093), (0.032, 0.090), (0.027, 0.032), (0.028, 0.012)),
    "flair": ((0.679, 0.790), (0.296, 0.765), (0.415, 0.161), (0.107, 0.615)),
    "pet": ((0.111, 0.111), (0.071, 0.075), (0.081, 0.029), (0.026, 0.096)),
    "t1ce": ((0.696, 0.790), (0.405, 0.790), (0.459, 0.179), (0.045, 0.476)),
}
"""Modality → by region, the largest difference of the Gaussians, and of its negative.

Of the MNI152 head with each tissue in the middle of its usual range, as normalised images have it
(CT in a window of 0 to 80 HU, FDG-PET of 0 to 12 SUV). The test recomputes them.
"""

SPREAD, MARGIN, MOST = 0.1, 2.0, 20.0
"""A healthy head's own spread, as a share of its largest response; how many spreads are no finding
yet, and above how many one is no clearer."""

GAIN, SOFTNESS = 4.0, 3.0
"""The norm that many findings approach, and how many spreads of them make it half of that."""


class Findings(nn.Module):
    """Images (B, 1, X, Y, Z) of one modality → (B, 2·regions), 0 where nothing is out of the usual.

    ``shape``, ``spacing_mm``: the images' grid, whose middle is about the head's. Nothing here is
    trained, and what is kept is of whole numbers, so that it is not among the params.
    """

    regions: Tensor

    def __init__(
        self, shape: Sequence[int], spacing_mm: float, healthy: Sequence[tuple[float, float]]
    ) -> None:
        super().__init__()
        # Not buffers, which would be among the params.
        self._narrow = [_gaussian(size, NARROW_MM / spacing_mm) for size in shape]
        self._wide = [_gaussian(size, WIDE_MM / spacing_mm) for size in shape]
        self._healthy = [value for pair in healthy for value in pair]
        self.register_buffer("regions", (regions(shape, spacing_mm) * 255).round().byte())

    def forward(self, image: Tensor) -> Tensor:
        excess = (self.responses(image) - image.new_tensor(self._healthy)) / self._spread
        return (excess - MARGIN).clamp(0.0, MOST)

    def responses(self, image: Tensor) -> Tensor:
        """By region, the largest difference of the Gaussians and of its negative (B, 2·regions)."""
        blobs = _thinned(image, self._narrow) - _thinned(image, self._wide)
        weighed = blobs * (self.regions.to(blobs.dtype) / 255)  # (B, regions, X/2, Y/2, Z/2)
        bright = weighed.amax(dim=(2, 3, 4))
        dark = (-weighed).amax(dim=(2, 3, 4))
        return torch.stack([bright, dark], dim=2).flatten(1)

    @property
    def _spread(self) -> float:
        return SPREAD * max(self._healthy)


class FindingsClassifier(nn.Module):
    """Logits of a subject's class from the findings in the modalities that the subject has."""

    def __init__(self, findings: Mapping[str, Findings], classes: int) -> None:
        super().__init__()
        self.modalities = tuple(findings)
        self.findings = nn.ModuleDict(findings)
        self.head = nn.Linear(2 * len(REGIONS) * len(findings), classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """As ``MultimodalClassifier``: images by name, "present" (B, M); logits (B, K)."""
        present = inputs["present"] > 0.5
        columns = zip(self.modalities, present.unbind(dim=1), strict=True)
        found = torch.cat([self._of(name, inputs, has) for name, has in columns], dim=1)
        norm = (found.square().sum(dim=1, keepdim=True) + SOFTNESS**2).sqrt()
        return self.head(GAIN * found / norm)  # type: ignore[no-any-return]

    def _of(self, name: str, inputs: dict[str, Tensor], has: Tensor) -> Tensor:
        """What one modality shows (B, 2·regions), 0 for a subject that lacks it."""
        if name not in inputs:
            return torch.zeros(len(has), 2 * len(REGIONS), device=has.device)
        lacks = ~has.view(-1, 1, 1, 1, 1)
        found = self.findings[name](inputs[name].masked_fill(lacks, 0.0))
        return found * has.unsqueeze(1)  # type: ignore[no-any-return]


def findings_classifier(
    task: Task,
    *,
    shape: Sequence[int],
    spacing_mm: float,
    healthy: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> FindingsClassifier:
    """The model of a task of head scans. Trained are ``8·modalities + 1`` params a class, from 0.

    ``shape``, ``spacing_mm``: as the dataset has them, the grid's middle at about the head's.
    ``healthy``: what ``HEALTHY`` has, for other modalities, as normalised images have it. Raises
    ConfigError when it lacks a modality of the task.
    """
    known = {**HEALTHY, **(healthy or {})}
    unknown = sorted(set(task.modalities) - set(known))
    if unknown or not task.modalities:
        raise ConfigError(
            f"task.model: what a healthy head shows in {', '.join(unknown) or 'no modality'} is "
            "not known; give it as the argument healthy, or name modalities among "
            f"{', '.join(HEALTHY)}"
        )
    if len(shape) != 3 or min(shape) < 8 or not spacing_mm > 0:
        raise ConfigError("task.model: shape wants three sizes of 8 or more, spacing_mm a length")
    return FindingsClassifier(
        {name: Findings(shape, spacing_mm, known[name]) for name in task.modalities},
        len(task.classes),
    )


def regions(shape: Sequence[int], spacing_mm: float) -> Tensor:
    """Where in the head (R, X/2, Y/2, Z/2), in [0, 1] with soft edges, in the order of REGIONS.

    The brain is an ellipsoid with half-axes of 70, 88 and 68 mm, 10 mm below the middle of the
    field of view, the sella 22 mm before and 42 mm below that.
    """
    x, y, z = torch.meshgrid(
        *((torch.arange(0, n, 2) - (n - 1) / 2) * spacing_mm for n in shape), indexing="ij"
    )
    radius = ((x / 70) ** 2 + (y / 88) ** 2 + ((z + 10) / 68) ** 2).sqrt()

    def within(distance: Tensor, softness: float) -> Tensor:
        return torch.sigmoid(-distance / softness)

    head = within(radius - 1.05, 0.06)
    deep = within(radius - 0.72, 0.06) * within(-36.0 - z, 4.0)
    convexity = head * within(0.72 - radius, 0.06) * within(-18.0 - z, 6.0)
    sella = torch.exp(-(x**2 + (y - 22) ** 2 + (z + 42) ** 2) / (2 * 11.0**2))
    return torch.stack([head, deep, convexity, sella])


def _thinned(image: Tensor, blurs: Sequence[Tensor]) -> Tensor:
    """Blurred, on a grid of half as many voxels an axis; one matrix an axis does both."""
    for axis, blur in enumerate(blurs, start=2):
        image = torch.movedim(torch.movedim(image, axis, -1) @ blur.T.to(image), -1, axis)
    return image


def _gaussian(size: int, sigma: float) -> Tensor:
    """(size/2, size): a line of voxels → every other one of the blurred line; edges go on."""
    reach = int(4 * sigma) + 1
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    centres = torch.arange(0, size, 2)
    matrix = torch.zeros(len(centres), size)
    for offset, weight in zip(offsets.tolist(), (weights / weights.sum()).tolist(), strict=True):
        matrix[torch.arange(len(centres)), (centres + offset).clamp(0, size - 1)] += weight
    return matrix
