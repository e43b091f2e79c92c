"""Each voxel's class from any subset of the modalities."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from fedcore.config.task import Task
from fedcore.errors import ConfigError
from fedcore.models.segment import AttentionFusion, MeanFusion, segmenter
from fedcore.params import modules
from fedcore.training.state import get_params

Make = Callable[..., dict[str, Tensor]]
EVERY = [list(p) for p in product([0, 1], repeat=3) if any(p)]


def made(task: Task, **arguments: Any) -> Any:
    torch.manual_seed(3)
    return segmenter(task, **{"width": 4, "scales": 3, **arguments})


@pytest.mark.parametrize("fusion", ["mean", "attention"])
def test_what_stands_in_an_absent_modality_never_matters(
    task: Task, make_inputs: Make, fusion: str
) -> None:
    model = made(task, fusion=fusion).eval()
    for scores in model.fusion:  # as after some training
        for parameter in scores.parameters():
            torch.nn.init.normal_(parameter)
    inputs = make_inputs(EVERY)
    expected = model(inputs)
    assert expected.shape == (7, 3, 16, 20, 16)
    garbage = dict(inputs)
    for column, name in enumerate(model.modalities):
        absent = inputs["present"][:, column] < 0.5
        garbage[name] = inputs[name].clone()
        garbage[name][absent] = float("nan")
    assert torch.equal(model(garbage), expected)
    for row, present in enumerate(EVERY):
        alone = {
            name: inputs[name][[row]]
            for name, has in zip(model.modalities, present, strict=True)
            if has
        }
        found = model({**alone, "present": inputs["present"][[row]]})
        assert torch.allclose(found[0], expected[row], atol=1e-5), "nor that it is there at all"


def test_sizes_need_not_be_powers_of_two(task: Task) -> None:
    model = made(task).eval()
    inputs = {"pet": torch.randn(1, 1, 9, 14, 11), "present": torch.tensor([[0.0, 0.0, 1.0]])}
    assert model(inputs).shape == (1, 3, 9, 14, 11)


def test_a_site_trains_the_modules_that_it_has_data_for(task: Task, make_inputs: Make) -> None:
    model = made(task, fusion="attention")
    inputs = make_inputs([[1, 0, 1], [1, 0, 1]])
    del inputs["flair"]
    model(inputs).square().sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    names = set(modules(dict.fromkeys(trained)))
    assert names == {"encoder.t1ce", "encoder.pet", "fusion", "decoder", "head"}
    assert set(modules(get_params(model))) - names == {"encoder.flair"}


def test_a_mirrored_head_is_compared_where_its_target_is(task: Task, make_inputs: Make) -> None:
    """A model that only tells bright from dark gives the same, whichever way it looks."""
    model = made(task, flip=True).train()
    model._logits = lambda images, _: torch.cat([images["t1ce"]] * 3, dim=1)
    inputs = make_inputs([[1, 1, 1]] * 8)
    assert torch.equal(model(inputs)[:, :1], inputs["t1ce"])


def test_attention_begins_as_the_mean() -> None:
    maps, present = torch.randn(4, 3, 8, 2, 2, 2), torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0]])
    present = torch.cat([present, torch.zeros(1, 3)]).bool()
    mean = MeanFusion()(maps, present)
    assert torch.allclose(AttentionFusion(8)(maps, present), mean, atol=1e-6)
    assert torch.allclose(mean[1], maps[1, [0, 2]].mean(dim=0), atol=1e-6)
    assert not mean[3].any(), "nobody's modality"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 6}, "multiple of 4"),
        ({"scales": 1}, "at least 2"),
        ({"fusion": "loudest"}, "use mean or attention"),
        ({"modality_dropout": 1.0}, "modality_dropout"),
    ],
)
def test_arguments_that_do_not_fit_are_told(
    task: Task, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        made(task, **arguments)
