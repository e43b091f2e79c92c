"""Whose scan was in the training set: what a model tells of it, and what it tells with noise.

The attack is LiRA (Carlini et al. 2022, https://arxiv.org/abs/2112.03570) with few shadow models:
for each subject, how sure models are of its label that did, and that did not, train on it, as two
Gaussians; the score of a model under attack is the ratio of their likelihoods. The attacker knows
everything but who was in: the subjects, their labels and how it was trained.

The worst case for the subjects: few of them, labels that only a model which saw them can know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from fedcore.config.learning import Training
from fedcore.config.protection import SubjectPrivacy
from fedcore.params import Params
from fedcore.privacy.accounting import calibrate
from fedcore.training import dpsgd, local
from fedcore.training.state import load_params

SUBJECTS, FEATURES, CLASSES = 40, 60, 4
SHADOWS, TARGETS, STEPS = 24, 12, 8
TRAINING = Training(epochs=STEPS, batch_size=64, optimizer="sgd", learning_rate=2.0)
Train = Callable[[TensorDataset, int], Params]


@dataclass(frozen=True)
class Models:
    """``members`` (models, subjects): who trained which. ``sure``: of the label, likewise."""

    members: NDArray[np.bool_]
    sure: NDArray[np.float64]


def head() -> nn.Module:
    model = nn.Linear(FEATURES, CLASSES)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def cohort() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    found = rng.normal(size=(SUBJECTS, FEATURES)) / np.sqrt(FEATURES)
    labels = rng.integers(CLASSES, size=SUBJECTS)
    return torch.from_numpy(found.astype(np.float32)), torch.from_numpy(labels)


def in_the_open(data: TensorDataset, seed: int) -> Params:
    return local.train(head(), data, cross_entropy, TRAINING, seed=seed).params


def private(epsilon: float) -> Train:
    noise = calibrate(epsilon, 1e-5, count=STEPS, unit="subject")
    privacy = SubjectPrivacy(clip_norm=0.5, noise_multiplier=noise, sampling_rate=1.0, steps=STEPS)

    def train(data: TensorDataset, seed: int) -> Params:
        key = seed.to_bytes(32, "big")
        return dpsgd.train(
            head(), data, cross_entropy, TRAINING, privacy, key=key, seed=seed
        ).params

    return train


def models(train: Train, count: int, seed: int) -> Models:
    rows, labels = cohort()
    rng, model = np.random.default_rng(seed), head()
    members, sure = rng.random((count, SUBJECTS)) < 0.5, []
    for number, of in enumerate(members):
        chosen = torch.from_numpy(np.flatnonzero(of))
        load_params(model, train(TensorDataset(rows[chosen], labels[chosen]), seed + number))
        with torch.no_grad():
            chance = torch.softmax(model(rows).double(), dim=1)[torch.arange(SUBJECTS), labels]
        sure.append((torch.log(chance) - torch.log1p(-chance)).numpy())
    return Models(members, np.array(sure))


def attacked(train: Train) -> float:
    """The area under the attack's ROC curve: ½ is a guess."""
    shadow, target = models(train, SHADOWS, 1000), models(train, TARGETS, 5000)

    def log_likelihood(of: NDArray[np.bool_]) -> NDArray[np.float64]:
        known = np.ma.masked_array(shadow.sure, ~of)
        mean, spread = known.mean(axis=0), shadow.sure.std() * 0.1 + known.std(axis=0)
        return np.asarray(-0.5 * ((target.sure - mean) / spread) ** 2 - np.log(spread))

    score = log_likelihood(shadow.members) - log_likelihood(~shadow.members)
    inside, outside = score[target.members], score[~target.members]
    return float((inside[:, None] > outside[None, :]).mean())


def test_a_model_tells_who_was_in_and_with_noise_it_does_not() -> None:
    bare, strong, weak = attacked(in_the_open), attacked(private(1.0)), attacked(private(200.0))
    assert bare > 0.9
    assert abs(strong - 0.5) < 0.07, "of 240 and 240 or so: two and a half standard errors"
    assert weak > 0.7, "it is the noise that hides, not the clipping or the steps"
