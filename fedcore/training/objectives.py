"""What a site minimises beside its own loss.

An objective takes the trainable parameters and the same parameters of the global model, and gives
a scalar that is added to the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Objective = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]


def proximal(mu: float) -> Objective:
    """FedProx: mu/2 ‖w − w_global‖² (Li et al. 2020, eq. 2, https://arxiv.org/abs/1812.06127).

    It holds a site near the global model while it takes many steps on data unlike the others'.

    >>> w, w_global = {"bias": torch.tensor([3.0, 0.0])}, {"bias": torch.tensor([1.0, 0.0])}
    >>> proximal(0.5)(w, w_global)
    tensor(1.)
    """

    def term(parameters: Mapping[str, Tensor], global_parameters: Mapping[str, Tensor]) -> Tensor:
        squares = [
            (parameter - global_parameters[name]).square().sum()
            for name, parameter in parameters.items()
        ]
        return 0.5 * mu * torch.stack(squares).sum()

    return term
