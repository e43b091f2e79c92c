from typing import Any

import pytest

from fedcore.evaluation.fairness import gaps


def group(**auc: float | None) -> dict[str, Any]:
    return {
        "per_class": {
            name: {"auc": {"value": value}, "sensitivity": {"value": value and value / 2}}
            for name, value in auc.items()
        }
    }


def test_the_largest_difference_of_macro_auc() -> None:
    groups = {"A": group(x=0.9, y=0.7), "B": group(x=0.6, y=0.6), "C": group(x=0.7, y=0.7)}
    found = gaps({"groups": {"scanner": groups}})["scanner"]
    assert found["gap"] == pytest.approx(0.2)
    assert (found["best"], found["worst"], found["undefined"]) == ("A", "B", [])
    assert found["metric"] == "macro_auc"
    assert found["equal_opportunity"]["metric"] == "sensitivity"
    assert found["equal_opportunity"]["gap"] == pytest.approx(0.1)


def test_the_order_of_groups_does_not_turn_best_and_worst() -> None:
    found = gaps({"groups": {"sex": {"F": group(x=0.6), "M": group(x=0.9)}}})["sex"]
    assert (found["best"], found["worst"]) == ("M", "F")


def test_groups_are_compared_on_the_classes_that_both_have() -> None:
    groups = {"A": group(easy=0.95, hard=0.65), "B": group(easy=0.9, hard=None)}
    found = gaps({"groups": {"scanner": groups}})["scanner"]
    assert found["gap"] == pytest.approx(0.05)
    assert found["best"] == "A"


@pytest.mark.parametrize(
    ("groups", "undefined"),
    [
        ({}, []),
        ({"A": group(x=0.9)}, ["A"]),
        ({"A": group(x=0.9, y=None), "B": group(x=None, y=0.8)}, ["A", "B"]),
        ({"A": group(x=0.9), "B": group(x=float("nan"))}, ["A", "B"]),
        ({"A": group(x=0.9), "B": {}}, ["A", "B"]),
    ],
)
def test_no_gap_where_nothing_can_be_compared(groups: Any, undefined: list[str]) -> None:
    found = gaps({"groups": {"sex": groups}})["sex"]
    assert (found["gap"], found["best"], found["worst"]) == (None, None, None)
    assert found["undefined"] == undefined


def test_a_group_that_cannot_be_compared_is_named() -> None:
    groups = {"A": group(x=0.9), "B": group(x=0.8), "C": group(x=None)}
    found = gaps({"groups": {"scanner": groups}})["scanner"]
    assert found["gap"] == pytest.approx(0.1)
    assert found["undefined"] == ["C"]
    assert gaps({}) == {}
