from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from fedcore.config.task import Task
from fedcore.models.build import Fusion, classifier


@pytest.mark.parametrize("fusion", get_args(Fusion))
def test_the_classifier_exports_with_a_free_batch_and_agrees(
    task: Task, make_inputs: Callable[..., dict[str, Tensor]], tmp_path: Path, fusion: Fusion
) -> None:
    torch.manual_seed(0)
    model = classifier(task, width=4, fusion=fusion, modality_dropout=0.2).eval()
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
    every_pattern = [list(pattern) for pattern in product([0, 1], repeat=3)]
    for present in ([[1, 0, 0]], every_pattern):
        inputs = make_inputs(present, seed=7)
        expected = model(inputs).detach().numpy()
        (logits,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        np.testing.assert_allclose(logits, expected, atol=1e-4)
