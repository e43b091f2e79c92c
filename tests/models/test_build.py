from collections.abc import Callable
from itertools import product
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from fedcore.config.task import Task
from fedcore.errors import ConfigError
from fedcore.models.build import Fusion, MultimodalClassifier, classifier
from fedcore.models.mend import mended
from fedcore.params import modules

Make = Callable[..., dict[str, Tensor]]
EVERY_PATTERN = [list(pattern) for pattern in product([0, 1], repeat=3)]


@pytest.fixture(params=get_args(Fusion))
def model(request: pytest.FixtureRequest, task: Task) -> MultimodalClassifier:
    torch.manual_seed(0)
    return classifier(task, width=4, fusion=request.param)


@pytest.mark.parametrize("fusion", get_args(Fusion))
def test_modules_are_the_encoders_and_what_they_share(task: Task, fusion: Fusion) -> None:
    names = [name for name, _ in classifier(task, width=4, fusion=fusion).named_parameters()]
    joined = ["fusion"] if "attention" in fusion else []
    head = [] if fusion.startswith("decision") else ["head"]
    encoders = [f"encoder.{name}" for name in ("flair", "pet", "t1ce")]
    assert modules(names) == tuple(encoders + joined + head)


@pytest.mark.parametrize("fusion", get_args(Fusion))
def test_every_fusion_is_fit_for_gradients_of_single_subjects(
    task: Task, make_inputs: Make, fusion: Fusion
) -> None:
    model = classifier(task, width=4, fusion=fusion)
    inputs = make_inputs([[1, 1, 0]])
    torch.testing.assert_close(mended(model).eval()(inputs), model.eval()(inputs))


def test_no_normalisation_over_the_batch(model: MultimodalClassifier) -> None:
    assert not [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def test_every_pattern_of_presence_gives_finite_logits(
    model: MultimodalClassifier, make_inputs: Make
) -> None:
    logits = model(make_inputs(EVERY_PATTERN))
    assert logits.shape == (8, 3)
    assert torch.isfinite(logits).all()
    assert len(torch.unique(logits.detach(), dim=0)) == 8


def test_an_absent_image_may_hold_anything(model: MultimodalClassifier, make_inputs: Make) -> None:
    model.eval()
    inputs = make_inputs(EVERY_PATTERN)
    expected = model(inputs)
    for column, name in enumerate(model.modalities):
        for rubbish in (0.0, 1e9, float("nan"), float("inf")):
            absent = inputs["present"][:, column] == 0
            inputs[name] = inputs[name].clone()
            inputs[name][absent] = rubbish
    assert torch.equal(model(inputs), expected)


def test_rubbish_in_an_absent_image_does_not_reach_the_gradient(
    model: MultimodalClassifier, make_inputs: Make
) -> None:
    inputs = make_inputs([[1, 1, 0], [1, 0, 1]])
    inputs["pet"][0] = float("nan")
    model(inputs).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_modality_that_is_not_given_equals_one_marked_absent(
    model: MultimodalClassifier, make_inputs: Make
) -> None:
    model.eval()
    inputs = make_inputs([[1, 1, 0], [0, 1, 0]])
    marked = model(inputs)
    del inputs["pet"]
    assert torch.equal(model(inputs), marked)
    inputs["present"][:, 2] = 1.0
    assert torch.equal(model(inputs), marked)


def test_a_modality_that_is_not_given_has_no_gradient(
    model: MultimodalClassifier, make_inputs: Make
) -> None:
    inputs = make_inputs([[1, 1, 0], [0, 1, 0]])
    del inputs["pet"]
    model(inputs).sum().backward()
    reached = modules(name for name, p in model.named_parameters() if p.grad is not None)
    assert set(reached) - {"fusion", "head"} == {"encoder.flair", "encoder.t1ce"}


def test_modality_dropout_hides_in_training_only_and_never_everything(
    task: Task, make_inputs: Make
) -> None:
    model = classifier(task, width=4, dropout=0.0, modality_dropout=0.9, flip=False)
    inputs = make_inputs([[1, 1, 0]] * 64)
    seen: list[Tensor] = []
    model.fusion.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
    torch.manual_seed(1)
    first = model(inputs)
    torch.manual_seed(1)
    assert torch.equal(model(inputs), first)
    model.eval()(inputs)
    training, _, evaluation = seen
    assert torch.equal(evaluation, inputs["present"] > 0)
    assert not training[:, 2].any()
    assert (training.sum(dim=1) >= 1).all()
    assert 0 < (training.sum(dim=1) == 1).float().mean() <= 1
    assert training[:, 0].any()
    assert training[:, 1].any()


def test_flip_mirrors_left_and_right_of_all_modalities_alike_in_training_only(
    task: Task, make_inputs: Make
) -> None:
    model = classifier(task, width=4, dropout=0.0)
    inputs = make_inputs([[1, 1, 1]] * 16)
    mirrored = inputs | {name: inputs[name].flip(2) for name in model.modalities}
    plain, turned = model.eval()(inputs), model(mirrored)
    torch.manual_seed(0)
    varied = model.train()(inputs)
    stays = torch.isclose(varied, plain, atol=1e-5).all(dim=1)
    turns = torch.isclose(varied, turned, atol=1e-5).all(dim=1)
    assert (stays ^ turns).all()
    assert stays.any()
    assert turns.any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"width": 6}, "positive multiple of 4"),
        ({"width": 0}, "positive multiple of 4"),
        ({"dropout": 1.0}, r"\[0, 1\)"),
        ({"modality_dropout": -0.1}, r"\[0, 1\)"),
        ({"fusion": "median"}, "use one of sum, concatenation"),
        ({"fusion": "cross_attention", "features": 6}, "multiples of 4"),
    ],
)
def test_arguments_that_do_not_fit_are_named(
    task: Task, arguments: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        classifier(task, **arguments)  # type: ignore[arg-type]


def test_a_task_without_modalities_is_refused(task: Task) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        classifier(task.model_copy(update={"modalities": {}}))
