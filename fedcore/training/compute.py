"""Where the arithmetic runs and in what precision: one CPU, or one GPU."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fedcore.errors import ConfigError

Inputs = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class Compute:
    """A device, the type of mixed precision (None: float32 throughout) and the memory layout.

    ``channels_last`` is how tensor cores read 3-D images; on CPUs it brings nothing.
    """

    device: torch.device
    precision: torch.dtype | None = None
    channels_last: bool = False

    @staticmethod
    def choose(device: Literal["auto", "cpu", "cuda"], *, mixed_precision: bool) -> Compute:
        """What the plan asks for. Raises ConfigError for ``cuda`` where there is none."""
        cuda = torch.cuda.is_available()
        if device == "cuda" and not cuda:
            raise ConfigError("training.device is cuda and this client has none; set it to auto")
        if device == "cpu" or not cuda:
            return Compute(torch.device("cpu"), torch.bfloat16 if mixed_precision else None)
        best = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return Compute(torch.device("cuda"), best if mixed_precision else None, channels_last=True)

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    def place(self, module: nn.Module) -> None:
        """Move the module to the device, its 3-D kernels in the chosen layout."""
        module.to(self.device)
        for parameter in module.parameters():
            parameter.data = self._laid_out(parameter.data)

    def send(self, inputs: Inputs) -> Inputs:
        """The inputs on the device; asynchronous where their memory is pinned."""
        if isinstance(inputs, dict):
            return {name: self._sent(tensor) for name, tensor in inputs.items()}
        return self._sent(inputs)

    def autocast(self) -> AbstractContextManager[object]:
        """The forward pass in mixed precision, if that was chosen."""
        enabled = self.precision is not None
        return torch.autocast(self.device.type, dtype=self.precision, enabled=enabled)

    def scaler(self) -> torch.amp.GradScaler:
        """Scales the loss so that float16 gradients do not vanish; idle in any other precision."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)

    def _sent(self, tensor: Tensor) -> Tensor:
        return self._laid_out(tensor.to(self.device, non_blocking=True))

    def _laid_out(self, tensor: Tensor) -> Tensor:
        if self.channels_last and tensor.dim() == 5:
            return tensor.contiguous(memory_format=torch.channels_last_3d)
        return tensor
