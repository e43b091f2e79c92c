"""FedRep's local training: the local params first, on the shared ones as they came."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedcore.config.learning import Training
from fedcore.errors import ConfigError
from fedcore.training import local
from fedcore.training.state import get_params, load_params

RATE, HEAD_STEPS = 0.05, 5


class Linear(nn.Module):
    """y = x B w, the linear representation of Collins et al. 2021, section 4."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(3, 2, bias=False)
        self.head = nn.Linear(2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


def training(**fields: object) -> Training:
    known = {"device": "cpu", "optimizer": "sgd", "learning_rate": RATE, "batch_size": 64}
    return Training.model_validate({**known, **fields})


def half_square(outputs: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (outputs[:, 0] - target).square().mean()


def table(seed: int) -> TensorDataset:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 3, generator=rng)
    return TensorDataset(x, x @ torch.tensor([1.0, -1.0, 0.5]) * (1 + seed))


def test_two_rounds_are_those_of_the_paper() -> None:
    """Algorithm 1: τ head steps, one step of the representation on them, the mean of those."""
    how = training(local=["head.*"], local_epochs=HEAD_STEPS)
    module = Linear()
    begin = get_params(module)
    shared, heads = begin["body.weight"], [begin["head.weight"]] * 2
    body, ours = shared.astype(np.float64), [h.astype(np.float64) for h in heads]
    for _ in range(2):
        bodies, theirs = [], []
        for site in range(2):
            load_params(module, {"body.weight": shared, "head.weight": heads[site]})
            result = local.train(module, table(site), half_square, how, seed=1)
            heads[site] = result.params["head.weight"]
            bodies.append(result.params["body.weight"])
            assert result.trained == {"body": 40, "head": 40}
            assert result.measurements["steps"] == HEAD_STEPS + 1

            x, y = (tensor.double().numpy() for tensor in table(site).tensors)
            w = ours[site]
            for _ in range(HEAD_STEPS):
                z = x @ body.T
                w = w - RATE * (z @ w[0] - y) @ z / len(x)
            ours[site] = w
            theirs.append(body - RATE * np.outer(w[0], (x @ body.T @ w[0] - y) @ x / len(x)))
        shared, body = np.mean(bodies, axis=0), np.mean(theirs, axis=0)
    np.testing.assert_allclose(shared, body, rtol=1e-5)
    for head, own in zip(heads, ours, strict=True):
        np.testing.assert_allclose(head, own, rtol=1e-5)
    assert not np.allclose(*heads)


def test_without_local_epochs_all_params_move_together() -> None:
    module = Linear()
    both = local.train(module, table(0), half_square, training(local=["head.*"]), seed=1)
    plain = local.train(module, table(0), half_square, training(), seed=1)
    assert all(np.array_equal(both.params[n], plain.params[n]) for n in plain.params)


def test_the_proximal_term_does_not_hold_a_local_param() -> None:
    """Its gradient is μ(w − w_global) from the second step on; the head has no w_global."""
    steps = {"epochs": 4, "local": ["head.*"]}
    module = Linear()
    module.body.requires_grad_(False)
    with_term, without = (
        local.train(module, table(0), half_square, training(proximal_mu=mu, **steps), seed=1)
        for mu in (5.0, 0.0)
    )
    assert np.array_equal(with_term.params["head.weight"], without.params["head.weight"])


@pytest.mark.parametrize("patterns", [["*"], ["nose.*"]])
def test_a_phase_without_parameters_is_refused(patterns: list[str]) -> None:
    how = training(local=patterns, local_epochs=1)
    with pytest.raises(ConfigError, match=r"local_epochs with (no|every) trainable"):
        local.train(Linear(), table(0), half_square, how, seed=1)
