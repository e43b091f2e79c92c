"""One encoder per modality: an image → feature maps that all modalities share the shape of.

An encoder is a module with an attribute ``features`` (its channels C) and a forward (B, 1, X, Y, Z)
→ (B, C, X/4, Y/4, Z/4). Nothing else is asked of it, so other architectures fit in.
"""

from __future__ import annotations

from torch import Tensor, nn


class ConvEncoder(nn.Module):
    """Two strided convolutions: (B, 1, X, Y, Z) → (B, 2·width, X/4, Y/4, Z/4), rounded up."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = 2 * width
        self.stages = nn.Sequential(stage(1, width), stage(width, self.features))

    def forward(self, image: Tensor) -> Tensor:
        return self.stages(image)  # type: ignore[no-any-return]


def stage(channels_in: int, channels_out: int, *, stride: int = 2) -> nn.Sequential:
    """Convolution, normalisation, activation: (B, C_in, X, Y, Z) → (B, C_out, X/stride, …).

    Normalised within a subject, never across a batch, so that neither another site's intensities
    nor (with private gradients) another subject leaks in. ``channels_out``: a multiple of 4.
    """
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(num_groups=4, num_channels=channels_out),
        nn.LeakyReLU(0.1, inplace=True),
    )
