"""The workflows, by the schema of such files and by what they call."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def check(path: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema"]
    return subprocess.run([*command, "vendor.github-workflows", path], check=False,
                          capture_output=True, text=True)  # fmt: skip


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_it_is_a_workflow(path: Path) -> None:
    done = check(path)
    assert done.returncode == 0, done.stdout


def test_what_is_none_would_be_seen(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    text = WORKFLOWS[0].read_text(encoding="utf-8")
    wrong.write_text(text.replace("runs-on:", "run-on:"), encoding="utf-8")
    assert check(wrong).returncode == 1


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_it_may_only_read_and_calls_what_is_there(path: Path) -> None:
    workflow = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"]
        for step in job["steps"]:
            command = step.get("run", "")
            for target in re.findall(r"\bmake ([a-z-]+)", command):
                assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
            for script in re.findall(r"\bbash (\S+)", command):
                assert (ROOT / script).exists()


def test_kind_asks_for_no_gpu_and_cleans_up() -> None:
    text = (ROOT / ".github/workflows/kind.yml").read_text(encoding="utf-8")
    (job,) = YAML(typ="safe").load(text)["jobs"].values()
    assert job["env"]["FEDCORE_GPU_RESOURCE"] == ""
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert [run for run in runs if run.startswith("make")] == [
        "make kind-up", "make kind-test", "make kind-down"]  # fmt: skip
    assert job["steps"][-1]["if"] == "always()"
