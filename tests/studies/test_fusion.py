"""The study of fusion: its plans read what they say, and its goals are of what is in the rows."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from fedcore.data.bids import BidsDataset, Example
from studies import fusion
from studies.settings import EVERYTHING, PET_AT_HALF, federation


def test_alone_means_one_modality_and_a_fusion_all() -> None:
    alone, fused = fusion.plan_of("pet alone", 1), fusion.plan_of("attention", 1)
    assert list(alone.task.modalities) == ["pet"]
    assert set(fused.task.modalities) == set(fusion.MODALITIES)
    assert fused.task.model.arguments["fusion"] == "attention"


def test_half_of_the_sites_lack_pet_and_nothing_else_differs() -> None:
    every, half = (federation(name, 3) for name in (EVERYTHING, PET_AT_HALF))
    lacking = [site for site in half if "pet" not in site.modalities]
    assert len(lacking) == len(half) / 2
    assert [site.counts for site in every] == [site.counts for site in half]


def test_who_has_nothing_left_is_not_judged() -> None:
    image = torch.zeros(1, 2, 2, 2)
    subjects = BidsDataset(
        ("ct", "pet"), (),
        (Example("a", {"ct": image, "pet": image}, 0, {}), Example("b", {"pet": image}, 1, {})),
    )  # fmt: skip
    (left,) = fusion.lacking(subjects, "pet").examples
    assert (left.subject, list(left.images)) == ("a", ["ct"])


def test_goals_are_of_the_best_fusion_against_the_best_modality() -> None:
    every = {"macro_auc": 0.8} | dict.fromkeys(fusion.MODALITIES, 0.75)
    best = {"macro_auc": 0.9} | dict.fromkeys(fusion.MODALITIES, 0.85) | {"ct": 0.79}
    found: dict[tuple[str, str], list[Mapping[str, float]]] = {
        (EVERYTHING, f"{name} alone"): [{"macro_auc": 0.7}] * 2 for name in fusion.MODALITIES
    }
    found[EVERYTHING, "flair alone"] = [{"macro_auc": 0.8}] * 2
    for name in fusion.FUSIONS:
        found[EVERYTHING, name] = [best if name == "attention" else every] * 2
        found[PET_AT_HALF, name] = [{"macro_auc": 0.86}] * 2
    goals = [row for row in fusion.judged(found) if row.goal is not None]
    assert {row.method for row in goals} == {"attention"}
    gain, half, bears = goals
    assert (gain.metric, gain.met) == ("macro_auc above flair alone", True)
    assert gain.mean == pytest.approx(0.1)
    assert (half.met, half.mean) == (False, pytest.approx(-0.04))
    assert (bears.setting, bears.met) == ("without ct at inference", False)
