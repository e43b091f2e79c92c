import pytest
from onnx import TensorProto, helper
from tiny_onnx import build


@pytest.fixture
def model() -> bytes:
    return build()


@pytest.fixture
def other_model() -> bytes:
    """Another champion, with other answers."""
    return build(scale=-1.0)


@pytest.fixture
def model_without_metadata() -> bytes:
    return build(metadata={})


@pytest.fixture
def tabular_model() -> bytes:
    """A model of one's own: a plain tensor in, no modality."""
    rows = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 2])
    found = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    nodes = [
        helper.make_node("Neg", ["input"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(nodes, "tabular", [rows], [found])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    props = {"classes": '["no", "yes"]', "modalities": "[]"}
    helper.set_model_props(made, props)
    return bytes(made.SerializeToString())
