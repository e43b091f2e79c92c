from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from fedcore.config.task import Task
from fedcore.models.build import classifier


@pytest.mark.parametrize("fusion", ["attention", "sum"])
def test_the_classifier_exports_with_a_free_batch_and_agrees(
    task: Task, make_inputs: Callable[..., dict[str, Tensor]], tmp_path: Path, fusion: str
) -> None:
    torch.manual_seed(0)
    model = classifier(task, width=4, fusion=fusion, modality_dropout=0.2).eval()  # type: ignore[arg-type]
    example = make_inputs([[1, 1, 1], [1, 0, 1]])
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        model,
        kwargs={"inputs": example},
        f=path,
        dynamo=True,
        verbose=False,
        external_data=False,
        input_names=list(example),
        output_names=["logits"],
        dynamic_shapes={"inputs": {name: {0: torch.export.Dim("batch")} for name in example}},
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == list(example)
    for present in ([[1, 0, 0]], [[0, 1, 1], [1, 1, 1], [0, 0, 0]], [[1, 1, 0]] * 5):
        inputs = make_inputs(present, seed=7)
        expected = model(inputs).detach().numpy()
        (logits,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        np.testing.assert_allclose(logits, expected, atol=1e-4)
