"""What people read at the end of a run."""

from typing import Any

import pytest

from fedcore import terminal


def result(mode: str, modalities: dict[str, int], **secure: Any) -> dict[str, Any]:
    nothing = {"value": 0.9, "low": None, "high": None}
    figures = ("macro_auc", "accuracy", "sensitivity", "specificity", "f1")
    return {
        "plan": {"secure_aggregation": {"mode": mode, **secure}},
        "final": {"overall": dict.fromkeys(figures, nothing)},
        "sites": {
            "north": {"num_examples": {"train": 9, "test": 3}, "modalities": modalities,
                      "summary": None, "left_out": {}}
        },
        "verdict": {"passed": False, "reasons": ["macro AUC too low"]},
        "privacy": {"statement": "No formal guarantee: no noise."},
    }  # fmt: skip


def shown(what: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    wide = terminal.Console(width=200, record=True)
    monkeypatch.setattr(terminal, "console", wide)
    terminal.show_result(what)
    return wide.export_text()


def test_what_secure_aggregation_hides_is_said_to_be_hidden(monkeypatch):
    said = shown(result("masks", {}), monkeypatch)
    assert "not told (secure aggregation)" in said
    assert "The server saw the sum of the updates." in said


def test_figures_by_site_that_nobody_knows_are_said_to_be_hidden(monkeypatch):
    said = shown(result("masks", {}, statistics=True), monkeypatch)
    row = next(line for line in said.splitlines() if "north" in line)
    assert row.count("not told (secure aggregation)") == 3, "tested on, modalities, macro AUC"


def test_a_plain_run_shows_each_site_s_modalities(monkeypatch):
    said = shown(result("none", {"pet": 4, "ct": 2}), monkeypatch)
    assert "pet 4, ct 2" in said
    assert "not told" not in said
    assert "The server saw every update, whole." in said
