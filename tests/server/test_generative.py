"""Whole runs of the generative models, as one more plan: in every mode, and with every noise."""

from __future__ import annotations

from typing import Any

import means
import numpy as np
import pytest
import toy

from fedcore.errors import ConfigError
from fedcore.params import digest, modules
from fedcore.server.run import Run, load_state
from fedcore.store.memory import MemoryStore

UNIFORM = {"weights": "uniform"}
SUBJECT = {"clip_norm": 1.0, "noise_multiplier": 1.0, "sampling_rate": 0.5, "steps": 3}
MODES: dict[str, dict[str, Any]] = {
    "masks, and few values": {
        "aggregation": UNIFORM,
        "secure_aggregation": {"mode": "masks"},
        "compression": {"up": [{"stage": "subsample", "every": 2}], "feedback": True},
    },
    "coded": {
        "compression": {
            "up": [{"stage": "top_k", "share": 0.2}, {"stage": "quantise", "bits": 4}],
            "feedback": True,
        }
    },
    "noise for each site": {
        "aggregation": UNIFORM,
        "privacy": {"clip_norm": 5.0, "noise_multiplier": 0.5},
    },
    "noise for each subject": {
        "aggregation": UNIFORM,
        "privacy": {"clip_norm": 100.0, "subject": SUBJECT},
    },
}


RECONSTRUCTION = {"reconstruction": True}

SHARED = {
    "generate:conditional_vae": ("prior",),
    "adversarial:conditional_gan": ("critic", "judge"),
}
"""Model → its modules of no modality."""


def played(what: Any) -> tuple[Run, list[Any], list[Any]]:
    """One of the three sites has no PET."""
    store, data = MemoryStore(), toy.site_stores()
    data["west"].put("no-pet", b"")
    run = toy.open_toy(store, what)
    records, evaluations = toy.play(run, means.launcher(store, data))
    return run, records, evaluations


def test_it_learns_the_classes_from_whatever_each_site_has() -> None:
    run, records, evaluations = played(means.plan())
    assert evaluations[-1].summary["overall"]["macro_auc"]["value"] > 0.95
    weights = records[-1].weights
    assert "encoder.pet" in weights["east"]
    assert "encoder.pet" not in weights["west"]
    again, _, _ = played(means.plan())
    assert digest(load_state(run, 3).params) == digest(load_state(again, 3).params)


def test_how_far_its_images_are_off_is_counted_at_the_sites() -> None:
    """And is the same, over all sites, where no site's counts are seen."""
    _, _, seen = played(means.plan(metrics=RECONSTRUCTION))
    begun, ended = (e.summary["overall"]["reconstruction"] for e in (seen[0], seen[-1]))
    assert [ended[name]["num_examples"] for name in means.NAMES] == [36, 36, 18]
    assert all(ended[name]["value"] < begun[name]["value"] for name in means.NAMES)
    assert means.NOISE**2 < ended["pet"]["low"] < ended["pet"]["value"] < 0.5
    assert seen[-1].sites["west"]["overall"]["reconstruction"]["pet"]["value"] is None
    with_sites, without = (
        played(means.plan(rounds=1, metrics=RECONSTRUCTION, aggregation=UNIFORM, **secure))[2][0]
        for secure in ({}, {"secure_aggregation": {"mode": "masks", "statistics": True}})
    )
    found, hidden = (e.summary["overall"]["reconstruction"] for e in (with_sites, without))
    for name in means.NAMES:
        assert hidden[name]["num_examples"] == found[name]["num_examples"]
        assert hidden[name]["value"] == pytest.approx(found[name]["value"], rel=1e-3)


def test_a_model_that_reconstructs_nothing_is_not_asked_to() -> None:
    with pytest.raises(ConfigError, match=r"a ConditionalGan has no expected\(\)"):
        played(means.plan(model="adversarial:conditional_gan", metrics=RECONSTRUCTION))


@pytest.mark.parametrize("model", SHARED)
def test_whether_it_copies_is_counted_at_the_sites(model: str) -> None:
    """Once, at the end, of all who are trained on or held out."""
    store, data = MemoryStore(), toy.site_stores()
    what = means.plan(rounds=1, model=model, metrics={"memorisation": 30})
    run, launcher = toy.open_toy(store, what), means.launcher(store, data)
    _, (validation,) = toy.play(run, launcher)
    test = toy.evaluate(run, 1, "test", launcher)
    for evaluation, sites in ((validation, 0), (test, 3)):
        found = evaluation.summary["overall"]["memorisation"]
        assert (found["trained_on"], found["held_out"]) == (24 * sites, 12 * sites)
    assert 0.0 <= found["low"] < found["value"] < found["high"] <= 1.0


def test_under_noise_for_each_subject_nobody_trained_on_is_counted() -> None:
    with pytest.raises(ValueError, match="counts those trained on without the noise"):
        means.plan(metrics={"memorisation": 30}, **MODES["noise for each subject"])


def test_a_judge_that_saw_made_subjects_alone_tells_real_ones_at_every_site() -> None:
    training = {"epochs": 20, "batch_size": 8, "learning_rate": 0.01}
    what = means.plan(model="adversarial:conditional_gan", training=training)
    _, records, evaluations = played(what)
    assert evaluations[-1].summary["overall"]["macro_auc"]["value"] > 0.95
    assert "encoder.pet" not in records[-1].weights["west"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", SHARED)
def test_every_site_takes_part_in_every_mode(model: str, mode: str) -> None:
    what = means.plan(rounds=1, model=model, **MODES[mode])
    run, records, evaluations = played(what)
    assert not records[0].dropped
    assert not evaluations[0].missing
    begin, end = (load_state(run, n).params for n in (0, 1))
    assert all(np.isfinite(array).all() for array in end.values())
    moved = modules(name for name in end if not np.array_equal(begin[name], end[name]))
    encoders = ("encoder.flair", "encoder.pet", "encoder.t1ce")
    assert moved == tuple(sorted((*encoders, *SHARED[model])))
