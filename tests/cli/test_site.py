"""``fedcore site``: what a hospital's engineer types, and sees."""

import json
from pathlib import Path

import pytest
from heads import scan, site, task
from typer.testing import CliRunner

from fedcore.cli import app
from fedcore.config.plan import Plan
from fedcore.store.filesystem import FilesystemStore


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    asked = Plan(name="heads", purpose="study", seed=1, rounds=1, task=task("t1ce", "ct"))
    path = tmp_path / "plan.yaml"
    path.write_bytes(asked.canonical())
    return path


def test_prepare_tells_what_there_is_and_keeps_it(plan: Path, tmp_path: Path) -> None:
    data = tmp_path / "bids"
    data.mkdir()
    site(FilesystemStore(data), {"sub-1": {"t1ce": scan(0, "t1ce"), "ct": b"no image"}})
    command = ["site", "prepare", str(plan), "--data", str(data), "--workers", "1", "--json",
               "--pictures", str(tmp_path / "png"), "--every"]  # fmt: skip
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told == {"subjects": 1, "used": 1, "images": {"t1ce": 1},
                    "left_out": {"not NIfTI": 1}, "doubts": []}  # fmt: skip
    assert (tmp_path / "png" / "sub-1.png").read_bytes().startswith(b"\x89PNG")
    assert list(data.glob("derivatives/fedcore/prepared/*/sub-1/*.safetensors"))


def test_without_data_it_says_what_is_missing(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDCORE_DATA", raising=False)
    done = CliRunner().invoke(app, ["site", "prepare", str(plan)])
    assert "FEDCORE_DATA" in str(done.exception)
