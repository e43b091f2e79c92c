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


@pytest.fixture
def model_of_patches() -> bytes:
    """Softmax of (0, t1 + ct), voxel by voxel, of patches of 3 × 2 × 2."""
    size, given = ["batch", 1, 3, 2, 2], ("t1", "ct")
    images = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name in given]
    present = helper.make_tensor_value_info("present", TensorProto.FLOAT, ["batch", 2])
    found = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2, 3, 2, 2])
    nodes = [
        helper.make_node("Sum", ["t1", "ct"], ["lesion"]),
        helper.make_node("Sub", ["t1", "t1"], ["none"]),
        helper.make_node("Concat", ["none", "lesion"], ["logits"], axis=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(nodes, "test", [*images, present], [found])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    props = {"classes": '["none", "lesion"]', "modalities": '["t1", "ct"]', "overlap": "0.5"}
    helper.set_model_props(made, props)
    return bytes(made.SerializeToString())
