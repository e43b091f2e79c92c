"""What Prefect's UI is shown of a round, and that a run does without Prefect's UI."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from fedcore.errors import ConfigError
from fedcore.records import DataSummary, EvalOrder, EvaluationRecord, RoundRecord, TrainOrder
from flows import names, show, tasks


def interval(value: float | None) -> dict[str, Any]:
    low, high = (None, None) if value is None else (value - 0.1, value + 0.1)
    return {"overall": {"macro_auc": {"value": value, "low": low, "high": high}}}


RECORD = RoundRecord(
    run_id="run-1", round_num=3, cohort=("east", "north"), weights={"east": {"head": 1.0}},
    dropped={"north": "no reply within 300 s"}, params_digest="",
    data={"east": DataSummary(40)}, measurements={"east": {"loss": 0.51239, "update_norm": 2.0}},
    bytes_up=0, bytes_down=0, seconds={},
)  # fmt: skip
EVALUATION = EvaluationRecord(
    run_id="run-1", round_num=4, split="validation", summary=interval(0.75),
    sites={"east": interval(0.8), "west": interval(None)}, num_examples={"east": 12, "west": 6},
    missing={"north": "no reply within 300 s"}, onnx_max_abs_diff={}, bytes_up=0, bytes_down=0,
    seconds={},
)  # fmt: skip


def test_a_row_for_every_site_whether_or_not_it_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[str, Any] = {}
    monkeypatch.setattr(show, "create_table_artifact", lambda **given: shown.update(given))
    with show.RoundTables() as tables:
        tables.add(RECORD, EVALUATION)
    assert shown["key"] == "round-run-1-00003"
    assert shown["description"].startswith("Macro AUC 0.750 (0.650 to 0.850) on the sites'")
    columns = ("site", "state", "trained on", "loss", "update norm", "validated on", "macro AUC")
    assert [tuple(row[name] for name in columns) for row in shown["table"]] == [
        ("east", "trained", 40, "0.512", "2.000", 12, "0.800 (0.700 to 0.900)"),
        ("north", "no reply within 300 s", 0, "–", "–", 0, "–"),
        ("west", "not asked", 0, "–", "–", 6, "–"),
    ]


def test_without_prefect_a_table_is_missing_and_that_is_all(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(**_: Any) -> None:
        raise httpx.ConnectError("nobody there")

    monkeypatch.setattr(show, "create_table_artifact", away)
    with caplog.at_level(logging.WARNING, "fedcore.run"), show.RoundTables() as tables:
        tables.add(RECORD, EVALUATION)
    assert "Prefect has no table of round 3: nobody there" in caplog.text


TRAIN = TrainOrder("run-1", "east", 6, 3, "", "")


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"run": None, "round_num": 3}, "round 3: count"),
        ({"run": None, "orders": [TRAIN]}, "round 3: count"),
        ({"run": None, "round_num": 4, "split": "validation"}, "round 3: count"),
        ({"run": None, "orders": [EvalOrder("run-1", "east", 7, 4, "", "")]}, "round 3: count"),
        ({"run": None, "round_num": 15, "split": "test"}, "count"),
        ({"run": None}, "count"),
    ],
)
def test_a_task_run_is_named_by_its_round(parameters: dict[str, Any], name: str) -> None:
    assert tasks._in_its_round("count")(parameters) == name


def test_a_retry_of_a_flow_run_is_at_work_on_the_same_run(tmp_path: Any) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "name: toy\npurpose: research\nseed: 1\nrounds: 1\ntask:\n  classes: [a, b]\n"
        "  model: {function: 'a:b'}\n  dataset: {function: 'a:b'}\n"
    )
    assert names.run_id_of({"plan": str(plan)}, "0f9bd8ec-e86f") == "toy-0f9bd8ec"
    assert names.run_id_of({"plan": "nowhere", "run_id": "run-7"}, "0f9bd8ec-e86f") == "run-7"
    with pytest.raises(ConfigError, match="nowhere: cannot be read"):
        names.run_id_of({"plan": "nowhere", "run_id": None}, "0f9bd8ec-e86f")
