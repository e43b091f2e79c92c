"""Making a module fit for gradients of single subjects."""

from __future__ import annotations

import warnings

from torch import nn

from fedcore.errors import ConfigError


def mended(module: nn.Module) -> nn.Module:
    """A copy in which no subject's output depends on the other subjects of its batch.

    Opacus replaces what mixes subjects and has a substitute: BatchNorm becomes GroupNorm, LSTM and
    MultiheadAttention become its own. New parameters come from torch's generator. Activations no
    longer work in place, because gradients of single subjects are taken from what they would
    overwrite. Raises ConfigError where something is left that mixes subjects, or a running average
    of them that would leave the site without noise.
    """
    from opacus.grad_sample import GradSampleModule  # takes a second, and only this needs it
    from opacus.validators import ModuleValidator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a layer was replaced is what is wanted
        try:
            module = ModuleValidator.fix(module.train())
            faults = [
                *ModuleValidator.validate(module, strict=False),
                *GradSampleModule.validate(module, strict=False),
                *_frozen_batch_norms(module),
            ]
        except Exception as error:  # Opacus raises many kinds
            faults = [error]
    if faults:
        raise ConfigError(
            "task.model: privacy.subject needs the gradient of each subject alone, and this model "
            f"has none: {'; '.join(map(str, faults))}. Replace that layer (GroupNorm in place of "
            "BatchNorm), or remove privacy.subject"
        )
    for layer in module.modules():
        if getattr(layer, "inplace", False):
            layer.inplace = False  # type: ignore[assignment]
    return module


def _frozen_batch_norms(module: nn.Module) -> list[str]:
    """Those without trainable parameters, which Opacus does not look at, mix subjects too."""
    kind = nn.modules.batchnorm._BatchNorm
    return [f"{name} is a {type(layer).__name__}" for name, layer in module.named_modules()
            if isinstance(layer, kind)]  # fmt: skip
