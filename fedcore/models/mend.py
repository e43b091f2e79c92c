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
    from opacus.validators import ModuleValidator  # takes a second, and only this needs it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a layer was replaced is what is wanted
        try:
            module = ModuleValidator.fix(module.train())
            faults = [str(fault) for fault in ModuleValidator.validate(module, strict=False)]
        except Exception as error:  # Opacus raises many kinds
            faults = [str(error)]
    if faults:
        raise ConfigError(
            "task.model: privacy.subject needs the gradient of each subject alone, and this model "
            f"has none: {'; '.join(faults)}. Replace that layer (GroupNorm in place of BatchNorm), "
            "or remove privacy.subject"
        )
    for layer in module.modules():
        if getattr(layer, "inplace", False):
            layer.inplace = False  # type: ignore[assignment]
    return module
