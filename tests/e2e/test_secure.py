"""Secure rounds as a user runs them, on real services, with kills and drills at the protocol's
stages: a client that comes back costs nothing, and one that stays away costs itself."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from demo_runs import TIMEOUT, copy_of, end, log_of, nothing_runs, sprung, start

pytestmark = pytest.mark.e2e

Result = tuple[Path, dict[str, Any]]

MOSTLY_HELD_OUT = {"task": {"dataset": {"arguments": {"fractions": [0.25, 0.35, 0.4]}}}}
"""So that every site has enough subjects to report on."""


@pytest.fixture(scope="module")
def masked(brain_workdir: Callable[[str], Path]) -> Result:
    workdir = brain_workdir("masks")
    return workdir, end(start(workdir, "--secure", "masks", changes=MOSTLY_HELD_OUT))


def test_masked_run_ends_well(masked: Result) -> None:
    workdir, result = masked
    assert set(result["sites"]) == {"north", "east", "south", "west"}
    assert all(not site["modalities"] for site in result["sites"].values()), "nobody was told"
    assert result["onnx"]["max_abs_diff"] <= 1e-4
    assert nothing_runs(workdir)


def test_clients_and_flow_killed_at_the_stages(tmp_path: Path, masked: Result) -> None:
    """Each is started again, says what it said before, and the params are the same bits."""
    workdir = copy_of(masked[0], tmp_path / "killed")
    secure = ["--secure", "masks"]
    clients = [
        ("north", "after", "rounds/00000/attempt-0/roster.json"),
        ("west", "after", "orders/west/.*/000000.inbox.json"),
        ("clients", "after", "rounds/00000/attempt-0/survivors.json"),
        ("east", "after", "orders/east/.*/000000.signatures.json"),
    ]
    flow = ("flow", "after", "rounds/00001/attempt-0/signatures.json")
    process = start(workdir, *secure, traps=[*clients, flow], changes=MOSTLY_HELD_OUT)
    process.communicate(timeout=TIMEOUT)
    told = log_of(workdir).read_text()
    assert process.returncode == -signal.SIGKILL, told
    assert sprung(workdir) == len(clients) + 1, told
    result = end(start(workdir, *secure, "--resume", changes=MOSTLY_HELD_OUT))
    assert result["params_sha256"] == masked[1]["params_sha256"]
    assert "dropped out" not in log_of(workdir).read_text()


def test_statistics_behind_masks_and_a_drill_before_unmask(tmp_path: Path, masked: Result) -> None:
    """The same model and the same figures over all sites; none by site, in the page neither.

    Of the site that goes before it unmasks the update was sent: the others' shares take its masks
    off, and the sum is the same.
    """
    hidden = {
        "secure_aggregation": {"mode": "masks", "statistics": True},
        "aggregation": {"weight_cap": 64},
        "task": {"groups": [], **MOSTLY_HELD_OUT["task"]},
        "gates": {"min_site_auc": None, "max_group_gap": None},
    }
    workdir = copy_of(masked[0], tmp_path / "statistics")
    result = end(start(workdir, "--drop", "north@unmask", changes=hidden))
    log = (workdir / "logs" / "client-north.log").read_text()
    assert "a drill: this client ends before it says unmask" in log
    assert result["params_sha256"] == masked[1]["params_sha256"]
    for figure in ("macro_auc", "accuracy", "sensitivity", "specificity", "f1"):
        assert result[figure] == pytest.approx(masked[1][figure]), figure
    assert all(site["auc"] is None for site in result["sites"].values())
    assert result["onnx"]["max_abs_diff"] <= 1e-4
    assert "not told (secure aggregation)" in Path(result["report"]).read_text()
    assert nothing_runs(workdir)


def test_encrypted_run_ends_well(tmp_path: Path, masked: Result) -> None:
    workdir = copy_of(masked[0], tmp_path / "ckks")
    result = end(start(workdir, "--secure", "ckks", changes=MOSTLY_HELD_OUT))
    assert set(result["sites"]) == {"north", "east", "south", "west"}
    assert result["bytes_up"] > 2 * masked[1]["bytes_up"], "ciphertexts are larger than words"
    assert None not in (result["macro_auc"], masked[1]["macro_auc"])
    assert abs(result["macro_auc"] - masked[1]["macro_auc"]) < 0.05
