"""What of a plan's model is trained, and how fast."""

from __future__ import annotations

import imaged
import numpy as np
import pytest
import torch
import toy
from torch import nn

from fedcore.client.learner import Learner
from fedcore.errors import ConfigError
from fedcore.models.initial import build_model
from fedcore.params import Params, digest, modules
from fedcore.records import ClientUpdate, TrainOrder
from fedcore.server.run import load_state
from fedcore.store.memory import MemoryStore
from fedcore.training.local import optimizer
from fedcore.training.state import get_params


def update(**training: object) -> ClientUpdate:
    what = imaged.plan(training=training, privacy={})
    params = get_params(build_model(what))
    order = TrainOrder(
        site="north", seq=0, round_num=0, params_digest=digest(params),
        plan_digest=what.digest, run_id="run-1",
    )  # fmt: skip
    return Learner(what, imaged.stores(north=1)["north"], min_cell=1).train(order, "", params)[0]


def test_a_frozen_module_is_not_sent_and_a_frozen_param_does_not_move() -> None:
    sent = update(freeze=["encoder.mri.*", "*.low.0.0.weight"])
    assert modules(sent.update) == ("encoder.pet", "head")
    assert set(sent.weights) == {"encoder.pet", "head"}
    still = {name for name, array in sent.update.items() if not array.any()}
    assert still == {"encoder.pet.low.0.0.weight"}


@pytest.mark.parametrize(
    "sections",
    [
        {"privacy": {"clip_norm": 1.0, "noise_multiplier": 1.0, "noise_source": "seeded"}},
        {"privacy": {"clip_norm": 1.0}, "secure_aggregation": {"mode": "masks"}},
        {"privacy": {"subject": {"clip_norm": 1.0, "noise_multiplier": 1.0, "sampling_rate": 0.5,
                                 "steps": 1}}},
    ],
    ids=["noise by site", "masks", "noise by subject"],
)  # fmt: skip
def test_what_is_frozen_is_the_same_at_the_end_whatever_protects_the_rest(
    sections: dict[str, dict[str, object]],
) -> None:
    what = toy.plan(
        training={"freeze": ["head.bias"], "batch_size": 8},
        aggregation={"weights": "uniform"}, **sections,
    )  # fmt: skip
    store = MemoryStore()
    run = toy.open_toy(store, what)
    toy.play(run, toy.InlineLauncher(store, toy.site_stores()))
    before, after = load_state(run, 0).params, load_state(run, 2).params
    assert {n for n in before if np.array_equal(before[n], after[n])} == {"head.bias"}


def test_rates_are_multiplied_by_every_pattern_that_matches() -> None:
    training = toy.plan(
        training={"learning_rate": 0.1, "learning_rates": {"body.*": 0.5, "*.bias": 0.1}}
    ).training
    module = build_model(toy.plan())
    groups = optimizer(dict(module.named_parameters()), training).param_groups
    names = {id(p): name for name, p in module.named_parameters()}
    found = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert found == pytest.approx(
        {"body.weight": 0.05, "body.bias": 0.005, "head.weight": 0.1, "head.bias": 0.01}
    )


def test_a_step_is_as_long_as_its_rate() -> None:
    def step(**rates: object) -> Params:
        plan = toy.plan(training={"optimizer": "sgd", "learning_rate": 0.1, **rates})
        module: nn.Module = build_model(plan)
        before = get_params(module)
        steps = optimizer(dict(module.named_parameters()), plan.training)
        module(torch.ones(1, 3)).square().sum().backward()
        steps.step()
        return {name: array - before[name] for name, array in get_params(module).items()}

    plain, slow = step(), step(learning_rates={"body.*": 0.25})
    for name, moved in plain.items():
        factor = 0.25 if name.startswith("body") else 1.0
        np.testing.assert_allclose(slow[name], factor * moved, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"freeze": ["bode.*"]}, r"freeze: no param's name matches 'bode\.\*'.*body\.bias"),
        ({"learning_rates": {"bode.*": 0.1}}, "learning_rates: no param's name matches"),
        ({"freeze": ["*"]}, "freeze leaves no param to train"),
    ],
)
def test_patterns_that_fit_nothing_or_everything_are_named(
    training: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        build_model(toy.plan(training=training))
