"""An ONNX file as fedcore exports them, but so small that its answers can be checked by hand."""

from __future__ import annotations

import json
from typing import Any

from onnx import TensorProto, helper

MODALITIES = ("t1", "ct")
CLASSES = ("none", "glioma", "other")


def build(*, scale: float = 1.0, metadata: dict[str, Any] | None = None) -> bytes:
    """Softmax of (B, 3) = scale · (sum of t1, sum of ct, present · (1, 2)): every input shows."""
    image = ["batch", 1, 2, 2, 2]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, image) for n in MODALITIES]
    inputs.append(helper.make_tensor_value_info("present", TensorProto.FLOAT, ["batch", 2]))
    nodes = [
        helper.make_node("ReduceSum", ["t1", "axes"], ["a"], keepdims=0),
        helper.make_node("ReduceSum", ["ct", "axes"], ["b"], keepdims=0),
        helper.make_node("Unsqueeze", ["a", "one"], ["a1"]),
        helper.make_node("Unsqueeze", ["b", "one"], ["b1"]),
        helper.make_node("MatMul", ["present", "weights"], ["c"]),
        helper.make_node("Concat", ["a1", "b1", "c"], ["all"], axis=1),
        helper.make_node("Mul", ["all", "scale"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [4], [1, 2, 3, 4]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("weights", TensorProto.FLOAT, [2, 1], [1.0, 2.0]),
        helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
    ]
    found = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "test", inputs, [found], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    known = {"classes": CLASSES, "modalities": MODALITIES} if metadata is None else metadata
    helper.set_model_props(model, {name: json.dumps(value) for name, value in known.items()})
    return bytes(model.SerializeToString())
