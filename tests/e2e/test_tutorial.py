"""docs/tutorial.md and docs/new-disease.md, followed to the letter."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
TUTORIAL = DOCS / "tutorial.md"
BLOCK = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def followed(page: Path, folder: Path, prefect_home: Path) -> dict[str, Any]:
    """The result of the run that a page ends with, of nothing but what stands in it."""
    shutil.copytree(prefect_home, folder / "prefect")
    for name, text in BLOCK.findall(page.read_text()):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    environment.pop("PREFECT_API_URL", None)

    def bash(script: str) -> str:
        done = subprocess.run(
            ["bash", "-e", script], cwd=folder, env=environment, text=True,
            capture_output=True, timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    bash("prepare.sh")
    result: dict[str, Any] = json.loads(bash("run.sh").splitlines()[-1])
    assert result["verdict"]["passed"], result["verdict"]["reasons"]
    assert set(result["sites"]) == {"a", "b", "c"}
    assert Path(result["report"]).exists()
    return result


@pytest.mark.e2e
def test_tutorial_works(tmp_path: Path, prefect_home: Path) -> None:
    assert followed(TUTORIAL, tmp_path, prefect_home)["macro_auc"] > 0.7


@pytest.mark.e2e
def test_a_fourth_disease_can_be_added(tmp_path: Path, prefect_home: Path) -> None:
    result = followed(DOCS / "new-disease.md", tmp_path, prefect_home)
    assert "ct" not in result["sites"]["b"]["modalities"], "b has no CT"
    assert sum(result["sites"]["c"]["left_out"].values()) >= 3, "c's files are damaged"


def test_the_users_own_code_is_about_twenty_lines() -> None:
    blocks = dict(BLOCK.findall(TUTORIAL.read_text()))
    lines = [line for line in blocks["mystudy.py"].splitlines() if line.strip()]
    assert len(lines) <= 20
