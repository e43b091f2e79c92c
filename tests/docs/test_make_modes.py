"""``make modes``: its plans can be run, and a mode that fails is a row."""

import json
import subprocess

import pytest

from benchmarks import modes
from fedcore.config import plan as plans
from fedcore.config.disclosure import server_sees

RESULT = {
    "run_id": "r", "macro_auc": 0.9, "privacy": {"epsilon": None}, "bytes_up": 5, "bytes_down": 6,
    "params_sha256": "ab", "seconds": {"train": 1.0}, "verdict": {"passed": False},
}  # fmt: skip


@pytest.mark.parametrize("mode", modes.MODES, ids=lambda mode: mode.name)
def test_every_mode_is_a_plan_that_is_accepted(mode):
    plan = plans.parse(json.dumps(modes.plan_fields(mode)))
    assert plan.rounds == plans.load(modes.PLAN).rounds
    hidden = "masks" in mode.name or "ckks" in mode.name
    assert (plan.secure_aggregation.mode != "none") == hidden
    assert (plan.privacy.noise_multiplier > 0) == mode.name.startswith("noise")
    assert plan.privacy.clip_norm == 10.0, "what a mode does not change stays"


def play(monkeypatch, tmp_path, done: subprocess.CompletedProcess[str]):
    asked: list[list[str]] = []
    monkeypatch.setattr(modes.subprocess, "run", lambda command, **_: asked.append(command) or done)
    drop = next(mode for mode in modes.MODES if mode.options)
    return modes.run(drop, tmp_path, tmp_path / "work", rounds=2, scale=0.3), asked[0], drop


@pytest.mark.parametrize("code", [0, 3], ids=["passed its gate", "failed its gate"])
def test_a_run_that_ended_is_a_row(monkeypatch, tmp_path, code):
    said = f"some line\n{json.dumps(RESULT)}\n"
    row, command, mode = play(monkeypatch, tmp_path, subprocess.CompletedProcess([], code, said))
    assert row == {
        "mode": mode.name, "macro_auc": 0.9, "epsilon": None, "bytes_up": 5, "bytes_down": 6,
        "seconds": row["seconds"], "params_sha256": "ab", "run_id": "r",
        "server_sees": server_sees({"secure_aggregation": {"mode": "masks"}}),
    }  # fmt: skip
    assert command[-4:] == ["--drop", "north@unmask", "--rounds", "2"]
    assert plans.load(tmp_path / "plan.yaml").secure_aggregation.mode == "masks"


def test_a_run_that_failed_is_a_row_with_its_reason(monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess([], 75, "", "bar 1/2\nfedcore: too few sites\n\n")
    row, _, mode = play(monkeypatch, tmp_path, failed)
    assert row == {"mode": mode.name, "error": "exit code 75: fedcore: too few sites"}
    assert mode.name in list(modes._table([row]).columns[0].cells)
