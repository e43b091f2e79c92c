"""Offering the flows in Prefect's UI, from a process on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import serve

from flows.train import train


def serve_flows(*, plan: Path, federation: Path) -> None:
    """Deploy ``train`` with these defaults and run what the UI asks for, until interrupted."""
    deployment: Any = train.to_deployment(
        name="train",
        description="Train a plan across a federation's sites, judge the model and release it.",
        parameters={"plan": str(plan), "federation": str(federation)},
    )
    serve(deployment, print_starting_message=False)
