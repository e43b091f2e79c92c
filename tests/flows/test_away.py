"""Prefect's server is away when a run needs it, or does not need it any more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import toy
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from fedcore.errors import ConfigError, ServiceUnavailable
from fedcore.local.ports import choose
from fedcore.store.envelope import create_key
from flows import train as flow


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A plan and a federation, by their files."""
    (tmp_path / "exchange").mkdir()
    create_key(tmp_path / "server.pem")
    plan, federation = tmp_path / "plan.yaml", tmp_path / "federation.yaml"
    plan.write_text(toy.plan().model_dump_json())
    sites = {site: {"launch": "none"} for site in toy.SITES}
    federation.write_text(json.dumps(
        {"exchange": {"folder": str(tmp_path / "exchange")}, "signing_key": "server.pem",
         "sites": sites}
    ))  # fmt: skip
    return plan, federation


def raising(error: Exception) -> Any:
    def fail(**_: Any) -> None:
        raise error

    return fail


def test_at_the_start_it_is_named_and_the_run_can_be_tried_again(files: tuple[Path, Path]) -> None:
    url = f"http://127.0.0.1:{choose(1)[0]}/api"
    away = {PREFECT_API_URL: url, PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(away), pytest.raises(ServiceUnavailable, match=url) as caught:
        flow.train_here(*files, "run-1")
    assert caught.value.exit_code == 75
    assert not list((files[1].parent / "exchange").rglob("run.json")), "no run was opened"


def test_a_run_that_is_over_is_over(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "train", raising(httpx.ConnectError("refused")))
    monkeypatch.setattr(flow, "finished_run", lambda *_: {"run_id": "run-1"})
    assert flow.train_here(*files, "run-1") == {"run_id": "run-1"}


def test_what_is_not_prefects_is_raised_as_it_is(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "train", raising(ConfigError("another plan")))
    with pytest.raises(ConfigError, match="another plan"):
        flow.train_here(*files, "run-1")
