from typing import Any

import pytest

from fedcore.config.plan import Gates
from fedcore.evaluation.gates import Verdict, judge

SITES = ["north", "south"]
ASKED = {
    "min_macro_auc": 0.85,
    "min_accuracy": 0.7,
    "min_sensitivity": 0.6,
    "min_specificity": 0.9,
    "min_site_auc": 0.75,
    "max_group_gap": 0.15,
}


def figures(auc: float | None = 0.9, **others: Any) -> dict[str, Any]:
    return {
        "macro_auc": {"value": auc},
        "accuracy": {"value": 0.8},
        "sensitivity": {"value": 0.7},
        "specificity": {"value": 0.95},
        "per_class": {"ill": {"auc": {"value": auc}, "sensitivity": {"value": 0.7}}},
        "undefined": [] if auc is not None else ["ill"],
        **others,
    }


def summary(overall: Any = None, **groups: float | None) -> dict[str, Any]:
    values = groups or {"F": 0.9, "M": 0.85}
    return {
        "overall": overall or figures(),
        "groups": {"sex": {name: figures(auc) for name, auc in values.items()}},
        "suppressed": {},
    }


def verdict(asked: Any = None, over_all: Any = None, sites: Any = None) -> Verdict:
    by_site = {"north": summary(), "south": summary(figures(0.8)), **(sites or {})}
    return judge(ASKED if asked is None else asked, over_all or summary(), by_site, SITES)


def only_reason(found: Verdict) -> str:
    assert not found.passed
    (reason,) = found.reasons
    (failed,) = (check for check in found.checks if not check.passed)
    assert failed.reason == reason
    return reason


def test_a_good_model_passes_every_check() -> None:
    found = verdict()
    assert found.passed
    assert found.reasons == ()
    assert [check.name for check in found.checks] == ["sites_evaluated", *ASKED]
    assert all(check.passed and check.reason == "" for check in found.checks)
    assert {c.name: c.value for c in found.checks}["min_site_auc"] == 0.8


def test_every_threshold_of_the_plan_is_known() -> None:
    assert set(Gates.model_fields) == {*ASKED, "min_dice", "min_site_dice"}


def test_a_plan_that_asks_nothing_passes_and_says_so() -> None:
    found = judge({}, {}, {}, SITES)
    assert found.passed
    assert found.checks == ()
    assert "no gate was asked" in found.reasons[0]


def test_a_threshold_that_is_just_met_is_met() -> None:
    assert verdict({"min_macro_auc": 0.9, "min_site_auc": 0.8}).passed
    level = summary(F=0.75, M=0.5)
    assert verdict({"max_group_gap": 0.25}, level).passed


@pytest.mark.parametrize(
    ("name", "metric"),
    [("min_macro_auc", "macro_auc"), ("min_accuracy", "accuracy"),
     ("min_sensitivity", "sensitivity"), ("min_specificity", "specificity")],
)  # fmt: skip
@pytest.mark.parametrize(
    ("interval", "says"),
    [
        ({"value": 0.4321}, "0.4321, and at least"),
        ({"value": None}, "undefined"),
        ({"value": float("nan")}, "undefined"),
        ({}, "undefined"),
        (None, "undefined"),
    ],
)
def test_overall_figures(name: str, metric: str, interval: Any, says: str) -> None:
    reason = only_reason(verdict({name: ASKED[name]}, summary(figures(**{metric: interval}))))
    assert reason.startswith(f"{name}: ")
    assert says in reason


@pytest.mark.parametrize("name", sorted(ASKED))
def test_a_class_that_nobody_has_fails_all_but_accuracy(name: str) -> None:
    found = verdict({name: ASKED[name]}, summary(figures(undefined=["glioma"])))
    if name == "min_accuracy":
        assert found.passed
    else:
        assert "nothing can be said of glioma" in only_reason(found)


def test_a_summary_that_is_silent_on_undefined_classes_fails() -> None:
    overall = figures()
    del overall["undefined"]
    reason = only_reason(verdict({"min_macro_auc": 0.5}, summary(overall)))
    assert "does not say" in reason


def test_an_empty_summary_fails_every_check() -> None:
    found = judge(ASKED, {}, {}, SITES)
    assert len(found.reasons) == len(found.checks) == len(ASKED) + 1


def test_the_worst_site_is_named_with_its_figure() -> None:
    found = verdict({"min_site_auc": 0.75}, sites={"south": summary(figures(0.61))})
    assert only_reason(found) == "min_site_auc: at south 0.6100, and at least 0.75 is asked"
    assert found.checks[-1].value == 0.61


def test_a_site_without_an_auc_fails() -> None:
    found = verdict({"min_site_auc": 0.75}, sites={"south": summary(figures(None))})
    assert "undefined at south" in only_reason(found)


def test_a_site_that_lacks_a_class_is_judged_on_the_others() -> None:
    assert verdict(sites={"south": summary(figures(0.8, undefined=["glioma"]))}).passed


@pytest.mark.parametrize("asked", [{"min_accuracy": 0.7}, {"min_macro_auc": 0.85}])
def test_a_site_that_sent_nothing_fails_whatever_is_asked(asked: dict[str, float]) -> None:
    found = verdict(asked, sites={"south": None})
    assert only_reason(found) == "sites_evaluated: no evaluation from south"
    assert found.checks[0].value == 1
    assert "no evaluation from south" in only_reason(
        judge(asked, summary(), {"north": summary()}, SITES)
    )


def test_a_missing_site_fails_the_worst_site_too() -> None:
    found = verdict({"min_site_auc": 0.75}, sites={"south": None})
    assert len(found.reasons) == 2


def test_no_sites_at_all_fail() -> None:
    found = judge({"min_site_auc": 0.5}, summary(), {}, [])
    assert found.reasons == (
        "sites_evaluated: there is no site",
        "min_site_auc: undefined at every site",
    )


def test_a_gap_is_named_with_its_groups() -> None:
    reason = only_reason(verdict({"max_group_gap": 0.15}, summary(F=0.9, M=0.65)))
    assert reason == (
        "max_group_gap: 0.2500 between F and M of sex, and at most 0.15 is asked"
    )  # fmt: skip


@pytest.mark.parametrize(
    "groups", [{}, {"sex": {}}, {"sex": {"F": figures()}},
               {"sex": {"F": figures(), "M": figures(None)}}],
)  # fmt: skip
def test_fewer_than_two_groups_fail(groups: Any) -> None:
    found = verdict({"max_group_gap": 0.15}, {**summary(), "groups": groups})
    assert "no two groups" in only_reason(found)
    assert found.checks[-1].value is None


def test_one_attribute_that_cannot_be_compared_fails_beside_one_that_can() -> None:
    groups = {**summary()["groups"], "scanner": {"A": figures()}}
    found = verdict({"max_group_gap": 0.15}, {**summary(), "groups": groups})
    assert only_reason(found) == "max_group_gap: no two groups of scanner can be compared"
    assert found.checks[-1].value == pytest.approx(0.05)


def test_an_unknown_threshold_fails() -> None:
    assert "no such threshold" in only_reason(verdict({"min_happiness": 0.1}))


@pytest.mark.parametrize("name", sorted(ASKED))
def test_a_threshold_that_is_not_a_number_fails(name: str) -> None:
    assert only_reason(verdict({name: float("nan")})).startswith(name)
