"""`training.augment` in a round: another update, and the same one after a kill."""

from __future__ import annotations

from typing import Any

import imaged
import numpy as np
import pytest

from fedcore.client.learner import Learner
from fedcore.models.initial import build_model
from fedcore.params import Params, digest
from fedcore.records import TrainOrder
from fedcore.training.state import get_params

SUBJECT = {"clip_norm": 1.0, "noise_multiplier": 0.5, "sampling_rate": 0.5, "steps": 3}


def update(training: dict[str, Any], privacy: dict[str, Any]) -> Params:
    """What a client that was just started sends; every second subject has a PET, the others NaN."""
    what = imaged.plan(training=training, privacy=privacy, aggregation={"weights": "uniform"})
    learner = Learner(what, imaged.stores(north=2)["north"], min_cell=1)
    order = TrainOrder("run", "north", 0, 0, what.digest, "")
    params = get_params(build_model(what))
    return learner.train(order, "", params, noise_key=bytes(32))[0].update


@pytest.mark.parametrize("privacy", [{}, {"subject": SUBJECT}], ids=["plain", "by subject"])
def test_images_are_varied_and_a_client_started_again_sends_the_same(
    privacy: dict[str, Any],
) -> None:
    one, other = (update({"augment": {}}, privacy) for _ in range(2))
    assert digest(one) == digest(other)
    assert all(np.isfinite(array).all() for array in one.values())
    assert digest(one) != digest(update({}, privacy))
