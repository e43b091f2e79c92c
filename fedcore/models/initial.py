"""The plan's model with its initial parameters: the same for everyone who has the plan."""

from __future__ import annotations

import fnmatch

import torch
from torch import nn

from fedcore import seeds
from fedcore.aggregation.statistics import EMPHASIS, GROUPS, MOMENTS
from fedcore.config.functions import resolve
from fedcore.config.learning import Training
from fedcore.config.plan import Plan
from fedcore.config.task import Metrics
from fedcore.errors import ConfigError
from fedcore.models.mend import mended


def build_model(plan: Plan) -> nn.Module:
    """Call the plan's model function under the plan's seed. Raises ConfigError if it is no module.

    With ``privacy.subject`` the module is mended, so that a gradient is one subject's; also
    raises ConfigError where it cannot be. The caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(plan.seed, "init"))
        module = resolve(plan.task.model)(plan.task)
        if plan.privacy.subject is not None and isinstance(module, nn.Module):
            module = mended(module)
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"{plan.task.model.function} returned {type(module).__name__}; the plan's model "
            "function must return a torch.nn.Module"
        )
    _check_metrics(module, plan.task.metrics)
    _freeze(module, plan.training)
    _add_statistics(module, plan.training)
    return module


def _check_metrics(module: nn.Module, metrics: Metrics) -> None:
    """Raises ConfigError where the plan asks how good images are that the model does not make."""
    for field, asked, method in (
        ("reconstruction", metrics.reconstruction, "expected"),
        ("memorisation", metrics.memorisation > 0, "sample"),
    ):
        if asked and not hasattr(module, method):
            raise ConfigError(
                f"task.metrics: {field}: a {type(module).__name__} has no {method}(); remove it, "
                "or use a model that has, as fedcore.models.generate:conditional_vae"
            )


def _add_statistics(module: nn.Module, training: Training) -> None:
    """What the plan has the sites tell beside the weights, among the params: as nothing is known.

    Raises ConfigError where the model has no such layer, or has the name for something else.
    """
    found: dict[str, torch.Tensor] = {}
    if training.alignment is not None:
        size = 1 + _features(module, training.alignment.layer)
        found[MOMENTS] = torch.zeros(size, size)
    if training.fairness is not None and training.is_dro:
        groups = len(training.fairness.groups)
        found[GROUPS], found[EMPHASIS] = torch.zeros(2, groups), torch.full((groups,), 1 / groups)
    for name, tensor in found.items():
        if hasattr(module, name):
            raise ConfigError(f"task.model: {name!r} names what the sites tell; rename the model's")
        module.register_buffer(name, tensor)


def _features(module: nn.Module, name: str) -> int:
    """How many values go into the linear layer of this name."""
    linear = {n: m.in_features for n, m in module.named_modules() if isinstance(m, nn.Linear)}
    if name not in linear:
        raise ConfigError(
            f"training: alignment: the model has no linear layer {name!r}; its linear layers are: "
            f"{', '.join(linear) or 'none'}"
        )
    return linear[name]


def _freeze(module: nn.Module, training: Training) -> None:
    """Let what ``training.freeze`` names require no gradient.

    Raises ConfigError where a pattern of ``training`` names no parameter, or all are frozen.
    """
    parameters = dict(module.named_parameters())
    for field in ("freeze", "learning_rates"):
        for pattern in getattr(training, field):
            if not fnmatch.filter(parameters, pattern):
                raise ConfigError(
                    f"training: {field}: no param's name matches {pattern!r}; correct it; the "
                    f"model's params are: {', '.join(sorted(parameters))}"
                )
    frozen = [parameter for name, parameter in parameters.items() if training.freezes(name)]
    if frozen and len(frozen) == len(parameters):
        raise ConfigError("training: freeze leaves no param to train; correct the patterns")
    for parameter in frozen:
        parameter.requires_grad_(False)
