"""The study of rare classes trains on what it says."""

from collections import Counter
from typing import Any

import pytest
import torch
from toy import site_store

from fedcore.data.bids import BidsDataset, Example
from fedcore.data.site import SiteData
from studies import federation, skewed


def split(counts: dict[int, int]) -> BidsDataset:
    classes = [label for label, count in counts.items() for _ in range(count)]
    examples = tuple(
        Example(f"sub-{n}", {"flair": torch.zeros(1, 2, 2, 2)}, label, {})
        for n, label in enumerate(classes)
    )
    return BidsDataset(("flair",), (), examples)


def test_a_site_trains_on_a_fifth_of_its_rare_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole: dict[str, Any] = {"train": split({0: 9, 1: 11, 2: 4, 3: 6}), "test": split({2: 5})}
    monkeypatch.setattr(federation, "dataset", lambda _site, **_: whole)
    plan = skewed.plan_of("FedAvg", seed=0)
    found = skewed.dataset(SiteData(plan.task, site_store("east"), plan.purpose))
    assert Counter(found["train"].targets) == {0: 9, 1: 11, 2: 1, 3: 1}
    assert found["test"] is whole["test"]


def test_what_is_trained_on_is_the_study_s_own_data() -> None:
    plan = skewed.plan_of("logit adjustment", seed=2)
    assert plan.training.imbalance == "logit_adjustment"
    assert federation._on_what_is_read(plan).task.dataset.function == "studies.skewed:dataset"
