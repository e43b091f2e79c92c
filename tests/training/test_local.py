import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from small import Multimodal, Subjects, Table, Volumes, linear, made, volumetric
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedcore.config.learning import Training
from fedcore.errors import ConfigError, DataError, PermanentError
from fedcore.params import digest
from fedcore.training import local
from fedcore.training.compute import Compute
from fedcore.training.state import get_params, load_params

CPU = Training(device="cpu", epochs=3, batch_size=4, learning_rate=0.05)


def once(seed: int = 5, module: nn.Module | None = None) -> str:
    """A training with dropout, convolutions and Adam; the digest of its params."""
    result = local.train(module or made(volumetric), Volumes(), cross_entropy, CPU, seed=seed)
    return digest(result.params)


def test_a_brought_module_on_a_brought_table_learns() -> None:
    module, table = made(linear), Table()
    before = get_params(module)
    result = local.train(module, table, cross_entropy, CPU, seed=1)
    assert result.measurements["loss"] < 0.5 * result.measurements["loss_first"]
    assert result.measurements["steps"] == 3 * 8
    assert result.trained == {"bias": 30, "weight": 30}
    assert result.num_examples == 30
    assert digest(get_params(module)) == digest(before), "the module given must stay as it was"
    load_params(module, result.params)
    scores, targets = local.predict(module, table, CPU)
    assert (scores.argmax(axis=1) == targets).mean() > 0.9


def test_scores_are_probabilities_in_the_order_of_the_dataset() -> None:
    module, table = made(linear), Table(10)
    scores, targets = local.predict(module, table, CPU)
    assert scores.dtype == np.float64
    assert targets.dtype == np.int64
    expected = module(table.rows).double().softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert targets.tolist() == table.targets.tolist()


def test_predict_does_not_drop_out() -> None:
    module = made(volumetric).train()
    first, _ = local.predict(module, Volumes(), CPU)
    second, _ = local.predict(module, Volumes(), CPU)
    assert np.array_equal(first, second)


def test_warm_and_fresh_processes_agree_bit_for_bit() -> None:
    module = made(volumetric)
    first = once(module=module)
    once(seed=6, module=module)
    torch.rand(7)
    np.random.random()
    assert once(module=module) == first
    paths = f"import sys; sys.path[:] = {sys.path!r}"  # where the small datasets are
    script = f"{paths}; import runpy; print(runpy.run_path({__file__!r})['once']())"
    fresh = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert fresh.stdout.strip() == first


def test_another_seed_gives_another_result() -> None:
    assert once(seed=5) != once(seed=6)


@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_only_modules_that_a_gradient_reached_count_as_trained(mu: float) -> None:
    training = CPU.model_copy(update={"proximal_mu": mu, "optimizer": "adamw", "weight_decay": 0.1})
    module = made(Multimodal)
    before = get_params(module)
    result = local.train(module, Subjects([0] * 9), cross_entropy, training, seed=1)
    assert result.trained == {"encoder.mri": 9, "head": 9}
    for name, array in result.params.items():
        assert np.array_equal(array, before[name]) == name.startswith("encoder.pet"), name


def test_an_encoder_counts_the_subjects_that_have_its_modality() -> None:
    dataset = Subjects([1, 0, 0, 1, 0, 0, 0, 0, 1, 0])
    result = local.train(made(Multimodal), dataset, cross_entropy, CPU, seed=1)
    assert result.trained == {"encoder.mri": 10, "encoder.pet": 3, "head": 10}


def test_a_frozen_module_is_not_trained() -> None:
    module = made(Multimodal)
    module.encoder.requires_grad_(False)  # type: ignore[operator, union-attr]
    result = local.train(module, Subjects([1] * 4), cross_entropy, CPU, seed=1)
    assert result.trained == {"head": 4}


def test_the_proximal_term_holds_the_params_back() -> None:
    def distance(mu: float) -> float:
        training = CPU.model_copy(update={"proximal_mu": mu, "optimizer": "sgd", "epochs": 5})
        module = made(linear)
        before = get_params(module)
        result = local.train(module, Table(), cross_entropy, training, seed=1)
        return float(np.abs(result.params["weight"] - before["weight"]).sum())

    assert distance(5.0) < 0.5 * distance(0.0)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_one_step_is_the_optimizers_own(optimizer: Any) -> None:
    training = Training(device="cpu", batch_size=30, optimizer=optimizer, learning_rate=0.1,
                        weight_decay=0.01)  # fmt: skip
    result = local.train(made(linear), Table(), cross_entropy, training, seed=1)
    module, table = made(linear), Table()
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer]
    reference = kind(module.parameters(), lr=0.1, weight_decay=0.01)
    cross_entropy(module(table.rows), table.targets).backward()
    reference.step()
    for name, array in get_params(module).items():
        np.testing.assert_allclose(result.params[name], array, atol=1e-5)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_the_path_of_a_gpu_runs_on_a_cpu(precision: torch.dtype) -> None:
    compute = Compute(torch.device("cpu"), precision, channels_last=True)
    module, dataset = made(volumetric), Volumes()
    training = CPU.model_copy(update={"proximal_mu": 0.1, "epochs": 6})
    result = local.train(module, dataset, cross_entropy, training, seed=1, compute=compute)
    assert result.measurements["loss"] < result.measurements["loss_first"]
    assert all(array.dtype == np.float32 for array in result.params.values())
    scores, _ = local.predict(module, dataset, training, compute=compute)
    assert np.isfinite(scores).all()


def test_a_loss_that_is_not_finite_is_named_with_its_step() -> None:
    table = Table(12)
    table.rows[:] = 1e30
    with pytest.raises(PermanentError, match=r"in step 1 of epoch 1.*learning_rate"):
        local.train(made(linear), table, lambda o, t: (o * o).sum(), CPU, seed=1)


def test_an_empty_dataset_is_refused_with_the_way_out() -> None:
    for call in (
        lambda: local.train(made(linear), Table(0), cross_entropy, CPU, seed=1),
        lambda: local.predict(made(linear), Table(0), CPU),
        lambda: local.input_shapes(Table(0)),
    ):
        with pytest.raises(DataError, match=r"task\.classes") as caught:
            call()
        assert caught.value.reason == "empty"


def test_outputs_that_are_no_logits_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"shape \(4, 2, 1\)"):
        local.predict(nn.Sequential(linear(), nn.Unflatten(1, (2, 1))), Table(), CPU)


def test_the_first_batch_is_the_first_examples() -> None:
    inputs, targets = local.first_batch(Table(), CPU)
    assert isinstance(inputs, Tensor)
    assert torch.equal(inputs, Table().rows[:4])
    assert targets.tolist() == [0, 1, 0, 1]


def test_input_shapes_look_on_for_a_rare_modality() -> None:
    assert local.input_shapes(Table()) == {"input": (5,)}
    every = {"mri": (5,), "pet": (5,), "present": (2,)}
    assert local.input_shapes(Subjects([0, 0, 0, 1])) == every
    assert local.input_shapes(Subjects([0, 0])) == {"mri": (5,), "present": (2,)}
