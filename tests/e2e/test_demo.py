"""The demo as a user runs it, the real command on real services, to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from demo_runs import nothing_runs
from running import processes

pytestmark = pytest.mark.e2e


def test_result_has_what_is_promised(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    _, result = undisturbed
    wanted = {
        "run_id", "rounds", "macro_auc", "accuracy", "sensitivity", "specificity", "f1", "sites",
        "verdict", "onnx", "privacy", "bytes_up", "bytes_down", "seconds", "params_sha256",
        "report",
    }  # fmt: skip
    assert wanted <= set(result)
    assert set(result["sites"]) == {"north", "east", "south", "west"}
    assert {"num_examples", "modalities", "auc", "left_out"} <= set(result["sites"]["west"])
    assert "pet" not in result["sites"]["east"]["modalities"], "east has no PET scanner"
    assert result["onnx"]["max_abs_diff"] <= 1e-4
    assert result["privacy"]["epsilon"] is None, "no noise, no guarantee"


def test_report_and_model_can_be_opened(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    import onnxruntime

    _, result = undisturbed
    assert "No formal guarantee" in Path(result["report"]).read_text()
    session = onnxruntime.InferenceSession(result["onnx"]["path"])
    assert {"t1ce", "flair", "ct", "pet", "present"} == {i.name for i in session.get_inputs()}


def test_nothing_is_left_running(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    workdir, _ = undisturbed
    assert nothing_runs(workdir), processes(workdir)
