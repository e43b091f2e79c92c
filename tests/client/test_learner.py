"""What a site tells of its data with every reply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import toy

from fedcore.client.learner import Learner
from fedcore.data.site import SiteData
from fedcore.errors import PermanentError
from fedcore.params import digest
from fedcore.records import DataSummary, EvalOrder, TrainOrder
from fedcore.training import local
from fedcore.training.state import get_params

LEFT_OUT = {
    "train": {"no label": 2, "truncated": 1},
    "validation": {},
    "test": {"no label": 1, "consent withdrawn": 3},
}
IN_ALL = {"consent withdrawn": 3, "no label": 3, "truncated": 1}


@pytest.fixture
def learner(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Learner]:
    whole = toy.dataset

    def dataset(site: SiteData) -> dict[str, Any]:
        splits: dict[str, Any] = whole(site)
        for name, split in splits.items():
            split.summary = DataSummary(len(split), {"t1": len(split)}, LEFT_OUT[name])
        return splits

    def make(*, summaries: bool = True) -> Learner:
        if summaries:
            monkeypatch.setattr(toy, "dataset", dataset)
        return Learner(toy.plan(), toy.site_store("north"), min_cell=5)

    return make


def replies(learner: Learner) -> dict[str, DataSummary]:
    """What is told with an update, and with an evaluation of each held-out split."""
    params = get_params(toy.build_model(toy.plan()))
    named = {"params_digest": digest(params), "plan_digest": "", "run_id": "run-1"}
    order = TrainOrder(site="north", seq=0, round_num=0, **named)
    told = {"train": learner.train(order, "", params)[0].data}
    for seq, split in enumerate(("validation", "test"), start=1):
        check = EvalOrder(site="north", seq=seq, round_num=1, split=split, **named)
        told[split] = learner.evaluate(check, "", params, None).data
    return told


def test_every_reply_tells_what_was_left_out_of_all_splits(
    learner: Callable[..., Learner],
) -> None:
    told = replies(learner())
    assert [data.left_out for data in told.values()] == [IN_ALL] * 3
    assert [told[name].num_subjects for name in LEFT_OUT] == [24, 12, 12], "of the split itself"
    assert told["test"].modalities == {"t1": 12}


def test_a_dataset_that_tells_nothing_left_nothing_out(learner: Callable[..., Learner]) -> None:
    told = replies(learner(summaries=False))
    assert [data.left_out for data in told.values()] == [{}] * 3
    assert told["train"] == DataSummary(24, inputs={"input": (3,)})


def test_an_update_that_is_no_number_is_refused_though_the_loss_was_one(
    learner: Callable[..., Learner], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = local.train

    def overflowing(*args: Any, **options: Any) -> local.TrainResult:
        result = train(*args, **options)
        params = {name: np.full_like(array, np.inf) for name, array in result.params.items()}
        return replace(result, params=params)

    monkeypatch.setattr(local, "train", overflowing)
    with pytest.raises(PermanentError, match=r"NaN or an infinity: lower training\.learning_rate"):
        replies(learner())
