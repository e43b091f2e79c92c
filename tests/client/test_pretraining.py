"""An encoder that begins by reconstruction: at the site, in the round's own update."""

from __future__ import annotations

import imaged
import numpy as np
import pytest
import torch
import toy

from fedcore.client.learner import Learner
from fedcore.config.plan import Plan
from fedcore.errors import ConfigError
from fedcore.models.autoencoder import Autoencoder
from fedcore.models.build import classifier
from fedcore.models.decision import Stacked
from fedcore.models.initial import build_model
from fedcore.params import Params, digest, modules
from fedcore.records import ClientUpdate, TrainOrder
from fedcore.server import release
from fedcore.server.result import result_of
from fedcore.server.run import load_state
from fedcore.store.memory import MemoryStore
from fedcore.training.state import get_params

PRETRAINING = {"modalities": ["pet"], "epochs": 4, "learning_rate": 0.01}


def plan(**training: object) -> Plan:
    return imaged.plan(training={"pretraining": PRETRAINING, **training}, privacy={})


def update(
    what: Plan, *, every: int = 2, round_num: int = 0, site: str = "north", min_cell: int = 1
) -> ClientUpdate:
    """What a client that was just started sends."""
    params = get_params(build_model(what))
    learner = Learner(what, imaged.stores(**{site: every})[site], min_cell=min_cell)
    order = TrainOrder(
        site=site, seq=round_num, round_num=round_num, params_digest=digest(params),
        plan_digest=what.digest, run_id="run-1",
    )  # fmt: skip
    return learner.train(order, "", params)[0]


def distance(one: Params, other: Params, prefix: str) -> float:
    return max(float(np.abs(one[n] - other[n]).max()) for n in one if n.startswith(prefix))


def test_it_learns_to_reconstruct_and_the_decoder_stays() -> None:
    sent = update(plan(pretraining={**PRETRAINING, "epochs": 25}))
    measured = sent.measurements
    assert measured["pretraining.pet.last"] < 0.6 * measured["pretraining.pet.first"]
    assert set(sent.update) == set(get_params(build_model(plan())))
    plain = update(imaged.plan(privacy={}))
    assert distance(sent.update, plain.update, "encoder.pet.low") > 0.01
    assert sent.weights == plain.weights


def test_of_few_images_no_error_is_told() -> None:
    """Six of the twelve subjects have a PET."""
    told = {name for name in update(plan(), min_cell=6).measurements if "pretraining" in name}
    assert told == {f"pretraining.pet.{what}" for what in ("images", "first", "last")}
    few = update(plan(), min_cell=7)
    assert not [name for name in few.measurements if "pretraining" in name]
    assert digest(few.update) == digest(update(plan()).update)


def test_a_client_started_again_sends_the_same() -> None:
    one, other = update(plan()), update(plan())
    assert digest(one.update) == digest(other.update)


def test_a_site_without_the_modality_and_a_later_round_are_untouched() -> None:
    plain = imaged.plan(privacy={})
    assert digest(update(plan(), every=0).update) == digest(update(plain, every=0).update)
    later = update(plan(), round_num=1)
    assert digest(later.update) == digest(update(plain, round_num=1).update)
    twice = plan(pretraining={**PRETRAINING, "rounds": 2})
    assert digest(update(twice, round_num=1).update) != digest(later.update)


def test_behind_masks_the_sum_is_that_of_the_plain_run() -> None:
    """Weights, clipping and secure sums see an update like any other."""
    shared = {
        "rounds": 1, "aggregation": {"weights": "uniform"}, "privacy": {"clip_norm": 5.0},
        "training": {"pretraining": PRETRAINING},
    }  # fmt: skip
    states = []
    for mode in ("none", "masks"):
        bits = {"bits": 24} if mode == "masks" else {}
        what = imaged.plan(secure_aggregation={"mode": mode, **bits}, **shared)
        store = MemoryStore()
        run = toy.open_toy(store, what)
        data = imaged.stores(north=2, east=1)
        (record,), _ = toy.play(run, toy.InlineLauncher(store, data, policies=imaged.policies()))
        assert not record.dropped
        states.append(load_state(run, 1).params)
    assert distance(states[0], states[1], "") < 1e-5


def test_what_the_sites_reached_is_one_figure_over_all_images() -> None:
    store, data = MemoryStore(), imaged.stores(north=2, east=1)
    launcher = toy.InlineLauncher(store, data, policies=imaged.policies())
    run = toy.open_toy(
        store, imaged.plan(rounds=1, training={"pretraining": PRETRAINING}, privacy={})
    )
    (record,), _ = toy.play(run, launcher)
    release.judge(run, toy.evaluate(run, 1, "test", launcher))
    reached = result_of(run)["pretraining"]["pet"]
    assert (reached["sites"], reached["images"]) == (2, 6 + 12)
    for epoch in ("first", "last"):
        north, east = (
            record.measurements[site][f"pretraining.pet.{epoch}"] for site in ("north", "east")
        )
        assert reached[epoch] == pytest.approx((6 * north + 12 * east) / 18)


@pytest.mark.parametrize("fusion", ["sum", "decision_stacking"])
def test_what_the_last_map_says_is_left_to_the_task(fusion: str) -> None:
    what = imaged.plan(fusion=fusion)
    encoder = build_model(what).get_submodule("encoder.pet")
    autoencoder = Autoencoder(encoder, (1, 16, 13, 10))
    assert autoencoder(torch.zeros(2, 1, 16, 13, 10)).shape == (2, 1, 16, 13, 10)
    own = {n for n, _ in encoder.named_parameters()}
    copied = {n.removeprefix("trunk.") for n, _ in autoencoder.trunk.named_parameters("trunk")}
    inner = "model." if isinstance(encoder, Stacked) else ""
    assert own - copied == {f"{inner}project.weight", f"{inner}project.bias"}
    assert copied < own


def test_photos_have_one_too() -> None:
    task = imaged.plan().task
    photo = {"eye": {"kind": "fundus", "path": "eye", "shape": [32, 32]}}
    changed = type(task).model_validate({**task.model_dump(), "modalities": photo})
    encoder = classifier(changed, width=4).encoder["eye"]
    assert Autoencoder(encoder, (3, 32, 30))(torch.zeros(1, 3, 32, 30)).shape == (1, 3, 32, 30)


def test_a_frozen_encoder_is_not_pretrained() -> None:
    with pytest.raises(ConfigError, match=r"pretraining of 'pet' changes what training\.freeze"):
        update(plan(freeze=["encoder.pet.*"]))


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"training": {"pretraining": {"modalities": ["ct"]}}}, "'ct' is none of task.modalities"),
        ({"training": {"pretraining": {**PRETRAINING, "rounds": 9}}}, "rounds is 9"),
        (
            {
                "training": {"pretraining": PRETRAINING},
                "aggregation": {"weights": "uniform"},
                "privacy": {"subject": {"clip_norm": 1.0, "noise_multiplier": 1.0,
                                        "sampling_rate": 0.5, "steps": 1}},
            },
            "looks at every subject without the noise",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(sections: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        imaged.plan(**sections)


def test_modules_of_what_is_sent() -> None:
    assert modules(update(plan(), every=0).update) == ("encoder.mri", "head")
