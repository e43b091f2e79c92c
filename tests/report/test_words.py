import pytest

from fedcore.report.run import RunReport
from fedcore.report.words import (
    Tile,
    attendance,
    guarantee,
    largest_gap,
    pretraining,
    verdict_word,
    worst_site_of,
)


def run(**parts) -> RunReport:
    return RunReport(run_id="r", plan={}, **parts)


def test_no_noise_is_no_guarantee():
    assert guarantee({"unit": "site", "epsilon": None})[0].startswith("No formal guarantee")
    assert guarantee(None)[0].endswith("assume no formal guarantee.")


def test_epsilon_is_translated_into_likelihood():
    (first, *_) = guarantee({"unit": "site", "epsilon": 2.0, "delta": 1e-5})
    assert "ε = 2 at δ = 10⁻⁵, per site" in first
    assert "at most 7.39 times" in first


def test_a_weak_guarantee_is_called_weak():
    said = " ".join(guarantee({"unit": "site", "epsilon": 50.0, "delta": 1e-5}))
    assert "weak" in said
    assert "more than 10⁸ times" in said


def test_what_pretraining_reached_is_one_sentence_a_modality():
    reached = {"pet": {"sites": 3.0, "images": 41.0, "first": 0.9512, "last": 0.2}}
    (said,) = pretraining(run(pretraining=reached))
    assert "(41 at 3 sites)" in said
    assert "was 0.951 in the first epoch and 0.200 in the last" in said
    assert pretraining(run()) == []


@pytest.mark.parametrize(
    ("verdict", "word"),
    [({"passed": True}, "PASS"), ({"passed": False}, "FAIL"), ({}, "FAIL"), (None, "NOT JUDGED")],
)
def test_verdict_word(verdict, word):
    assert verdict_word(verdict) == word


def test_worst_site_and_largest_gap_pass_over_what_was_not_measured():
    sites = {"a": {"summary": {"macro_auc": {"value": 0.9}}}, "b": {"summary": None},
             "c": {"summary": {"macro_auc": {"value": 0.8}}}}  # fmt: skip
    assert worst_site_of(run(sites=sites), "macro_auc")[0] == "c"
    assert worst_site_of(run(), "macro_auc") == (None, None)
    gaps = {"sex": {"gap": 0.02}, "age_band": {"gap": 0.05}, "scanner": {"gap": None}}
    assert largest_gap(run(fairness=gaps)) == ("age band", 0.05)


def test_a_tile_fails_closed():
    assert Tile("AUC", None, "", 0.5).failed
    assert Tile("AUC", {"value": 0.4}, "", 0.5).failed
    assert not Tile("AUC", {"value": 0.5}, "", 0.5).failed
    assert Tile("gap", 0.2, "", 0.1, at_most=True).failed
    assert Tile("gap", None, "", 0.1, at_most=True).failed
    assert not Tile("AUC", None, "").failed


def test_attendance_counts_rounds_and_reasons():
    history = [
        {"round_num": 0, "cohort": ["a", "b"], "dropped": {}},
        {"round_num": 1, "cohort": ["a", "b"], "dropped": {"b": "late"}},
        {"round_num": 2, "cohort": ["b"], "dropped": {"b": "late"}},
    ]
    a, b, c = attendance(run(history=history, sites={"c": {}}))
    assert [mark for _, mark in a.marks] == ["in", "in", "rest"]
    assert [mark for _, mark in b.marks] == ["in", "dropped", "dropped"]
    assert (b.reasons, b.times("in")) == ({"late": 2}, 1)
    assert [mark for _, mark in c.marks] == ["rest"] * 3


def test_why_there_is_no_guarantee_is_said_once():
    said = guarantee({"unit": "site", "epsilon": None, "statement": "The seed is known."})
    assert said[0] == "The seed is known."
    assert "No formal guarantee" not in " ".join(said)
