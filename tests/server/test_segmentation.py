"""A segmentation through whole runs: learnt, judged, exported, registered, and told."""

from __future__ import annotations

from typing import Any

import numpy as np
import outlined
import pytest
import torch
import toy
from monai.inferers.utils import sliding_window_inference

from fedcore.client.learner import Learner
from fedcore.params import digest, modules
from fedcore.records import EvaluationRecord, TrainOrder
from fedcore.registry.api import Registry
from fedcore.registry.card import model_card
from fedcore.report.render import render
from fedcore.report.run import RunReport
from fedcore.server import evaluation, orders, release, replies
from fedcore.server.result import headline, result_of
from fedcore.server.run import Run, load_state
from fedcore.serving.predictor import Predictor
from fedcore.store.memory import MemoryStore
from fedcore.training.state import load_params

FIGURES = ("specificity", "dice")
GATES = {
    "min_dice": 0.6, "min_site_dice": 0.5, "min_sensitivity": 0.6, "max_group_gap": 0.3,
}  # fmt: skip


def launched(store: MemoryStore) -> toy.InlineLauncher:
    return toy.InlineLauncher(store, outlined.stores(), policies=outlined.policies())


def played(what: toy.Plan, *, exported: bool = False) -> tuple[Run, list[Any], EvaluationRecord]:
    """Rounds, then the test split, with the export if that is wanted."""
    store = MemoryStore()
    run, launcher = toy.open_toy(store, what), launched(store)
    records, _ = toy.play(run, launcher)
    if not exported:
        return run, records, toy.evaluate(run, what.rounds, "test", launcher)
    asked = orders.eval_orders(run, what.rounds, "test", onnx_digest=release.export(run))
    missing = replies.await_replies(run, asked, launcher)
    return run, records, evaluation.evaluate(run, asked, missing)


@pytest.fixture(scope="module")
def whole() -> tuple[Run, list[Any], EvaluationRecord]:
    return played(outlined.plan(rounds=4, gates=GATES), exported=True)


def test_the_federation_learns_to_outline(whole: Any) -> None:
    _, _, found = whole
    overall = found.summary["overall"]
    assert overall["dice"]["value"] > 0.75
    assert overall["sensitivity"]["value"] > 0.75
    assert overall["num_examples"] == 3 * outlined.SPLITS["test"]
    assert overall["per_class"]["lesion"]["num_examples"] == 18
    assert set(found.summary["groups"]["sex"]) == set(), "four of a sex are too few to show"
    assert found.missing == {}


def test_a_site_without_a_modality_trains_the_rest(whole: Any) -> None:
    _, records, _ = whole
    trained = {site: set(weights) for site, weights in records[0].weights.items()}
    everything = {"encoder.mri", "encoder.pet", "decoder", "head"}
    assert trained == {
        "east": everything, "north": everything, "west": everything - {"encoder.pet"},
    }  # fmt: skip


def test_the_gate_asks_for_dice_over_all_at_the_worst_site_and_between_groups(whole: Any) -> None:
    run, _, found = whole
    verdict = release.judge(run, found)
    checks = {check.name: check for check in verdict.checks}
    for name in ("min_dice", "min_site_dice", "min_sensitivity", "onnx_max_abs_diff"):
        assert checks[name].passed, checks[name].reason
    worst = min(of["overall"]["dice"]["value"] for of in found.sites.values())
    assert checks["min_site_dice"].value == worst
    assert not checks["max_group_gap"].passed
    assert "no two groups of sex can be compared" in checks["max_group_gap"].reason


def test_the_export_is_compared_and_registered_with_its_figures(whole: Any) -> None:
    run, _, found = whole
    assert set(found.onnx_max_abs_diff) == set(toy.SITES)
    assert max(found.onnx_max_abs_diff.values()) < 1e-4
    store = MemoryStore()
    verdict = release.judge(run, found)
    version = release.register(run, found, verdict, store)
    card = model_card(Registry(store, run.plan.name).show(version))
    assert "| All sites | 24 |" in card
    assert "Dice" in card
    assert "AUC" not in card
    assert Predictor(run.exchange.onnx(run.run_id)).classes == ("background", "lesion")
    result = result_of(run, version)
    told = headline(result)
    assert told["dice"] == found.summary["overall"]["dice"]["value"]
    assert told["sites"]["west"]["dice"] == found.sites["west"]["overall"]["dice"]["value"]
    assert "macro_auc" not in told
    assert result["history"][-1]["dice"]["value"] > result["history"][0]["dice"]["value"]
    page = render(RunReport(**result))
    assert "a segmentation that says of each voxel what it is (background, lesion)" in page
    assert "Subjects by Dice" in page
    assert "AUC" not in page.partition("The whole plan")[0]


def test_a_second_run_gives_the_same_bits() -> None:
    found = [digest(load_state(played(outlined.plan(rounds=1))[0], 1).params) for _ in range(2)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "sections",
    [
        pytest.param({"secure_aggregation": {"mode": "masks", "bits": 24}}, id="masks"),
        pytest.param(
            {"secure_aggregation": {"mode": "masks", "statistics": True}, "task": {"groups": []}},
            id="masks, statistics too",
        ),
        pytest.param({"secure_aggregation": {"mode": "ckks"}}, id="ckks"),
        pytest.param(
            {"compression": {"up": [{"stage": "top_k", "share": 0.2}, {"stage": "quantise",
             "bits": 8}], "feedback": True}}, id="compressed",
        ),
    ],
)  # fmt: skip
def test_secure_and_coded_rounds_learn_it_too(sections: dict[str, Any]) -> None:
    privacy = {"clip_norm": 4.0}
    _, _, found = played(outlined.plan(rounds=3, privacy=privacy, **sections))
    assert found.summary["overall"]["dice"]["value"] > 0.4
    assert found.summary["overall"]["num_examples"] == 24


PATCHES = {"shape": [8, 8, 8], "per_subject": 2, "foreground": 0.6, "overlap": 0.25}
PATCHED = {"batch_size": 4, "epochs": 2, "learning_rate": 0.02, "patches": PATCHES}


@pytest.fixture(scope="module")
def patched() -> tuple[Run, list[Any], EvaluationRecord]:
    return played(outlined.plan(rounds=4, training=PATCHED), exported=True)


def test_patches_learn_it_and_whole_volumes_are_judged(patched: Any) -> None:
    run, records, found = patched
    assert found.summary["overall"]["dice"]["value"] > 0.7
    assert found.summary["overall"]["num_examples"] == 24
    assert max(found.onnx_max_abs_diff.values()) < 1e-4
    assert set(found.onnx_max_abs_diff) == set(toy.SITES)
    assert records[0].data["north"].num_subjects == 12
    store = MemoryStore()
    release.register(run, found, release.judge(run, found), store)
    card = model_card(Registry(store, run.plan.name).show(1))
    assert "takes patches of 8 × 8 × 8 voxels" in card


def test_who_has_no_structure_is_spared_by_the_fewest_voxels_that_count() -> None:
    told, cards = [], []
    for voxels in (0, outlined.SIDE**3):
        run, _, found = played(fewest(outlined.plan(rounds=1), voxels), exported=True)
        release.register(run, found, release.judge(run, found), store := MemoryStore())
        cards.append(model_card(Registry(store, run.plan.name).show(1)))
        told.append({name: found.summary["overall"][name]["value"] for name in FIGURES})
    assert told[0]["specificity"] < 1
    assert told[0]["dice"] > 0
    assert told[1] == {"specificity": 1, "dice": 0}
    assert "count as none" not in cards[0]
    assert f"than {outlined.SIDE**3} of lesion count as none" in cards[1]


def fewest(plan: toy.Plan, voxels: int) -> toy.Plan:
    fields = plan.model_dump(mode="json")
    fields["task"]["target"]["structures"]["lesion"]["least_voxels"] = voxels
    return toy.Plan.model_validate(fields)


def test_what_is_served_of_a_larger_volume_is_what_monai_makes_of_the_model(patched: Any) -> None:
    run, _, _ = patched
    predictor = Predictor(run.exchange.onnx(run.run_id))
    assert predictor.inputs["mri"] == (1, 8, 8, 8)
    module = toy.build_model(run.plan).eval()
    load_params(module, load_state(run, run.plan.rounds).shared)
    volume = torch.randn(2, 1, 21, 12, 9, generator=torch.Generator().manual_seed(2))
    present = torch.tensor([[1.0, 0.0]] * 2)
    with torch.inference_mode():
        wanted = sliding_window_inference(
            volume, PATCHES["shape"], 2, overlap=PATCHES["overlap"], mode="gaussian",
            predictor=lambda x: module({"mri": x, "present": present[:len(x)]}).softmax(dim=1),
        )  # fmt: skip
    found = predictor.predict({"mri": volume.numpy()})
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_client_that_was_killed_draws_the_same_patches_again() -> None:
    plan = outlined.plan(training=PATCHED)
    params = toy.get_params(toy.build_model(plan))
    order = TrainOrder("run-1", "west", 0, 0, plan.digest, digest(params))
    warm = Learner(plan, outlined.stores()["west"], min_cell=5)
    first, again = (warm.train(order, "", params)[0].update for _ in range(2))
    fresh = Learner(plan, outlined.stores()["west"], min_cell=5)
    assert digest(first) == digest(again) == digest(fresh.train(order, "", params)[0].update)
    later = TrainOrder("run-1", "west", 1, 1, plan.digest, digest(params))
    assert digest(first) != digest(fresh.train(later, "", params)[0].update)


def test_privacy_of_each_subject_clips_a_whole_outline() -> None:
    """Every module is noisy, whoever has which modality; and the same key gives the same bits."""
    subject = {"clip_norm": 0.5, "noise_multiplier": 1.0, "sampling_rate": 0.5, "steps": 2}
    plan = outlined.plan(privacy={"clip_norm": 100.0, "subject": subject})
    learner = Learner(plan, outlined.stores()["west"], min_cell=5)
    params = toy.get_params(toy.build_model(plan))
    order = TrainOrder("run-1", "west", 0, 0, plan.digest, digest(params))
    updates = [learner.train(order, "", params, noise_key=key)[0].update
               for key in (b"a" * 32, b"a" * 32, b"b" * 32)]  # fmt: skip
    assert set(modules(updates[0])) == {"encoder.mri", "encoder.pet", "decoder", "head"}
    assert digest(updates[0]) == digest(updates[1]) != digest(updates[2])
    assert all(np.abs(array).max() > 0 for array in updates[0].values())
