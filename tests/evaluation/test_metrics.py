import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from fedcore.errors import ConfigError, DataError, UpdateRejected
from fedcore.evaluation.metrics import collect, merge, summarise

Arrays = Mapping[str, np.ndarray[Any, Any]]
NAMES = ["none", "glioma", "meningioma", "pituitary", "other"]

quick = settings(max_examples=40, deadline=None)


def subjects(
    seed: int, n: int, num_classes: int, separation: float = 1.5
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Softmax scores of a mediocre model, some of them repeated exactly, and the targets."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, num_classes, n)
    logits = rng.normal(0, 1.5, (n, num_classes))
    logits[np.arange(n), targets] += separation
    if n > 3:
        logits[: n // 4] = logits[0]
    scores = np.exp(logits)
    return scores / scores.sum(axis=1, keepdims=True), targets


def same(left: Arrays, right: Arrays) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[k], right[k]) for k in left)


cases = st.tuples(st.integers(0, 10**6), st.integers(1, 120), st.integers(2, 5))


@quick
@given(cases)
def test_agrees_with_scikit_learn(case: tuple[int, int, int]) -> None:
    seed, n, num_classes = case
    scores, targets = subjects(seed, n, num_classes)
    statistics = collect(scores, targets, {}, num_classes=num_classes)
    overall = summarise(statistics, NAMES[:num_classes])["overall"]
    predicted, present = scores.argmax(axis=1), np.unique(targets)

    assert overall["num_examples"] == n
    assert overall["accuracy"]["value"] == pytest.approx(sk.accuracy_score(targets, predicted))
    recall = sk.recall_score(targets, predicted, labels=present, average="macro")
    assert overall["sensitivity"]["value"] == pytest.approx(recall)
    f1 = sk.f1_score(targets, predicted, labels=present, average="macro")
    assert overall["f1"]["value"] == pytest.approx(f1)
    wanted = sk.confusion_matrix(targets, predicted, labels=range(num_classes))
    assert overall["confusion"] == wanted.tolist()

    distances, bounds = [], []
    for k, name in enumerate(NAMES[:num_classes]):
        found = overall["per_class"][name]["auc"]["value"]
        if name in overall["undefined"]:
            assert found is None
            assert (targets == k).sum() in (0, n)
            continue
        pos, neg = statistics["all/positives"][k], statistics["all/negatives"][k]
        bounds.append((pos * neg).sum() / (pos.sum() * neg.sum()) / 2)
        distances.append(found - sk.roc_auc_score(targets == k, scores[:, k]))
        assert abs(distances[-1]) <= bounds[-1] + 1e-12
    if len(distances) == num_classes > 2:
        exact = sk.roc_auc_score(targets, scores, multi_class="ovr", average="macro")
        assert abs(overall["macro_auc"]["value"] - exact) <= np.mean(bounds) + 1e-12


@pytest.mark.parametrize("spread", [0.02, 0.1, 1.0, 5.0])
@pytest.mark.parametrize("num_classes", [2, 4])
def test_bins_hardly_move_the_auc_however_sure_the_model(spread: float, num_classes: int) -> None:
    rng = np.random.default_rng(3)
    targets = rng.integers(0, num_classes, 3000)
    logits = rng.normal(0, 1, (3000, num_classes))
    logits[np.arange(3000), targets] += 1.2
    scores = np.exp(spread * logits)
    scores /= scores.sum(axis=1, keepdims=True)
    statistics = collect(scores, targets, {}, num_classes=num_classes)
    overall = summarise(statistics, NAMES[:num_classes])["overall"]
    exact = [sk.roc_auc_score(targets == k, scores[:, k]) for k in range(num_classes)]
    assert overall["macro_auc"]["value"] == pytest.approx(np.mean(exact), abs=1e-3)


def test_the_roc_curve_has_the_auc_below_it() -> None:
    scores, targets = subjects(4, 300, 3)
    overall = summarise(collect(scores, targets, {}, num_classes=3), NAMES[:3])["overall"]
    for name, curve in overall["roc"].items():
        assert curve["fpr"][0] == curve["tpr"][0] == 0
        assert curve["fpr"][-1] == curve["tpr"][-1] == 1
        area = np.trapezoid(curve["tpr"], curve["fpr"])
        assert area == pytest.approx(overall["per_class"][name]["auc"]["value"])


@quick
@given(cases, st.floats(0, 1))
def test_merged_sites_equal_pooled_subjects(case: tuple[int, int, int], cut: float) -> None:
    seed, n, num_classes = case
    scores, targets = subjects(seed, n, num_classes)
    sex = np.random.default_rng(seed).choice(["F", "M"], n)
    at = round(cut * n)

    def site(part: slice) -> Arrays:
        groups = {"sex": sex[part].tolist()}
        return collect(scores[part], targets[part], groups, num_classes=num_classes, min_cell=1)

    assert same(merge([site(slice(at)), site(slice(at, n))]), site(slice(n)))


@quick
@given(cases)
def test_the_order_of_subjects_does_not_show(case: tuple[int, int, int]) -> None:
    seed, n, num_classes = case
    scores, targets = subjects(seed, n, num_classes)
    rng = np.random.default_rng(seed)
    sex, order = rng.choice(["F", "M", "n/a=?"], n), rng.permutation(n)
    straight = collect(scores, targets, {"sex": sex.tolist()}, num_classes=num_classes)
    shuffled = collect(
        scores[order], targets[order], {"sex": sex[order].tolist()}, num_classes=num_classes
    )
    assert same(straight, shuffled)


@quick
@given(st.lists(st.sampled_from("abcdef"), max_size=40), st.integers(1, 8))
def test_a_small_group_is_hidden_also_from_subtraction(labels: list[str], min_cell: int) -> None:
    scores, targets = subjects(0, len(labels), 2)
    statistics = collect(
        scores, targets, {"scanner": labels}, num_classes=2, min_cell=min_cell
    )  # fmt: skip
    shown = {key.split("/")[0] for key in statistics if key.startswith("scanner=")}
    sizes = {place: statistics[f"{place}/confusion"].sum() for place in shown}
    assert all(size >= min_cell for size in sizes.values())
    rest = statistics["all/confusion"].sum() - sum(sizes.values())
    assert rest == statistics["scanner/suppressed"].sum()
    assert rest == 0 or rest >= min_cell or not shown


def test_the_name_of_a_small_group_does_not_leave() -> None:
    scores, targets = subjects(0, 30, 2)
    labels = ["common"] * 12 + ["usual"] * 14 + ["rare"] * 4
    statistics = collect(scores, targets, {"scanner": labels}, num_classes=2, min_cell=5)
    assert not any("rare" in key for key in statistics)
    summary = summarise(statistics, NAMES[:2])
    assert list(summary["groups"]["scanner"]) == ["usual"]  # "common" − "all" would show "rare"
    assert summary["suppressed"] == {"scanner": 16}
    assert summary["overall"]["num_examples"] == 30


def test_groups_are_summed_up_by_attribute_and_value() -> None:
    scores, targets = subjects(1, 40, 2)
    groups = {"sex": ["F", "M"] * 20, "site/scanner": ["A=1/2"] * 40}
    summary = summarise(collect(scores, targets, groups, num_classes=2), NAMES[:2])
    assert {a: list(values) for a, values in summary["groups"].items()} == {
        "sex": ["F", "M"],
        "site/scanner": ["A=1/2"],
    }
    assert summary["groups"]["site/scanner"]["A=1/2"] == summary["overall"]
    women = summarise(collect(scores[::2], targets[::2], {}, num_classes=2), NAMES[:2])
    assert summary["groups"]["sex"]["F"] == women["overall"]


def test_an_absent_class_is_undefined_and_left_out_of_the_means() -> None:
    scores, targets = subjects(2, 80, 4)
    targets[targets == 3] = 0
    overall = summarise(collect(scores, targets, {}, num_classes=4), NAMES[:4])["overall"]
    absent = overall["per_class"]["pituitary"]
    nothing = {"value": None, "low": None, "high": None}
    assert overall["undefined"] == ["pituitary"]
    assert absent["num_examples"] == 0
    assert absent["auc"] == absent["sensitivity"] == absent["f1"] == nothing
    assert absent["specificity"]["value"] is not None
    assert overall["roc"]["pituitary"] == {"fpr": [], "tpr": []}
    present = [overall["per_class"][name]["auc"]["value"] for name in NAMES[:3]]
    assert overall["macro_auc"]["value"] == pytest.approx(np.mean(present))


def test_one_class_alone_leaves_every_auc_undefined() -> None:
    scores, _ = subjects(2, 10, 3)
    figures = collect(scores, np.ones(10, int), {}, num_classes=3)
    overall = summarise(figures, NAMES[:3])["overall"]
    assert overall["undefined"] == NAMES[:3]
    assert overall["macro_auc"] == {"value": None, "low": None, "high": None}
    assert overall["sensitivity"]["value"] is not None


@pytest.mark.parametrize("sent", [True, False])
def test_nobody_is_nothing_but_zeros(sent: bool) -> None:
    none = np.zeros((0, 2)), np.zeros(0, int)
    statistics = collect(*none, {"sex": []}, num_classes=2) if sent else merge([])
    summary = summarise(statistics, NAMES[:2])
    overall = summary["overall"]
    assert overall["num_examples"] == 0
    assert overall["confusion"] == [[0, 0], [0, 0]]
    assert overall["reliability"] == []
    assert overall["calibration_error"] is None
    for name in ("macro_auc", "accuracy", "sensitivity", "specificity", "f1"):
        assert overall[name] == {"value": None, "low": None, "high": None}
    assert summary["groups"] == ({"sex": {}} if sent else {})
    json.dumps(summary, allow_nan=False)


def test_a_summary_is_plain_json() -> None:
    scores, targets = subjects(5, 50, 3)
    targets[targets == 2] = 1
    summary = summarise(
        collect(scores, targets, {"sex": ["F", "M"] * 25}, num_classes=3), NAMES[:3]
    )
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_calibration_is_the_distance_of_confidence_from_being_right() -> None:
    scores = np.array([[0.95, 0.05]] * 4 + [[0.35, 0.65]] * 4)
    targets = np.array([0, 0, 0, 1, 1, 1, 0, 0])
    overall = summarise(collect(scores, targets, {}, num_classes=2), NAMES[:2])["overall"]
    low, high = overall["reliability"]
    assert (low["observed"], high["observed"]) == (0.5, 0.75)
    assert low["confidence"] == pytest.approx(0.65, abs=1e-6)
    assert overall["calibration_error"] == pytest.approx((0.15 + 0.2) / 2, abs=1e-6)


def test_scores_of_nought_and_one_are_counted_at_the_ends() -> None:
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [1 + 1e-7, 0.0]], np.float32)
    statistics = collect(scores, np.array([0, 1, 1]), {}, num_classes=2)
    assert statistics["all/positives"][0, -1] == 1
    assert statistics["all/negatives"][0, [0, -1]].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("scores", "targets", "groups", "error", "says"),
    [
        ([[0.5, 0.5]], [0, 1], {}, ConfigError, "task.model"),
        ([[0.2, 0.3, 0.5]], [0], {}, ConfigError, "2 classes"),
        ([[np.nan, 0.5]], [0], {}, DataError, "diverge"),
        ([[3.0, -2.0]], [0], {}, DataError, "not probabilities"),
        ([[0.5, 0.5]], [2], {}, DataError, "not one of the 2 classes"),
        ([[0.5, 0.5]], [-1], {}, DataError, "not one of the 2 classes"),
        ([[0.5, 0.5]], [0], {"sex": []}, DataError, "'sex'"),
        ([[0.5, 0.5]], [0], {"a=b": ["x"]}, ConfigError, "'a=b'"),
    ],
)
def test_what_cannot_be_counted(
    scores: Any, targets: Any, groups: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        collect(np.array(scores), np.array(targets), groups, num_classes=2)


def broken(key: str, array: np.ndarray[Any, Any] | None) -> Arrays:
    scores, targets = subjects(0, 20, 2)
    statistics = collect(scores, targets, {}, num_classes=2)
    if array is None:
        del statistics[key]
    else:
        statistics[key] = array
    return statistics


@pytest.mark.parametrize(
    ("key", "array"),
    [
        ("all/confusion", None),
        ("all/confusion", np.zeros((3, 3))),
        ("all/confusion", np.full((2, 2), 0.5)),
        ("all/confusion", np.full((2, 2), -1.0)),
        ("all/confusion", np.full((2, 2), np.nan)),
        ("all/positives", np.zeros((2, 512))),
        ("all/negatives", np.full((2, 512), 1e300)),
        ("all/reliability", np.ones((3, 10))),
        ("all/extra", np.zeros(1)),
        ("every/confusion", np.zeros((2, 2))),
        ("confusion", np.zeros((2, 2))),
    ],
)
def test_statistics_that_collect_never_gives_are_rejected(key: str, array: Any) -> None:
    with pytest.raises(UpdateRejected):
        summarise(broken(key, array), NAMES[:2])


def test_shapes_that_would_broadcast_do_not_merge() -> None:
    with pytest.raises(UpdateRejected, match="'all/confusion'"):
        merge([broken("all/confusion", np.ones((2, 2))), broken("all/confusion", np.ones(1))])


def test_merging_leaves_its_inputs_alone() -> None:
    part = {"a": np.ones(2)}
    merged = merge([part])
    merged["a"] += 1
    assert part["a"].tolist() == [1, 1]


def test_ten_thousand_subjects_take_a_fifth_of_a_second_at_most() -> None:
    scores, targets = subjects(0, 10_000, 4)
    rng = np.random.default_rng(0)
    groups = {name: rng.choice(list("abcd"), 10_000).tolist() for name in ("sex", "age", "scanner")}
    seconds = []
    for _ in range(3):
        started = time.process_time()
        collect(scores, targets, groups, num_classes=4)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.2


@pytest.mark.parametrize("row", [1, 2])
def test_more_right_or_more_sure_than_there_are_subjects_is_rejected(row: int) -> None:
    scores, targets = subjects(0, 20, 2)
    reliability = collect(scores, targets, {}, num_classes=2)["all/reliability"]
    reliability[row] += 2**21
    with pytest.raises(UpdateRejected, match="same subjects"):
        summarise(broken("all/reliability", reliability), NAMES[:2])
