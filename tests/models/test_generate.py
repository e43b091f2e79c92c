"""The generative model: any subset in, every modality out, and a classifier by Bayes' rule."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from means import CLASSES, NAMES, SHAPE, Heads
from torch import Tensor
from torch.nn.functional import nll_loss

from fedcore.config.learning import Training
from fedcore.config.protection import SubjectPrivacy
from fedcore.config.task import Task
from fedcore.errors import ConfigError
from fedcore.evaluation.memorisation import Memorisation, memorisation
from fedcore.models.generate import ConditionalVae, conditional_vae
from fedcore.models.mend import mended
from fedcore.params import modules
from fedcore.registry import onnx
from fedcore.training import dpsgd, local
from fedcore.training.nearest import drawn, to_nearest
from fedcore.training.state import load_params

Make = Callable[..., dict[str, Tensor]]
EVERY_PATTERN = [list(pattern) for pattern in product([0, 1], repeat=3)]


@pytest.fixture
def make_inputs() -> Make:
    def inputs(present: list[list[int]], *, seed: int = 0) -> dict[str, Tensor]:
        """Random images for every modality, those that ``present`` denies included."""
        generator = torch.Generator().manual_seed(seed)
        size = (len(present), 1, *SHAPE)
        images = {name: torch.randn(size, generator=generator) for name in NAMES}
        return images | {"present": torch.tensor(present, dtype=torch.float32)}

    return inputs


@pytest.fixture
def model(task: Task) -> ConditionalVae:
    """With a template and a prior of each class, as a trained one has."""
    torch.manual_seed(0)
    made = conditional_vae(task, shape=SHAPE, latent=4)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "template" in name or "prior" in name:
                parameter.normal_(std=0.3)
    return made


def trained(task: Task, heads: Heads, **arguments: Any) -> ConditionalVae:
    torch.manual_seed(0)
    model = conditional_vae(task, shape=SHAPE, flip=False, **{"latent": 4, **arguments})
    training = Training(epochs=40, batch_size=8, learning_rate=0.03)
    load_params(model, local.train(model, heads, nll_loss, training, seed=1).params)
    return model.eval()


def test_what_belongs_to_a_modality_is_its_module(model: ConditionalVae) -> None:
    names = [name for name, _ in model.named_parameters()]
    assert modules(names) == ("encoder.flair", "encoder.pet", "encoder.t1ce", "prior")


@pytest.mark.parametrize("training", [True, False])
def test_an_absent_image_may_hold_anything(
    model: ConditionalVae, make_inputs: Make, training: bool
) -> None:
    model.train(training)
    inputs = make_inputs(EVERY_PATTERN)

    def outputs() -> Tensor:
        torch.manual_seed(2)
        return model(inputs)

    expected = outputs()
    assert expected.shape == (8, CLASSES)
    assert torch.isfinite(expected).all()
    for column, name in enumerate(model.modalities):
        inputs[name] = inputs[name].clone()
        inputs[name][inputs["present"][:, column] == 0] = float("nan")
    assert torch.equal(outputs(), expected)
    outputs().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_modality_that_is_not_given_has_no_gradient(
    model: ConditionalVae, make_inputs: Make
) -> None:
    inputs = make_inputs([[1, 1, 0], [0, 1, 0]])
    del inputs["pet"]
    model(inputs).sum().backward()
    reached = modules(name for name, p in model.named_parameters() if p.grad is not None)
    assert reached == ("encoder.flair", "encoder.t1ce", "prior")


def images_of(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: image for name, image in inputs.items() if name != "present"}


def test_the_posterior_is_the_product_of_its_experts(
    model: ConditionalVae, make_inputs: Make
) -> None:
    inputs = make_inputs([[1, 0, 1]])
    precision, weighted = torch.ones(1, 4), torch.zeros(1, 4)
    for name in ("t1ce", "pet"):
        mean, log_variance = model.encoder[name].encode(inputs[name])
        precision += (-log_variance).exp()
        weighted += mean * (-log_variance).exp()
    mean, log_variance = model.posterior(images_of(inputs), inputs["present"] > 0.5)
    torch.testing.assert_close(mean, weighted / precision)
    torch.testing.assert_close(log_variance, -precision.log())
    nothing, width = model.posterior(images_of(inputs), torch.zeros(1, 3, dtype=torch.bool))
    assert not nothing.any()
    assert not width.any()


def test_the_outputs_are_bounds_up_to_what_all_classes_share(
    model: ConditionalVae, make_inputs: Make
) -> None:
    """The ELBO at the mean of z, term by term, with torch's own divergence."""
    inputs = make_inputs([[1, 1, 0]])
    mean, log_variance = model.posterior(images_of(inputs), inputs["present"] > 0.5)
    q = torch.distributions.Normal(mean[0], (0.5 * log_variance[0]).exp())
    bounds = []
    for c in range(CLASSES):
        weights = torch.eye(CLASSES)[c]
        prior_mean, prior_log_variance = model.prior(weights).chunk(2)
        spread = (0.5 * 8 * torch.tanh(prior_log_variance / 8)).exp()
        p = torch.distributions.Normal(prior_mean, spread)
        bound = -torch.distributions.kl_divergence(q, p).sum()
        for name in ("t1ce", "flair"):
            image, part = inputs[name].flatten(), model.encoder[name]
            error = (part.outward(mean[0]) + part.template(weights) - image).square().mean()
            bound = bound - image.numel() / 27 / 2 * error.log()
        bounds.append(bound)
    expected = torch.stack(bounds) - torch.stack(bounds).mean()
    torch.testing.assert_close(model.eval()(inputs)[0], expected, atol=2e-3, rtol=0)


def test_it_learns_the_classes_and_draws_them(task: Task) -> None:
    heads = Heads()
    model = trained(task, heads)
    scores, targets = local.predict(model, Heads(seed=5), Training())
    assert (scores.argmax(axis=1) == targets).mean() > 0.9
    drawn = model.sample(torch.tensor([0, 1, 2]), torch.Generator().manual_seed(3))
    for name in NAMES:
        truth = torch.stack([heads.rows[index][name] for index in (3, 1, 2)])
        distances = torch.cdist(drawn[name].flatten(1), truth.flatten(1))
        assert distances.argmin(dim=1).tolist() == [0, 1, 2]


def test_it_fills_in_what_a_subject_lacks(task: Task) -> None:
    heads, others = Heads(), Heads(seed=5)
    model = trained(task, heads)
    rows = [1, 2, 3]
    inputs, _ = others.collate([others[index] for index in rows])
    truth = inputs.pop("pet")
    inputs["present"][:, 2] = 0
    with torch.no_grad():
        filled = model.expected(inputs)["pet"]
    distances = torch.cdist(filled.flatten(1), truth.flatten(1))
    assert filled.shape == truth.shape
    assert distances.argmin(dim=1).tolist() == [0, 1, 2]


def test_samples_depend_on_the_seed_alone(model: ConditionalVae) -> None:
    def drawn(seed: int) -> Tensor:
        return model.sample(torch.tensor([0, 1]), torch.Generator().manual_seed(seed))["pet"]

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_gradients_of_single_subjects_add_up(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """DP-SGD's sum without noise and with a bound that never binds is a step of SGD."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # z is drawn in another order there
    heads = Heads(size=8)
    torch.manual_seed(0)
    model = conditional_vae(task, shape=SHAPE, latent=4, modality_dropout=0.0, flip=False)
    training = Training(batch_size=8, optimizer="sgd", learning_rate=1.0)
    privacy = SubjectPrivacy(clip_norm=1e9, noise_multiplier=1e-15, sampling_rate=1.0, steps=1)
    private = dpsgd.train(mended(model), heads, nll_loss, training, privacy, key=bytes(32), seed=3)
    in_the_open = local.train(model, heads, nll_loss, training, seed=3)
    assert private.trained.keys() == in_the_open.trained.keys()
    for name, array in in_the_open.params.items():
        np.testing.assert_allclose(private.params[name], array, atol=1e-5, rtol=1e-4)


def test_a_generator_that_was_overfitted_is_found_and_one_of_others_subjects_is_not(
    task: Task,
) -> None:
    def judged(model: ConditionalVae, train: Heads, held_out: Heads) -> Memorisation:
        made = drawn(model, 60, CLASSES, seed=1)
        return memorisation(*(to_nearest(heads, made) for heads in (train, held_out)))

    train, held_out = Heads(24, seed=1), Heads(24, seed=2)
    found = judged(trained(task, train, latent=24, correlated=1.0), train, held_out)
    assert found.found
    assert found.closeness > 0.9
    others = trained(task, Heads(24, seed=3), latent=24, correlated=1.0)
    assert not judged(others, train, held_out).found


def test_the_export_agrees_for_every_pattern(model: ConditionalVae, make_inputs: Make) -> None:
    model.eval()
    exported = onnx.export(model, make_inputs([[1, 1, 1], [1, 0, 1]]), metadata={})
    examples = make_inputs([[1, 1, 1], [1, 0, 1], [0, 1, 0]], seed=4)
    assert onnx.parity(model, exported, examples, model.modalities) < onnx.TOLERANCE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"shape": [8, 8]}, "three sizes"),
        ({"shape": SHAPE, "latent": 0}, "latent must be positive"),
        ({"shape": SHAPE, "correlated": 0.0}, "correlated must be positive"),
        ({"shape": SHAPE, "modality_dropout": 1.0}, "must lie in"),
    ],
)
def test_arguments_that_do_not_fit_are_named(
    task: Task, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        conditional_vae(task, **arguments)
