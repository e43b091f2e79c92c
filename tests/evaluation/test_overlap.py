"""Counts of voxels at the sites become Dice at the server, and give nobody's tumour away."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedcore.errors import ConfigError, DataError, UpdateRejected
from fedcore.evaluation.metrics import merge
from fedcore.evaluation.overlap import collect, spared, summarise
from fedcore.evaluation.tally import counts, layout_of, words

CLASSES = ["background", "oedema", "tumour"]
Rows = tuple[NDArray[np.float64], NDArray[np.float64]]


def subjects(*pairs: tuple[Any, Any]) -> Rows:
    """What a site counts of (called, true) label volumes."""
    of = [[(np.asarray(c) == k, np.asarray(t) == k) for k in range(3)] for c, t in pairs]
    found = [[[(c & t).sum(), c.sum()] for c, t in classes] for classes in of]
    true = [[t.sum() for _, t in classes] for classes in of]
    return np.array(found, float).reshape(-1, 3, 2), np.array(true, float).reshape(-1, 3)


def random_subjects(number: int, seed: int = 0, healthy: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    pairs = []
    for index in range(number):
        true = rng.integers(0, 3, 200) if index >= healthy else np.zeros(200, int)
        called = np.where(rng.random(200) < 0.7, true, rng.integers(0, 3, 200))
        pairs.append((called, true))
    return subjects(*pairs)


def figures(*sites: Any) -> dict[str, Any]:
    return summarise(merge(sites), CLASSES)["overall"]  # type: ignore[no-any-return]


def counted(rows: Rows, groups: Any = None, min_cell: int = 1) -> dict[str, NDArray[np.float64]]:
    return collect(*rows, groups or {}, num_classes=3, min_cell=min_cell)


def test_dice_and_sensitivity_are_means_over_the_subjects_who_have_the_structure() -> None:
    found, true = random_subjects(9)
    overall = figures(counted((found, true)))
    dice = 2 * found[:, 1:, 0] / (found[:, 1:, 1] + true[:, 1:])
    sensitivity = found[:, 1:, 0] / true[:, 1:]
    for f, name in enumerate(CLASSES[1:]):
        of = overall["per_class"][name]
        assert of["dice"]["value"] == pytest.approx(dice[:, f].mean(), abs=1e-6)
        assert of["sensitivity"]["value"] == pytest.approx(sensitivity[:, f].mean(), abs=1e-6)
        assert of["dice"]["low"] < of["dice"]["value"] < of["dice"]["high"]
        pooled = 2 * found[:, f + 1, 0].sum() / (found[:, f + 1, 1] + true[:, f + 1]).sum()
        assert of["pooled_dice"]["value"] == pytest.approx(pooled)
        assert sum(of["histogram"]) == of["num_examples"] == 9
    assert overall["dice"]["value"] == pytest.approx(dice.mean(), abs=1e-6)
    assert overall["undefined"] == []


def test_the_interval_is_as_wide_as_the_subjects_differ() -> None:
    """Mean ± 1.96 standard errors, on the scale of the logit."""
    found, true = random_subjects(40)
    interval = figures(counted((found, true)))["per_class"]["tumour"]["dice"]
    dice = 2 * found[:, 2, 0] / (found[:, 2, 1] + true[:, 2])
    half = 1.96 * dice.std(ddof=1) / np.sqrt(len(dice))
    assert interval["high"] - interval["low"] == pytest.approx(2 * half, rel=0.02)


def test_who_does_not_have_a_structure_has_no_dice_but_may_be_a_false_alarm() -> None:
    healthy, ill = [0, 0, 0, 0], [0, 2, 2, 0]
    overall = figures(counted(subjects((healthy, healthy), ([0, 2, 0, 0], healthy), (ill, ill))))
    tumour = overall["per_class"]["tumour"]
    assert (tumour["num_examples"], tumour["missed"], tumour["false_alarms"]) == (1, 0, 1)
    assert tumour["dice"]["value"] == 1
    assert tumour["specificity"]["value"] == 0.5
    assert overall["undefined"] == ["oedema"], "nobody has it"
    assert overall["dice"]["value"] == 1, "of the structures that somebody has"
    (missed,) = [figures(counted(subjects((healthy, ill))))["per_class"]["tumour"]]
    assert (missed["missed"], missed["dice"]["value"]) == (1, 0)


def test_a_class_of_few_voxels_gives_way_to_the_next_likeliest_in_that_subject_alone() -> None:
    scores = np.zeros((2, 3, 2, 2, 2))
    scores[:, 0] = 0.2
    scores[0, 2, 0, 0, 0] = 0.7  # one voxel
    scores[0, 1, 0, 0] = 0.4  # two, one of them below the other class
    scores[1, 2, 0] = 0.7  # four
    called = spared(scores, [0, 0, 2]).argmax(axis=1)
    assert np.bincount(called[0].ravel()).tolist() == [6, 2]
    assert np.bincount(called[1].ravel()).tolist() == [4, 0, 4]
    assert np.isfinite(spared(scores, [0, 9, 9])).all()
    assert not spared(scores, [0, 9, 9]).argmax(axis=1).any(), "the background is always there"
    assert spared(scores, []) is scores


def test_merged_sites_give_the_bits_of_pooled_data() -> None:
    found, true = random_subjects(30, healthy=7)
    parts = [counted((found[rows], true[rows])) for rows in (slice(0, 11), slice(11, 30))]
    assert figures(*parts) == figures(*parts[::-1]) == figures(counted((found, true)))


def test_a_structure_that_few_have_is_held_back() -> None:
    found, true = random_subjects(9, healthy=6)
    kept = figures(counted((found, true), min_cell=4))
    assert kept["held_back"] == {"oedema": 3, "tumour": 3}
    assert kept["num_examples"] == 9
    assert kept["per_class"]["tumour"]["dice"]["value"] is None
    statistics = counted((found, true), min_cell=4)
    assert not statistics["all/voxels"].any()
    assert not statistics["all/moments"].any()


def test_a_group_is_not_the_difference_of_what_is_told() -> None:
    """Nine have it in all, seven of them women: all minus women would be two men's."""
    found, true = random_subjects(16, healthy=7)
    sex = ["M"] * 6 + ["F"] * 1 + ["M"] * 2 + ["F"] * 7
    assert sum(true[i, 2] > 0 for i in range(16) if sex[i] == "M") == 2
    statistics = counted((found, true), {"sex": sex}, min_cell=4)
    assert statistics["all/subjects"][1].tolist() == [9, 0, 7, 7]
    assert statistics["sex=M/held_back"].tolist() == [2, 2]
    assert statistics["sex=F/held_back"].tolist() == [7, 7]
    assert not statistics["sex=F/moments"].any()
    told = counted((found, true), {"sex": sex}, min_cell=2)
    assert told["sex=F/held_back"].tolist() == [0, 0]


def test_the_statistics_travel_as_whole_numbers_behind_masks() -> None:
    layout = layout_of(collect, 3)
    one, other = (counted(random_subjects(5, seed)) for seed in (1, 2))
    total = words(one, layout) + words(other, layout)
    assert figures(counts(total, layout, sites=2)) == figures(one, other)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("all/voxels", (0, 2), 1e9),  # more in common than there are
        ("all/subjects", (1, 1), 99),  # more missed than have it
        ("all/moments", (0, 0, 0), 1e9),  # a Dice above 1
        ("all/histogram", (0, 3), 50),
        ("all/voxels", (0, 0), 0.5),
        ("all/voxels", (0, 0), -1),
    ],
)
def test_counts_that_cannot_be_are_refused(name: str, place: Any, value: float) -> None:
    statistics = counted(random_subjects(6))
    statistics[name][place] = value
    with pytest.raises(UpdateRejected, match="statistics of 'all'"):
        summarise(statistics, CLASSES)


def test_what_a_classifier_gives_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"segmentation needs logits"):
        collect(np.ones((4, 3)), np.zeros(4), {}, num_classes=3)
    found, true = random_subjects(3)
    with pytest.raises(DataError, match="no counts of voxels"):
        counted((found + 1, true))
