"""What came of a run: each site's own figures, counted once."""

from __future__ import annotations

from typing import Any

import pytest
import toy

from fedcore.config.plan import Plan
from fedcore.data.site import SiteData
from fedcore.errors import NotFound
from fedcore.records import DataSummary
from fedcore.server import evaluation, orders, release, replies
from fedcore.server.evaluation import slowest
from fedcore.server.result import headline, result_of
from fedcore.store.memory import MemoryStore

LEFT_OUT = {"train": {"no label": 2}, "validation": {"truncated": 1}, "test": {"no label": 1}}
IN_ALL = {"no label": 3, "truncated": 1}


@pytest.fixture(autouse=True)
def sites_that_left_something_out(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = toy.dataset

    def dataset(site: SiteData) -> dict[str, Any]:
        splits: dict[str, Any] = whole(site)
        for name, split in splits.items():
            split.summary = DataSummary(len(split), left_out=LEFT_OUT[name])
        return splits

    monkeypatch.setattr(toy, "dataset", dataset)


def finished(plan: Plan, store: MemoryStore, absent: str = "") -> toy.Run:
    """A run to its verdict, without the export; ``absent`` never answers."""
    launcher = toy.InlineLauncher(store, toy.site_stores(), absent=frozenset({absent} - {""}))
    run = toy.open_toy(store, plan)
    toy.play(run, launcher)
    asked = orders.eval_orders(run, plan.rounds, "test")
    missing = replies.await_replies(run, asked, launcher)
    release.judge(run, evaluation.evaluate(run, asked, missing))
    return run


def test_what_was_left_out_is_of_all_splits_and_counted_once() -> None:
    result = result_of(finished(toy.plan(rounds=3), MemoryStore()))
    assert {site: of["left_out"] for site, of in result["sites"].items()} == dict.fromkeys(
        toy.SITES, IN_ALL
    )
    assert headline(result)["sites"]["east"]["left_out"] == IN_ALL


def test_a_site_that_was_never_asked_to_train_tells_too() -> None:
    plan = toy.plan(rounds=1, cohort={"size": 2, "min_clients": 2})
    result = result_of(finished(plan, MemoryStore()))
    trained = {site for site, of in result["sites"].items() if of["num_examples"]["train"] > 0}
    assert len(trained) == 2
    assert all(of["left_out"] == IN_ALL for of in result["sites"].values())


def test_of_a_site_that_never_answered_nothing_is_known() -> None:
    result = result_of(finished(toy.plan(), MemoryStore(), absent="west"))
    west = result["sites"]["west"]
    assert (west["left_out"], west["summary"], west["num_examples"]["train"]) == ({}, None, 0)
    assert west["refusals"] == ["switched off"]


def test_without_a_verdict_there_is_no_result() -> None:
    with pytest.raises(NotFound, match="no verdict yet"):
        result_of(toy.open_toy(MemoryStore(), toy.plan()))


def test_every_byte_is_in_a_round_or_in_the_test_after_the_last() -> None:
    run = finished(toy.plan(rounds=3), MemoryStore())
    result, final = result_of(run), evaluation.evaluation_of(run, 3, "test")
    assert final is not None
    for way in ("bytes_up", "bytes_down"):
        by_round = [item[way] for item in result["history"]]
        assert min(by_round) > 0
        assert sum(by_round) + getattr(final, way) == result[way]


def test_what_the_updates_take_is_told_beside_the_rest() -> None:
    first, *_ = (result := result_of(finished(toy.plan(rounds=1), MemoryStore())))["history"]
    assert 0 < first["update_bytes"] < first["bytes_up"]
    assert result["params_bytes"] == 4 * (3 * 4 + 4 + 4 * 2 + 2)


def test_bytes_by_phase_are_all_bytes_and_their_measure_is_float32() -> None:
    result = result_of(finished(toy.plan(rounds=2), MemoryStore()))
    for way in ("up", "down"):
        assert sum(part[way] for part in result["bytes"].values()) == result[f"bytes_{way}"]
    each = result["params_bytes"] * len(toy.SITES)
    assert result["bytes_as_float32"] == 2 * (each + each), "of two rounds, both ways"


def test_the_seconds_of_a_site_count_whether_it_trained_or_validated() -> None:
    assert slowest({"a": {"seconds.train": 2.0, "loss": 9.0}, "b": {"seconds.train": 3.0}}) == {
        "train": 3.0
    }
    assert slowest({}) == {}
    run = finished(toy.plan(rounds=2), MemoryStore())
    for item in result_of(run)["history"]:
        assert {"train", "evaluate", "download", "load"} <= set(item["seconds"])
    validation = evaluation.evaluation_of(run, 2, "validation")
    assert validation is not None
    assert validation.seconds["download"] > 0, "what the next training begins from"
