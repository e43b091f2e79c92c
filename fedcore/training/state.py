"""Between a torch module and params: copies in, copies out, nothing shared."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fedcore.errors import ConfigError
from fedcore.params import FloatArray, Params


def get_params(module: nn.Module) -> dict[str, FloatArray]:
    """Copies of the parameters and the floating-point buffers, as float32.

    Integer buffers (such as BatchNorm's batch counter) are a site's own and stay behind.
    """
    return {
        name: np.array(tensor.detach().float().cpu().numpy(), order="C")
        for name, tensor in _floating(module).items()
    }


def load_params(module: nn.Module, params: Params) -> None:
    """Copy ``params`` into the module, keeping its device and dtype.

    Raises ConfigError, and changes nothing, when a name is missing or unknown or a shape differs.
    """
    wanted = _floating(module)
    way_out = "the params belong to another model; check task.model in the plan"
    missing, unknown = sorted(set(wanted) - set(params)), sorted(set(params) - set(wanted))
    if missing or unknown:
        found = [f"lack {name!r}" for name in missing] + [f"also hold {name!r}" for name in unknown]
        raise ConfigError(f"the params {', '.join(found[:5])}: {way_out}")
    for name, tensor in wanted.items():
        if params[name].shape != tuple(tensor.shape):
            raise ConfigError(
                f"the params hold {name!r} of shape {params[name].shape}, the model has "
                f"{tuple(tensor.shape)}: {way_out}"
            )
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(torch.tensor(params[name]))


def _floating(module: nn.Module) -> dict[str, Tensor]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor for name, tensor in tensors if tensor.is_floating_point()}
