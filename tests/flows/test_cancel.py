"""Cancelled in Prefect: the run's Jobs go, wherever their flow's process is, and only its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toy
from hospitals import Hospitals
from kube import KubeApi
from ruamel.yaml import YAML

from fedcore.server import orders
from fedcore.server.connect import launchers
from fedcore.store.calls import Calls
from flows.cancel import end_clients

PLAN = toy.plan(timeouts={"round": 90, "idle": 60, "poll": 0.05})


def idle(container: Any) -> int:
    container.stopping.wait(120)
    return 143


@pytest.fixture
def hospitals(tmp_path: Path) -> Iterator[Hospitals]:
    with KubeApi(runner=idle) as kube:
        yield Hospitals(tmp_path, kube, PLAN)


def flow_run(hospitals: Hospitals, launch: str, run_id: str) -> Any:
    """As Prefect hands it to the hook: its parameters are paths."""
    federation = hospitals.federation(launch).model_dump(mode="json", exclude_none=True)
    YAML(typ="safe", pure=True).dump(federation, hospitals.folder / "federation.yaml")
    (hospitals.folder / "plan.yaml").write_text(PLAN.model_dump_json())
    paths = {name: str(hospitals.folder / f"{name}.yaml") for name in ("plan", "federation")}
    return SimpleNamespace(id="0", parameters={**paths, "run_id": run_id})


def test_jobs_are_deleted(hospitals: Hospitals) -> None:
    kube, federation = hospitals.kube, hospitals.federation()
    with launchers(federation, hospitals.exchange, toy.KEY, hospitals.folder) as launcher:
        for run_id in ("run-1", "run-2"):
            run = toy.open_toy(hospitals.exchange, PLAN, run_id)
            for order in orders.train_orders(run, 0):
                launcher.ensure(order)
                kube.until(
                    lambda o=order, r=run_id: launcher.poll(o.site) and jobs(kube, r, o.site)
                )
    asked: Any = flow_run(hospitals, "kubernetes", "run-1")
    end_clients(None, asked, None)  # type: ignore[arg-type]
    kube.until(lambda: not jobs(kube, "run-1"))
    assert len(jobs(kube, "run-2")) == len(toy.SITES)


def test_calls_are_withdrawn(hospitals: Hospitals) -> None:
    run = toy.open_toy(hospitals.exchange, PLAN, "run-1")
    calls = Calls(hospitals.exchange)
    for order in orders.train_orders(run, 0):
        calls.call(order.site, "run-1", order.seq, toy.KEY)
    asked: Any = flow_run(hospitals, "agent", "run-1")
    end_clients(None, asked, None)  # type: ignore[arg-type]
    assert all(calls.wanted(site, toy.KEY.public_key()) == {} for site in toy.SITES)


def jobs(kube: KubeApi, run_id: str, site: str | None = None) -> list[Any]:
    found = kube.jobs(f"fedcore-{site}" if site else "")
    return [job for job in found if job["metadata"]["labels"]["fedcore.io/run"] == run_id]
