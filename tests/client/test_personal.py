"""What a plan leaves at the sites stays there, and is what the next round begins from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import toy
from faults import FaultyStore, Killed
from torch import nn
from torch.nn.functional import cross_entropy

from fedcore import seeds
from fedcore.client.inbox import Inbox
from fedcore.client.learner import Learner
from fedcore.client.personal import Personal
from fedcore.config.plan import Plan
from fedcore.data.site import SiteData
from fedcore.errors import ConfigError, OrderRefused
from fedcore.params import digest
from fedcore.records import TrainOrder
from fedcore.server import release
from fedcore.server.run import load_state
from fedcore.store import blobs
from fedcore.store.api import Store
from fedcore.store.memory import MemoryStore
from fedcore.training import local
from fedcore.training.state import get_params, load_params

HEAD = {"head.weight", "head.bias"}
BODY = {"body.weight", "body.bias"}
KEPT = "derivatives/fedcore/personal/"
FIELDS = {"batch_size": 8, "learning_rate": 0.05, "local": ["head.*"], "local_epochs": 1}


def plan(secure: str = "none", rounds: int = 3, **training: object) -> Plan:
    return toy.plan(
        rounds=rounds,
        training={**FIELDS, **training},
        aggregation={"weights": "uniform"},
        secure_aggregation={"mode": secure},
    )


def play(what: Plan, data: Mapping[str, Store], store: Store | None = None) -> toy.Run:
    store = store or MemoryStore()
    run = toy.open_toy(store, what)
    toy.play(run, toy.InlineLauncher(store, data))
    return run


def kept(store: Store) -> dict[str, str]:
    """Round → digest of what the site keeps of it."""
    return {key[-17:-12]: digest(blobs.unpack(store.get(key))[0]) for key in list(store.list(KEPT))}


@pytest.mark.parametrize("secure", ["none", "masks"])
def test_local_params_are_in_no_object_that_is_exchanged(secure: str) -> None:
    exchanged, data = MemoryStore(), toy.site_stores()
    run = play(plan(secure), data, exchanged)
    assert set(load_state(run, 3).params) == BODY
    for key in exchanged.list():
        assert b"head.weight" not in exchanged.get(key), key
    assert all(list(kept(store)) == ["00001", "00002"] for store in data.values())
    assert len({kept(store)["00002"] for store in data.values()}) == 3, "each site has its own"


def test_masks_hide_and_do_not_change_what_the_sites_share() -> None:
    plain, masked = (load_state(play(plan(s), toy.site_stores()), 3).params for s in SECURE)
    assert all(np.allclose(plain[name], masked[name], atol=1e-4) for name in BODY)


SECURE = ("none", "masks")


def test_changes_travel_coded_both_ways_without_what_stays() -> None:
    """A client that holds nothing begins from the shared initial params, as the changes do."""
    coding = {"up": [{"stage": "top_k", "share": 0.5}], "down": [{"stage": "quantise", "bits": 8}]}
    what = toy.plan(
        rounds=3,
        training=FIELDS,
        aggregation={"weights": "uniform"},
        compression={**coding, "feedback": True},
    )
    store, data = MemoryStore(), toy.site_stores()
    run = play(what, data, store)
    state, fresh = load_state(run, 3), Inbox(run.exchange)
    assert set(state.shared) == BODY
    for key in list(store.list("params/run-1/")):
        if key.endswith(".safetensors") and "change" not in key:
            store.delete(key)  # so that the changes alone tell
    spent = {"bytes_down": 0.0, "seconds.download": 0.0}
    got = fresh.params("run-1", 3, digest(state.shared), spent, what)
    assert digest(got) == digest(state.shared)


def test_killed_at_any_operation_on_its_bucket_a_site_trains_the_same_again() -> None:
    what = plan(rounds=2)

    def attempt(at: int, before: bool) -> tuple[str, dict[str, str], list[str]]:
        store, data = MemoryStore(), toy.site_stores()
        faulty = FaultyStore(data["north"], at, before=before)
        try:
            run = play(what, {**data, "north": faulty}, store)
        except Killed:
            run = play(what, data, store)
        return digest(load_state(run, 2).params), kept(data["north"]), faulty.operations

    params, own, operations = attempt(-1, True)
    ours = [n for n, told in enumerate(operations) if KEPT in told]
    assert len(ours) > 8
    for at in ours:  # before it, which is after the one before
        assert attempt(at, True)[:2] == (params, own), operations[at]


def test_the_next_round_begins_from_what_the_site_kept() -> None:
    what, bucket = plan(), toy.site_store("north")
    learner = Learner(what, bucket, min_cell=5)
    begin = get_params(toy.build_model(what))
    shared = {name: begin[name] for name in BODY}
    order = TrainOrder("run-1", "north", 0, 0, what.digest, digest(shared))
    first, _ = learner.train(order, "", shared, personal=Personal(bucket, order))
    assert set(first.update) == BODY
    assert set(first.weights) == {"body"}

    after = replace(order, seq=1, round_num=1)
    found = Personal(bucket, after).before()
    assert set(found) == HEAD
    assert not np.array_equal(found["head.bias"], begin["head.bias"])
    again, _ = learner.train(order, "", shared, personal=Personal(bucket, order))
    assert digest(again.update) == digest(first.update), "round 0 begins as round 0 did"
    second, _ = learner.train(after, "", shared, personal=Personal(bucket, after))
    anew, _ = learner.train(after, "", shared, personal=Personal(MemoryStore(), after))
    assert digest(second.update) != digest(anew.update), "round 1 begins from the head of round 0"


def test_a_server_that_sends_what_stays_is_refused() -> None:
    what, bucket = plan(), toy.site_store("north")
    params = get_params(toy.build_model(what))
    order = TrainOrder("run-1", "north", 0, 0, what.digest, digest(params))
    with pytest.raises(OrderRefused, match=r"'head.bias', which stays at the site"):
        Learner(what, bucket, min_cell=5).train(order, "", params, personal=Personal(bucket, order))
    assert kept(bucket) == {}


@pytest.mark.parametrize(
    ("local", "fault"),
    [(["nose.*"], "no param's name matches 'nose"), (["*"], "leaves no param")],
)
def test_patterns_that_cannot_be_meant(local: list[str], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        toy.open_toy(MemoryStore(), plan(local=local, local_epochs=0))


def test_nothing_that_was_not_judged_is_promoted() -> None:
    """The gate is on each site's own model, and the export is none of them."""
    store, data = MemoryStore(), toy.site_stores()
    run = play(plan(rounds=1), data, store)
    launcher = toy.InlineLauncher(store, data)
    evaluation = toy.evaluate(run, 1, "test", launcher)
    onnx = dict.fromkeys(evaluation.sites, 0.0)
    verdict = release.judge(run, replace(evaluation, onnx_max_abs_diff=onnx))
    assert not verdict.passed
    assert "training.local: head.*" in verdict.reasons[-1]
    assert [check.name for check in verdict.checks if not check.passed][-1] == "whole_model"


def test_what_is_exported_are_the_shared_params_and_the_initial_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exported: dict[str, np.ndarray] = {}

    def export(module: nn.Module, *_: object, **__: object) -> bytes:
        exported.update(get_params(module))
        return b"onnx"

    monkeypatch.setattr("fedcore.registry.onnx.export", export)
    run = play(plan(rounds=1), toy.site_stores())
    release.export(run)
    begin, shared = get_params(toy.build_model(run.plan)), load_state(run, 1).params
    assert digest(exported) == digest({**begin, **shared})


def test_fedbn_averages_all_but_the_normalisation_whose_statistics_are_the_site_s() -> None:
    """Li et al. 2021, Algorithm 1: two rounds, done by hand beside it."""
    what = toy.plan(
        rounds=2,
        privacy={},
        aggregation={"weights": "uniform"},
        training={"optimizer": "sgd", "learning_rate": 0.05, "local": ["norm.*"]},
        task={**toy.plan().task.model_dump(), "model": {"function": "toy:normalised"}},
    )
    data = toy.site_stores()
    run = play(what, data)
    module = toy.build_model(what)
    models = dict.fromkeys(toy.SITES, get_params(module))
    for round_num in range(2):
        for site in toy.SITES:
            load_params(module, models[site])
            table = toy.dataset(SiteData(what.task, data[site], what.purpose))["train"]
            seed = seeds.derive(what.seed, "train", site, round_num)
            result = local.train(module, table, cross_entropy, what.training, seed=seed)
            models[site] = dict(result.params)
        for name in models["east"]:
            if not name.startswith("norm."):
                mean = np.mean([models[site][name] for site in toy.SITES], axis=0)
                models = {site: {**own, name: mean} for site, own in models.items()}
    shared = load_state(run, 2).params
    assert set(shared) == {"body.weight", "body.bias", "head.weight", "head.bias"}
    for name, array in shared.items():
        assert np.allclose(array, models["east"][name], atol=1e-6), name
    for site, store in data.items():
        (key,) = [key for key in store.list(KEPT) if "00001." in key]
        norm = blobs.unpack(store.get(key))[0]
        assert set(norm) == {f"norm.{n}" for n in ("weight", "bias", "running_mean", "running_var")}
        assert all(np.allclose(a, models[site][n], atol=1e-6) for n, a in norm.items()), site
