import pytest
import torch
from torch import nn

from fedcore.errors import ConfigError
from fedcore.training.compute import Compute

CPU = torch.device("cpu")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused() -> None:
    assert Compute.choose("auto", mixed_precision=False) == Compute(CPU)
    with pytest.raises(ConfigError, match="set it to auto"):
        Compute.choose("cuda", mixed_precision=False)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("supported", "best"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_gets_its_best_precision_and_layout(
    monkeypatch: pytest.MonkeyPatch, supported: bool, best: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    chosen = Compute.choose("auto", mixed_precision=True)
    assert chosen == Compute(torch.device("cuda"), best, channels_last=True)
    assert chosen.is_gpu
    assert Compute.choose("cuda", mixed_precision=False).precision is None
    assert Compute.choose("cpu", mixed_precision=False) == Compute(CPU)


def test_channels_last_lays_out_volumes_and_kernels_and_leaves_the_rest() -> None:
    compute = Compute(CPU, channels_last=True)
    module = nn.ModuleDict({"flat": nn.Conv2d(2, 3, 3), "deep": nn.Conv3d(2, 3, 3)})
    compute.place(module)
    layout = torch.channels_last_3d
    assert module["deep"].weight.is_contiguous(memory_format=layout)  # type: ignore[operator]
    sent = compute.send({"image": torch.randn(2, 2, 4, 4, 4), "present": torch.ones(2, 1)})
    assert isinstance(sent, dict)
    assert sent["image"].is_contiguous(memory_format=layout)
    assert isinstance(compute.send(torch.ones(2, 3)), torch.Tensor)


def test_only_float16_scales_the_loss() -> None:
    assert not Compute(CPU, torch.bfloat16).scaler().is_enabled()
    assert not Compute(CPU).scaler().is_enabled()
    assert Compute(CPU, torch.float16).scaler().is_enabled()
