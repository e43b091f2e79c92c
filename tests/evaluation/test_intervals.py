from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from fedcore.evaluation import intervals
from fedcore.evaluation.metrics import collect

Array = np.ndarray[Any, Any]

quick = settings(max_examples=50, deadline=None)
counts = st.lists(st.integers(0, 4), min_size=6, max_size=6).map(lambda x: np.array(x, float))


@quick
@given(st.integers(1, 300), st.floats(0, 1))
def test_wilson_agrees_with_scipy(trials: int, share: float) -> None:
    successes = round(share * trials)
    found = intervals.wilson(np.array([successes]), np.array([trials])).plain()[0]
    wanted = binomtest(successes, trials).proportion_ci(method="wilson")
    assert (found["low"], found["high"]) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1


def test_wilson_covers() -> None:
    rng = np.random.default_rng(0)
    for p, n in ((0.5, 20), (0.9, 30), (0.98, 50)):
        found = intervals.wilson(rng.binomial(n, p, 20_000).astype(float), np.full(20_000, n))
        assert np.mean((found.low <= p) & (p <= found.high)) == pytest.approx(0.95, abs=0.03)


def direct_delong(positives: Array, negatives: Array) -> tuple[float, float]:
    """O(m n), from the scores themselves."""
    kernel = np.array([[(x > y) + 0.5 * (x == y) for y in negatives] for x in positives])
    by_positive, by_negative = kernel.mean(axis=1), kernel.mean(axis=0)
    variance = by_positive.var(ddof=1) / len(positives) + by_negative.var(ddof=1) / len(negatives)
    return float(kernel.mean()), float(variance)


@quick
@given(counts, counts)
def test_delong_agrees_with_the_direct_form(positives: Array, negatives: Array) -> None:
    positives[0], negatives[-1] = positives[0] + 1, negatives[-1] + 1
    positives[3], negatives[2] = positives[3] + 1, negatives[2] + 1
    wanted = direct_delong(
        np.repeat(np.arange(6), positives.astype(int)),
        np.repeat(np.arange(6), negatives.astype(int)),
    )
    auc, variance = intervals.delong(positives, negatives)
    assert (float(auc), float(variance)) == pytest.approx(wanted)


@quick
@given(counts, counts)
def test_an_interval_holds_its_value(positives: Array, negatives: Array) -> None:
    found = intervals.auc(positives, negatives)
    if positives.sum() == 0 or negatives.sum() == 0:
        assert np.isnan([found.value, found.low, found.high]).all()
    else:
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.low < found.high


def test_perfect_separation_is_no_certainty() -> None:
    few = intervals.auc(np.array([0.0, 4]), np.array([9.0, 0]))
    many = intervals.auc(np.array([0.0, 400]), np.array([900.0, 0]))
    assert few.value == many.value == 1
    assert few.low < 0.6
    assert many.low > 0.98


def draw(rng: np.random.Generator, n: int, num_classes: int) -> dict[str, Array]:
    targets = rng.integers(0, num_classes, n)
    logits = rng.normal(0, 1, (n, num_classes))
    logits[np.arange(n), targets] += 1.5
    scores = np.exp(logits)
    scores /= scores.sum(axis=1, keepdims=True)
    return collect(scores, targets, {}, num_classes=num_classes)


def estimates(statistics: dict[str, Array]) -> Any:
    return intervals.by_class(
        *(statistics[f"all/{name}"] for name in ("confusion", "positives", "negatives"))
    )


@pytest.mark.parametrize("num_classes", [2, 4])
def test_auc_and_macro_figures_cover(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    truth = {m: of.value for m, of in estimates(draw(rng, 100_000, num_classes)).items()}
    covered: dict[str, list[bool]] = {metric: [] for metric in truth}
    by_class = []
    for _ in range(300):
        statistics = draw(rng, 100, num_classes)
        rho = intervals.correlations(statistics["all/confusion"])
        found = estimates(statistics)
        auc = found["auc"]
        by_class.append((auc.low <= truth["auc"]) & (truth["auc"] <= auc.high))
        for metric, of in found.items():
            mean = intervals.macro(of, rho[metric])
            covered[metric].append(bool(mean.low <= truth[metric].mean() <= mean.high))
    assert np.mean(by_class) == pytest.approx(0.95, abs=0.035)
    for metric, held in covered.items():
        assert np.mean(held) == pytest.approx(0.95, abs=0.045), metric


@pytest.mark.parametrize(
    ("metric", "num_classes"), [("auc", 2), ("auc", 4), ("f1", 4), ("specificity", 4)]
)
def test_the_correlation_between_classes_is_the_one_seen(metric: Any, num_classes: int) -> None:
    rng = np.random.default_rng(1)
    values, told = [], []
    for _ in range(400):
        statistics = draw(rng, 100, num_classes)
        values.append(estimates(statistics)[metric].value)
        told.append(intervals.correlations(statistics["all/confusion"])[metric])
    upper = np.triu_indices(num_classes, 1)
    seen = np.corrcoef(np.array(values).T)[upper].mean()
    assert np.mean(told, axis=0)[upper].mean() == pytest.approx(seen, abs=0.08)


def test_classes_of_one_subject_or_none_do_not_break_the_mean() -> None:
    estimate = intervals.Estimates(*(np.array([x, np.nan]) for x in (0.8, 0.6, 0.9)))
    mean = intervals.macro(estimate, np.eye(2))
    assert mean.plain() == [{"value": 0.8, "low": pytest.approx(0.6), "high": pytest.approx(0.9)}]
    nothing = intervals.Estimates(*(np.full(2, np.nan) for _ in range(3)))
    assert intervals.macro(nothing, np.eye(2)).plain() == [
        {"value": None, "low": None, "high": None}
    ]
