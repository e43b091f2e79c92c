"""``fedcore demo --compress`` on real services, with a client killed as its update arrives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from demo_runs import end, log_of, nothing_runs, sprung, start

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def compressed(brain_workdir: Callable[[str], Path]) -> tuple[Path, dict[str, Any]]:
    workdir = brain_workdir("compressed")
    trap = ("north", "sees", "replies/north/.*/000000.safetensors")
    return workdir, end(start(workdir, "--compress", "--rounds", "3", traps=[trap]))


def test_fifteen_times_fewer_bytes(compressed: tuple[Path, dict[str, Any]]) -> None:
    _, result = compressed
    rounds = [result["bytes"][phase] for phase in ("training", "validation")]
    sent = sum(part[way] for part in rounds for way in ("up", "down"))
    assert result["bytes_as_float32"] > 15 * sent
    assert result["bytes"]["test and export"]["down"] < 0.3 * 4 * 450_000, "the export is coded too"


def test_all_sites_took_part_though_one_was_killed(
    compressed: tuple[Path, dict[str, Any]],
) -> None:
    workdir, result = compressed
    told = log_of(workdir).read_text()
    assert sprung(workdir) == 1, told
    assert "dropped out" not in told
    assert result["onnx"]["max_abs_diff"] <= 1e-4
    assert "times fewer bytes" in Path(result["report"]).read_text()
    assert nothing_runs(workdir)
