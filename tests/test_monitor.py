"""Metrics of a run: served while it runs, and never at the run's expense."""

from __future__ import annotations

import logging
import urllib.request

import pytest

from fedcore.local.ports import choose
from fedcore.monitor import exposed
from fedcore.settings import flow_settings


def test_served_while_the_run_runs() -> None:
    (port,) = choose(1)
    with exposed(port), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert b"fedcore_" in answer.read()


def test_a_taken_port_costs_the_metrics_alone(caplog: pytest.LogCaptureFixture) -> None:
    (port,) = choose(1)
    with exposed(port), caplog.at_level(logging.WARNING, "fedcore.run"), exposed(port):
        assert f"no metrics of this run at port {port}" in caplog.text


def test_what_the_chart_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert flow_settings().metrics_port is None
    monkeypatch.setenv("FEDCORE_METRICS_PORT", "9100")
    assert flow_settings().metrics_port == 9100
