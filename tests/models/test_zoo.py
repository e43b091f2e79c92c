import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedcore.config.task import Task
from fedcore.errors import ConfigError
from fedcore.models.build import classifier
from fedcore.models.mend import mended
from fedcore.models.zoo import NAMES, zoo_encoder
from fedcore.registry import onnx

SMALL: dict[str, dict[str, Any]] = {
    "resnet": {"widen_factor": 0.125},
    "densenet": {"init_features": 16, "growth_rate": 16, "bn_size": 1},
    "segresnet": {"init_filters": 8, "blocks_down": (1, 1)},
}


def small(name: str, **more: Any) -> nn.Module:
    """The encoder with few channels, and of the deep ones few layers."""
    torch.manual_seed(0)
    arguments = {**SMALL[name.rstrip("0123456789")], **more}
    if name.startswith("densenet"):
        arguments["block_config"] = (1, 1, 1, 1)
    shape = {"channels": 1, "dimensions": 3}
    return zoo_encoder(name, 5, arguments=arguments, **shape)


@pytest.mark.parametrize("name", NAMES)
def test_each_gives_one_vector_a_subject_and_sees_no_other_of_its_batch(name: str) -> None:
    encoder, images = small(name).train(), torch.randn(2, 1, 33, 36, 32)
    found = encoder(images)
    assert found.shape == (2, 5)
    torch.testing.assert_close(found[:1], encoder(images[:1]), atol=1e-4, rtol=1e-4)
    assert not [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("name", ["resnet10", "densenet121", "segresnet"])
def test_each_has_a_form_for_colour_photos(name: str) -> None:
    arguments = SMALL[name.rstrip("0123456789")]
    encoder = zoo_encoder(name, 5, channels=3, dimensions=2, arguments=arguments)
    assert encoder(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_in_a_classifier_they_export_are_fit_for_dp_and_agree_for_every_subset(
    task: Task, make_inputs: Callable[..., dict[str, Tensor]]
) -> None:
    torch.manual_seed(0)
    model = classifier(
        task,
        width=4,
        fusion="concatenation",
        encoders={
            "t1ce": {"name": "resnet10", **SMALL["resnet"]},
            "flair": {"name": "segresnet", **SMALL["segresnet"]},
            "pet": {
                "name": "densenet121", **SMALL["densenet"], "block_config": (1, 1, 1, 1)
            },
        },
    ).eval()  # fmt: skip
    inputs = make_inputs([[1, 1, 1], [0, 1, 1], [1, 0, 1]])
    inputs |= {n: nn.functional.interpolate(inputs[n], 32) for n in task.modalities}
    torch.testing.assert_close(mended(copy.deepcopy(model)).eval()(inputs), model(inputs))
    metadata = {"classes": task.classes, "modalities": list(task.modalities)}
    exported = onnx.export(model, inputs, metadata=metadata)
    assert onnx.parity(model, exported, inputs, tuple(task.modalities)) <= onnx.TOLERANCE
    inputs["pet"][0] = float("nan")
    inputs["present"][0, 2] = 0.0
    assert np.isfinite(model(inputs).detach().numpy()).all()


@pytest.mark.parametrize(
    ("encoders", "words"),
    [
        ({"ct": {"name": "conv"}}, "none of the modalities"),
        ({"pet": {"name": "vgg"}}, "no encoder 'vgg'; use conv, or one of resnet10"),
        ({"pet": {}}, "no encoder ''"),
        ({"pet": {"name": "conv", "depth": 3}}, "conv takes no 'depth'"),
        ({"pet": {"name": "resnet10", "colour": 1}}, "resnet10' cannot be made.*colour"),
    ],
)
def test_what_does_not_fit_is_named(task: Task, encoders: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        classifier(task, encoders=encoders)
