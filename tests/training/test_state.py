import numpy as np
import pytest
import torch
from torch import nn

from fedcore.errors import ConfigError
from fedcore.training.state import get_params, load_params


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_params_are_float32_copies_of_parameters_and_floating_buffers() -> None:
    module = network()
    params = get_params(module)
    assert set(params) == {
        "0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"
    }  # fmt: skip
    assert {array.dtype for array in params.values()} == {np.dtype(np.float32)}
    params["0.weight"][:] = 7.0
    assert not (module[0].weight == 7.0).any()  # type: ignore[index]


def test_what_is_read_is_what_was_loaded() -> None:
    params = get_params(network())
    for array in params.values():
        array.setflags(write=False)
    module = network().double()
    load_params(module, params)
    assert all(np.array_equal(array, params[name]) for name, array in get_params(module).items())
    assert module[0].weight.dtype == torch.float64  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.pop("0.bias"), "lack '0.bias'"),
        (lambda p: p.update({"2.bias": np.zeros(1, np.float32)}), "also hold '2.bias'"),
        (lambda p: p.update({"0.bias": np.zeros(3, np.float32)}), r"\(3,\), the model has \(2,\)"),
    ],
)
def test_params_of_another_model_are_refused_whole(change, words: str) -> None:  # type: ignore[no-untyped-def]
    module = network()
    before = get_params(module)
    params = {name: array + 1 for name, array in before.items()}
    change(params)
    with pytest.raises(ConfigError, match=words):
        load_params(module, params)
    assert all(np.array_equal(array, before[name]) for name, array in get_params(module).items())
