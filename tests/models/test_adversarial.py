"""The adversarial model: one backward pass plays both sides, and a judge that saw nobody real."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from means import CLASSES, NAMES, SHAPE, Heads
from torch import Tensor
from torch.nn.functional import cross_entropy, nll_loss, one_hot, silu

from fedcore.config.learning import Training
from fedcore.config.protection import SubjectPrivacy
from fedcore.config.task import Task
from fedcore.errors import ConfigError
from fedcore.models.adversarial import ConditionalGan, conditional_gan
from fedcore.models.drawing import coarse
from fedcore.models.mend import mended
from fedcore.params import modules
from fedcore.registry import onnx
from fedcore.training import dpsgd, local
from fedcore.training.state import load_params

EVERY_PATTERN = [list(pattern) for pattern in product([0, 1], repeat=3)]


def inputs_of(present: list[list[int]], *, seed: int = 0) -> dict[str, Tensor]:
    """Random images for every modality, those that ``present`` denies included."""
    generator = torch.Generator().manual_seed(seed)
    images = {name: torch.randn((len(present), 1, *SHAPE), generator=generator) for name in NAMES}
    return images | {"present": torch.tensor(present, dtype=torch.float32)}


@pytest.fixture
def model(task: Task) -> ConditionalGan:
    """With a template of each class, as a trained one has."""
    torch.manual_seed(0)
    made = conditional_gan(task, shape=SHAPE, latent=4, width=8, flip=False)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "template" in name:
                parameter.normal_(std=0.3)
    return made


def test_what_belongs_to_a_modality_is_its_module(model: ConditionalGan) -> None:
    names = [name for name, _ in model.named_parameters()]
    assert modules(names) == ("critic", "encoder.flair", "encoder.pet", "encoder.t1ce", "judge")


@pytest.mark.parametrize("training", [True, False])
def test_an_absent_image_may_hold_anything(model: ConditionalGan, training: bool) -> None:
    model.train(training)
    inputs = inputs_of(EVERY_PATTERN)

    def outputs() -> Tensor:
        torch.manual_seed(2)
        return model(inputs)

    expected = outputs()
    assert expected.shape == (8, CLASSES)
    for column, name in enumerate(model.modalities):
        inputs[name] = inputs[name].clone()
        inputs[name][inputs["present"][:, column] == 0] = float("nan")
    assert torch.equal(outputs(), expected)
    outputs().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_modality_that_is_not_given_has_no_gradient(model: ConditionalGan) -> None:
    inputs = inputs_of([[1, 1, 0], [0, 1, 0]])
    del inputs["pet"]
    model(inputs).sum().backward()
    reached = modules(name for name, p in model.named_parameters() if p.grad is not None)
    assert reached == ("critic", "encoder.flair", "encoder.t1ce", "judge")


def test_one_backward_pass_plays_both_sides(model: ConditionalGan) -> None:
    """Each player's gradient is that of its own loss, taken alone, with the others held still."""
    inputs, target = inputs_of([[1, 1, 0], [0, 1, 1]]), torch.tensor([0, 2])
    torch.manual_seed(4)
    nll_loss(model(inputs), target).backward()

    torch.manual_seed(4)
    z, weights = torch.randn(2, 1, 4)[:, 0], one_hot(target, CLASSES).float()
    made = {name: model.encoder[name].decode(z, weights) for name in NAMES}

    def scores(who: str, images: dict[str, Tensor]) -> Tensor:
        columns = zip(NAMES, inputs["present"].T, strict=True)
        read = [
            getattr(model.encoder[name], who)(
                images[name] / model.encoder[name].unit / images[name].shape[1] ** 0.5
            )
            * has[:, None]
            for name, has in columns
        ]
        hidden, line = torch.stack(read).sum(dim=0).split([8, CLASSES], dim=1)
        return line + getattr(model, who)(silu(hidden))

    def critic(images: dict[str, Tensor]) -> Tensor:
        return scores("critic", images).gather(1, target[:, None])

    still = {name: image.detach() for name, image in made.items()}
    real, fake = critic({name: inputs[name].flatten(1) for name in NAMES}), critic(still)
    small = {name: coarse(image.view(2, 1, *SHAPE))[:, 0] for name, image in still.items()}
    losses = {
        "critic": (fake - real + 0.5 * real.square() + 0.5 * fake.square()).mean(),
        "judge": cross_entropy(scores("judge", small), target),
        "outward": -critic(made).mean(),
    }
    losses["template"] = losses["outward"]
    for player, loss in losses.items():
        theirs = {n: p for n, p in model.named_parameters() if player in n}
        gradients = torch.autograd.grad(loss, list(theirs.values()), retain_graph=True)
        for parameter, gradient in zip(theirs.values(), gradients, strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, gradient)


def test_it_learns_to_draw_the_classes_and_its_judge_to_tell_real_ones(task: Task) -> None:
    heads = Heads()  # whose images all vary as MR does
    kinds = {name: {"kind": "mr", "path": "anat/*.nii.gz"} for name in NAMES}
    alike = Task.model_validate(task.model_dump() | {"modalities": kinds})
    torch.manual_seed(0)
    model = conditional_gan(alike, shape=SHAPE, latent=4, flip=False)
    training = Training(epochs=60, batch_size=8, learning_rate=0.01)
    load_params(model, local.train(model, heads, nll_loss, training, seed=1).params)
    scores, targets = local.predict(model, Heads(seed=5), Training())
    assert (scores.argmax(axis=1) == targets).mean() > 0.9
    drawn = model.sample(torch.tensor([0, 1, 2]), torch.Generator().manual_seed(3))
    for name in NAMES:
        truth = torch.stack([heads.rows[index][name] for index in (3, 1, 2)])
        distances = torch.cdist(drawn[name].flatten(1), truth.flatten(1))
        assert distances.argmin(dim=1).tolist() == [0, 1, 2]


def test_samples_depend_on_the_seed_alone(model: ConditionalGan) -> None:
    def drawn(seed: int) -> Tensor:
        return model.sample(torch.tensor([0, 1]), torch.Generator().manual_seed(seed))["pet"]

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize("ghost", [False, True])
def test_gradients_of_single_subjects_add_up(
    task: Task, monkeypatch: pytest.MonkeyPatch, ghost: bool
) -> None:
    """DP-SGD's sum without noise and with a bound that never binds is a step of SGD."""
    heads = Heads(size=8)
    torch.manual_seed(0)
    model = conditional_gan(task, shape=SHAPE, latent=4, width=8, flip=False)
    # z is drawn in another order there
    monkeypatch.setattr(torch, "randn", lambda *size, **_: torch.ones(size))
    training = Training(batch_size=8, optimizer="sgd", learning_rate=1.0)
    privacy = SubjectPrivacy(clip_norm=1e9, noise_multiplier=1e-15, sampling_rate=1.0, steps=1)
    given = (nll_loss, training)
    private = dpsgd.train(mended(model), heads, *given, privacy, key=bytes(32), seed=3, ghost=ghost)
    in_the_open = local.train(model, heads, *given, seed=3)
    assert private.trained.keys() == in_the_open.trained.keys()
    for name, array in in_the_open.params.items():
        np.testing.assert_allclose(private.params[name], array, atol=1e-5, rtol=1e-4)


def test_the_export_agrees_for_every_pattern(model: ConditionalGan) -> None:
    model.eval()
    exported = onnx.export(model, inputs_of([[1, 1, 1], [1, 0, 1]]), metadata={})
    examples = inputs_of([[1, 1, 1], [1, 0, 1], [0, 1, 0]], seed=4)
    assert onnx.parity(model, exported, examples, model.modalities) < onnx.TOLERANCE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"shape": [8, 8]}, "three sizes"),
        ({"shape": SHAPE, "latent": 0}, "latent must be positive"),
        ({"shape": SHAPE, "width": 0}, "width must be positive"),
    ],
)
def test_arguments_that_do_not_fit_are_named(
    task: Task, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        conditional_gan(task, **arguments)
