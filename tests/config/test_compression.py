"""What a plan's codings may not combine: said with the reason, and the way out."""

from __future__ import annotations

from typing import Any

import pytest
import toy
from coded import CODINGS, SIGNS, TOP_K
from pydantic import ValidationError

from fedcore.demo.plan import Choices, plan_of

SUBSAMPLE = {"stage": "subsample", "every": 4}
LOW_RANK = {"stage": "low_rank", "rank": 2}
MASKS = {"secure_aggregation": {"mode": "masks"}, "aggregation": {"weights": "uniform"}}
MEDIAN = {"aggregation": {"rule": "median", "weights": "uniform"}, "cohort": {"min_clients": 3}}


@pytest.mark.parametrize("name", CODINGS)
def test_accepted(name: str) -> None:
    plan = toy.plan(compression=CODINGS[name])
    assert type(plan).model_validate_json(plan.canonical()).digest == plan.digest


@pytest.mark.parametrize(
    ("coding", "more", "reason"),
    [
        ({"up": [SIGNS, TOP_K], "feedback": True}, {}, "top_k cannot follow quantise"),
        ({"up": [TOP_K, TOP_K], "feedback": True}, {}, "top_k cannot follow top_k"),
        ({"up": [SUBSAMPLE, LOW_RANK], "feedback": True}, {}, "low_rank cannot follow subsample"),
        ({"down": [SIGNS, SIGNS]}, {}, "down: quantise cannot follow quantise"),
        ({"up": [TOP_K]}, {}, "top_k on the way up loses for ever"),
        ({"up": [SUBSAMPLE]}, {}, "subsample on the way up loses for ever"),
        ({"last": {"up": [LOW_RANK]}}, {}, "low_rank on the way up loses for ever"),
        ({"feedback": True}, {}, "feedback has no effect"),
        ({"down": [LOW_RANK]}, {}, "differ from machine to machine"),
        ({"last": {"down": [SIGNS]}}, {}, "the params travel whole"),
        ({"last": {"rounds": 3}}, {}, "last.rounds is 3, and the plan has 2"),
        ({"up": [TOP_K], "feedback": True}, MASKS, "top_k on the way up does not commute"),
        ({"up": [SIGNS]}, MASKS, "quantise on the way up does not commute"),
        ({"last": {"up": [SIGNS]}}, MASKS, "quantise on the way up does not commute"),
        ({"up": [TOP_K], "feedback": True}, MEDIAN, "0 almost everywhere"),
    ],
)
def test_refused(coding: dict[str, Any], more: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        toy.plan(compression=coding, **more)


@pytest.mark.parametrize(
    "stage",
    [
        {"stage": "zip"},
        {"stage": "top_k", "share": 1.0},
        {"stage": "quantise", "bits": 9},
        {"stage": "subsample", "every": 1},
        {"stage": "low_rank", "rank": 0},
        {"stage": "float16", "bits": 2},
    ],
)
def test_stages_that_are_none(stage: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        toy.plan(compression={"up": [stage], "feedback": True})


def test_the_last_rounds_have_stages_of_their_own() -> None:
    last = {"rounds": 2, "down": [SIGNS], "up": []}
    plan = toy.plan(
        rounds=5, compression={"up": [TOP_K], "feedback": True, "down": [TOP_K], "last": last}
    )
    stages = [
        [stage["stage"] for stage in plan.coding(way, round_num)["stages"]]
        for way in ("up", "down")
        for round_num in range(5)
    ]
    assert stages == [["top_k"]] * 3 + [[]] * 2 + [["top_k"]] * 3 + [["quantise"]] * 2


def test_rounding_is_unbiased_just_where_nothing_makes_good_what_it_loses() -> None:
    for feedback in (False, True):
        plan = toy.plan(compression={"up": [SIGNS], "down": [SIGNS], "feedback": feedback})
        assert plan.coding("up", 0)["unbiased"] == (not feedback)
        assert not plan.coding("down", 0)["unbiased"]


@pytest.mark.parametrize("dp", [None, "site", "subject"])
@pytest.mark.parametrize("secure", [None, "masks", "ckks"])
def test_the_demo_compresses_in_every_mode(secure: str | None, dp: str | None) -> None:
    choices = Choices(secure=secure, compress=True, dp=dp, epsilon=None if dp is None else 8.0)
    plan = plan_of(choices)
    assert plan.compression.compress
    assert plan.compression.down
    assert (plan.compression.up[0].stage == "subsample") == (secure is not None)
