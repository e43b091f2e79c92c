import json
from collections.abc import Iterator

import numpy as np
import onnx as onnx_format
import pytest
import torch
from torch import Tensor, nn

from fedcore.errors import BlobError, DataError, ReleaseError
from fedcore.params import digest
from fedcore.registry import onnx
from fedcore.training.state import get_params

MODALITIES = ("t1", "ct", "pet")
METADATA = {"classes": ["no", "yes"], "modalities": list(MODALITIES), "plan_digest": "ab"}


class Classifier(nn.Module):
    """The interface of fedcore's classifiers: absent modalities are zero, or not in the dict."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({name: nn.Conv3d(1, 3, 3) for name in MODALITIES})
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(3, 2)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        present = inputs["present"]
        total = torch.zeros(present.shape[0], 3)
        for index, name in enumerate(MODALITIES):
            if name in inputs:
                features = self.encoder[name](inputs[name]).relu().mean(dim=(2, 3, 4))
                total = total + features * present[:, index : index + 1]
        return self.head(self.drop(total))  # type: ignore[no-any-return]


def examples(present: list[list[int]], *, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.tensor(present, dtype=torch.float32)
    images = {
        name: torch.randn(len(present), 1, 5, 6, 7, generator=generator)
        * mask[:, index].view(-1, 1, 1, 1, 1)
        for index, name in enumerate(MODALITIES)
    }
    return {**images, "present": mask}


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    return Classifier()


@pytest.fixture(scope="module")
def model(module: nn.Module) -> bytes:
    return onnx.export(module, examples([[1, 1, 1], [1, 1, 1]], seed=9), metadata=METADATA)


@pytest.fixture
def changed(module: nn.Module) -> Iterator[nn.Module]:
    """The module with one encoder weight nudged after the export."""
    weight = module.encoder["pet"].weight  # type: ignore[union-attr, index]
    before = weight.detach().clone()
    with torch.no_grad():
        weight.add_(0.05)
    yield module
    with torch.no_grad():
        weight.copy_(before)


def test_the_file_is_valid_whole_and_names_its_inputs(module: nn.Module, model: bytes) -> None:
    proto = onnx_format.load_model_from_string(model)
    onnx_format.checker.check_model(proto, full_check=True)
    assert {entry.version for entry in proto.opset_import if entry.domain == ""} == {onnx.OPSET}
    assert [node.name for node in proto.graph.input] == [*MODALITIES, "present"]
    assert [node.name for node in proto.graph.output] == ["probabilities"]
    dims = [node.type.tensor_type.shape.dim[0].dim_param for node in proto.graph.input]
    assert dims == ["batch"] * 4
    assert not any(tensor.external_data for tensor in proto.graph.initializer)


def test_the_metadata_says_what_it_is(module: nn.Module, model: bytes) -> None:
    proto = onnx_format.load_model_from_string(model)
    found = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    assert found == {**METADATA, "params_digest": digest(get_params(module))}


def test_no_path_of_the_exporting_machine_is_in_the_file(model: bytes) -> None:
    assert b".py" not in model
    assert b"stack_trace" not in model


def test_patterns_are_every_non_empty_subset() -> None:
    found = onnx.patterns(MODALITIES)
    assert len(found) == len(set(found)) == 2**3 - 1
    assert () not in found
    assert onnx.patterns(()) == []


def test_every_pattern_agrees(module: nn.Module, model: bytes) -> None:
    whole = onnx.parity(module, model, examples([[1, 1, 1], [1, 0, 1], [0, 1, 0]]), MODALITIES)
    assert 0 <= whole <= onnx.TOLERANCE


def test_a_site_without_a_modality_compares_what_it_has(module: nn.Module, model: bytes) -> None:
    inputs = examples([[1, 1, 0], [0, 1, 0]])
    del inputs["pet"]
    assert onnx.parity(module, model, inputs, MODALITIES) <= onnx.TOLERANCE


def test_each_pattern_is_really_tried(
    module: nn.Module, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    forward = module.forward

    def spy(inputs: dict[str, Tensor]) -> Tensor:
        seen.add((tuple(n for n in MODALITIES if n in inputs), len(inputs["present"])))
        return forward(inputs)  # type: ignore[no-any-return]

    monkeypatch.setattr(Classifier, "forward", lambda _, inputs: spy(inputs))
    onnx.parity(module, model, examples([[1, 1, 1], [1, 0, 1]]), MODALITIES)
    assert seen == {(p, 1 if p == ("ct",) else 2) for p in onnx.patterns(MODALITIES)}


def test_a_difference_in_one_modality_is_found(changed: nn.Module, model: bytes) -> None:
    without = examples([[1, 1, 0]])
    assert onnx.parity(changed, model, without, MODALITIES) <= onnx.TOLERANCE
    assert onnx.parity(changed, model, examples([[1, 1, 1]]), MODALITIES) > onnx.TOLERANCE


def test_a_value_that_is_not_finite_is_no_agreement(module: nn.Module, model: bytes) -> None:
    inputs = examples([[1, 1, 1]])
    inputs["ct"][0, 0, 0, 0, 0] = torch.nan
    assert onnx.parity(module, model, inputs, MODALITIES) == np.inf


def test_what_cannot_be_compared_is_an_error(module: nn.Module, model: bytes) -> None:
    with pytest.raises(DataError, match="no example has a modality"):
        onnx.parity(module, model, examples([[0, 0, 0]]), MODALITIES)
    with pytest.raises(DataError, match="3 columns for the 2 modalities"):
        onnx.parity(module, model, examples([[1, 1, 1]]), MODALITIES[:2])
    with pytest.raises(BlobError, match="cannot be loaded"):
        onnx.parity(module, b"\x80\x04 a pickle", examples([[1, 1, 1]]), MODALITIES)


def test_a_module_of_ones_own_takes_a_plain_tensor(capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    own = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    rows = torch.randn(5, 3)
    model = onnx.export(own, rows, metadata={"classes": ["a", "b"], "modalities": []})
    assert own.training
    assert onnx.parity(own, model, rows[:1]) <= onnx.TOLERANCE
    assert onnx.parity(own, model, rows) <= onnx.TOLERANCE
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_traced_is_named() -> None:
    class Moody(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            return rows * 2 if float(rows.sum()) > 0 else rows

    with pytest.raises(ReleaseError, match="torch cannot export Moody to ONNX"):
        onnx.export(Moody(), torch.ones(2, 3), metadata={})
