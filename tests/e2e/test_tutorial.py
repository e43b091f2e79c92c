"""docs/tutorial.md, followed to the letter."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.e2e
def test_tutorial_works(tmp_path: Path) -> None:
    for name, text in BLOCK.findall(TUTORIAL.read_text()):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    environment.pop("PREFECT_API_URL", None)

    def bash(script: str) -> str:
        done = subprocess.run(
            ["bash", "-e", script], cwd=tmp_path, env=environment, text=True,
            capture_output=True, timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    bash("prepare.sh")
    result = json.loads(bash("run.sh").splitlines()[-1])
    assert result["verdict"]["passed"], result["verdict"]["reasons"]
    assert result["macro_auc"] > 0.7
    assert set(result["sites"]) == {"a", "b", "c"}
    assert Path(result["report"]).exists()


def test_the_users_own_code_is_about_twenty_lines() -> None:
    blocks = dict(BLOCK.findall(TUTORIAL.read_text()))
    lines = [line for line in blocks["mystudy.py"].splitlines() if line.strip()]
    assert len(lines) <= 20
