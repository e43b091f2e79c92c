"""The demo as a user runs it: to its end, and with ``kill -9`` on everything that it consists of.

Each test runs the real command on real services. The killed runs must end with the very params
of the undisturbed one. Where the moment of a kill matters, ``trapped.py`` runs the command.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from demo_runs import TIMEOUT, copy_of, end, log_of, nothing_runs, sprung, start
from running import processes

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def undisturbed(brain_workdir: Callable[[str], Path]) -> tuple[Path, dict[str, Any]]:
    workdir = brain_workdir("undisturbed")
    return workdir, end(start(workdir))


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


STAGES_OF_THE_FLOW = [
    ("before", "rounds/00000/record.json"),
    ("after", "verdict.json"),
    ("after", "release.json"),
]


def test_flow_killed_at_every_stage(
    tmp_path: Path, undisturbed: tuple[Path, dict[str, Any]]
) -> None:
    """Killed again and again, each time a stage later; the same command takes it up each time."""
    workdir = copy_of(undisturbed[0], tmp_path / "killed")
    resume: list[str] = []
    for moment, key in STAGES_OF_THE_FLOW:
        process = start(workdir, *resume, traps=[("flow", moment, key)])
        process.communicate(timeout=TIMEOUT)
        assert process.returncode == -signal.SIGKILL, log_of(workdir).read_text()
        assert nothing_runs(workdir), "services and clients must not outlive the flow"
        resume = ["--resume"]
    assert sprung(workdir) == len(STAGES_OF_THE_FLOW)
    result = end(start(workdir, "--resume"))
    assert result["run_id"] != undisturbed[1]["run_id"]
    assert result["params_sha256"] == undisturbed[1]["params_sha256"]
    assert Path(result["report"]).exists()


OF_EVERYTHING_ELSE = [
    ("s3", "after", "orders/north/.*/000000.json"),
    ("west", "sees", "replies/north/.*/000000.safetensors"),
    ("s3", "before", "rounds/00000/survivors.json"),
    ("s3", "after", "rounds/00001/state.safetensors"),
    ("s3", "before", "rounds/00000/record.json"),
    ("prefect", "after", "evaluations/00001-validation.json"),
    ("clients", "after", "orders/west/.*/000002.json"),
    ("prefect", "before", "rounds/00001/record.json"),
    ("north", "after", "orders/west/.*/000004.json"),
    ("s3", "after", "verdict.json"),
    ("prefect", "after", "release.json"),
]


def test_everything_else_killed_at_every_stage(
    tmp_path: Path, undisturbed: tuple[Path, dict[str, Any]]
) -> None:
    """The run goes through all these kills by itself.

    The stack brings S3 back in seconds; server and clients wait for it. One client alone, and all
    at once, are started again within the round. Prefect the run does not need, and goes on while
    the stack brings it back.
    """
    workdir = copy_of(undisturbed[0], tmp_path / "hurt")
    result = end(start(workdir, traps=OF_EVERYTHING_ELSE))
    told = log_of(workdir).read_text()
    assert sprung(workdir) == len(OF_EVERYTHING_ELSE), told
    assert result["run_id"] != undisturbed[1]["run_id"]
    assert result["params_sha256"] == undisturbed[1]["params_sha256"]
    assert "waiting up to 120 s for a store that is away" in told
    assert "started again, because its client ended with exit code 137" in told
    assert "dropped out" not in told
    assert nothing_runs(workdir), processes(workdir)
