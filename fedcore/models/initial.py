"""The plan's model with its initial parameters: the same for everyone who has the plan."""

from __future__ import annotations

import torch
from torch import nn

from fedcore import seeds
from fedcore.config.functions import resolve
from fedcore.config.plan import Plan
from fedcore.errors import ConfigError


def build_model(plan: Plan) -> nn.Module:
    """Call the plan's model function under the plan's seed. Raises ConfigError if it is no module.

    The caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(plan.seed, "init"))
        module = resolve(plan.task.model)(plan.task)
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"{plan.task.model.function} returned {type(module).__name__}; the plan's model "
            "function must return a torch.nn.Module"
        )
    return module
